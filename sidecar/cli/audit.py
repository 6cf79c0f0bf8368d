"""`tokensidecar audit`: verify the chain of audit files, show records, print the key that a verifier needs."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from sidecar import directories
from sidecar.chain import ANCHOR_DIGITS, BrokenChainError, Report, head_of, verify
from sidecar.cli import screen
from sidecar.cli.exits import Code, CommandError
from sidecar.fields import Duration

if TYPE_CHECKING:
    from collections.abc import Iterator

POLL_SECONDS = 0.2
_ANCHOR = re.compile(rf"([0-9]{{1,18}}):([0-9a-f]{{{ANCHOR_DIGITS},64}})")
_AGO = Duration(0, 3650 * 86400)
_COLUMNS = (("time", 19), ("caller", 16), ("verb", 13), ("profile", 12), ("outcome", 23), ("request_id", 18))
_KNOWN = {"audit", "plane", "phase", "stage", "seq", "chain", *(name for name, _ in _COLUMNS)}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    one = what.add_parser("verify", help="check that no record was changed, deleted, moved or added")
    one.add_argument("files", metavar="FILE", nargs="+", help="those that follow one another, in any order; .gz too")
    one.add_argument(
        "--key", metavar="PEM", action="append", help="a public key of the sidecar; default: the state directory's"
    )
    one.add_argument(
        "--anchor",
        metavar="SEQ:CHAIN",
        action="append",
        default=[],
        type=_anchor,
        help="number and chain value of a checkpoint as the log told them, or as the metrics did (13 digits)",
    )
    one.add_argument("--json", action="store_true", help="print one JSON document")
    one = what.add_parser("show", help="show records")
    one.add_argument("file", metavar="FILE", help='"-": standard input')
    for name in ("caller", "verb", "profile", "outcome"):
        one.add_argument(f"--{name}", metavar="TEXT", help="only these")
    one.add_argument("--since", metavar="TIME", type=_since, help='RFC 3339, or how long ago, such as "15m"')
    one.add_argument("-f", "--follow", action="store_true", help="wait for more, also in the file's successor")
    one.add_argument("--json", action="store_true", help="print the records as they are")
    what.add_parser("key", help="print the public key of this machine's sidecar, for a verifier")


def run(args: argparse.Namespace) -> int:
    """Do it; 1 if a record is bad."""
    if args.what == "key":
        print(_own_key().decode(), end="")
        return Code.OK
    return _verify(args) if args.what == "verify" else _show(args)


# -- verify


def _verify(args: argparse.Namespace) -> int:
    from sidecar.sinks.signing import checker

    try:
        keys = [checker(_read(path)) for path in args.key] if args.key else [checker(_own_key())]
    except ValueError as error:
        raise CommandError(Code.USAGE, f"not a public key in PEM: {error}") from error
    with ExitStack() as opened:
        files = [(path, opened.enter_context(_opened(path))) for path in args.files]
        try:
            files.sort(key=lambda file: _first(file[1]))
            report = verify(files, keys, dict(args.anchor))
        except BrokenChainError as error:
            if args.json:
                bad = {"file": error.file, "line": error.line, "seq": error.seq, "problem": error.problem}
                screen.write_json({"good": False, "first_bad": bad})
                return Code.FAILURE
            raise CommandError(Code.FAILURE, str(error)) from error
        except OSError as error:
            raise CommandError(Code.USAGE, str(error)) from error
    if args.json:
        found = {name: getattr(report, name) for name in type(report).__dataclass_fields__}
        screen.write_json({"good": True, **found, "not_shown": _unshown(report, dict(args.anchor))})
    else:
        print(f"good: records {report.first} to {report.last}, {report.checkpoints} checkpoints signed")
        if report.lost:
            print(f"  {report.lost} records could not be written by the last process, as its last checkpoint says")
        for line in _unshown(report, dict(args.anchor)):
            print(f"  not shown: {line}")
    return Code.OK


def _unshown(report: Report, anchors: dict[int, str]) -> list[str]:
    """What the files alone cannot show."""
    said = []
    if report.first > 1:
        said.append(f"what stood before record {report.first}: give the files before, too")
    if report.last > report.signed:
        said.append(
            f"records {report.signed + 1} to {report.last} have no signature yet: whoever can write the file could have made them anew"
        )
    if not any(seq >= report.signed for seq in anchors):
        said.append(
            f"whether records after {report.last} were cut off, or the holder of the signing key made all anew: "
            "compare with a checkpoint in the log or the metrics, by --anchor"
        )
    return said


def _first(file: IO[bytes]) -> int:
    """Number of a file's first record, for the order; one without any comes first, and is then found bad."""
    head = head_of(file.readline().rstrip(b"\n"))
    file.seek(0)
    return head.seq if head else 0


def _opened(path: str) -> IO[bytes]:
    try:
        return cast("IO[bytes]", gzip.open(path, "rb")) if path.endswith(".gz") else Path(path).open("rb")
    except OSError as error:
        raise CommandError(Code.USAGE, f"{path}: {error.strerror}") from error


def _own_key() -> bytes:
    from sidecar.sinks.signing import PUBLIC_KEY

    path = directories.state(os.environ) / PUBLIC_KEY
    if not path.exists():
        raise CommandError(Code.USAGE, f"{path} is not there: name the public key by --key, or TOKENSIDECAR_STATE_DIR")
    return _read(str(path))


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise CommandError(Code.USAGE, f"{path}: {error.strerror}") from error


def _anchor(text: str) -> tuple[int, str]:
    found = _ANCHOR.fullmatch(text)
    if not found:
        raise argparse.ArgumentTypeError(f"must be SEQ:CHAIN, with at least {ANCHOR_DIGITS} hexadecimal digits")
    return int(found[1]), found[2]


# -- show


def _show(args: argparse.Namespace) -> int:
    if not args.json:
        print("  ".join(f"{name:<{width}}" for name, width in _COLUMNS))
    for line in _lines(args.file, follow=args.follow):
        try:
            record = json.loads(line)
        except ValueError:
            continue  # of a log that shares the stream, or cut short
        if not isinstance(record, dict) or "audit" not in record or not _asked_for(record, args):
            continue
        if args.json:
            print(line.rstrip("\n"), flush=args.follow)
        else:
            _print_row(record)
            if args.follow:
                sys.stdout.flush()
    return Code.OK


def _lines(path: str, *, follow: bool) -> Iterator[str]:
    """Whole lines. Following goes on in a new file of that name, once the old one, renamed, is read to its end."""
    if path == "-":
        yield from sys.stdin
        return
    while True:
        with _opened(path) as file:
            opened, rest = (os.fstat(file.fileno()).st_ino if follow else 0), b""
            while True:
                line = rest + file.readline()
                if line.endswith(b"\n"):
                    rest = b""
                    yield line.decode("utf-8", "replace")
                    continue
                rest = line  # the end, or half a line
                if not follow:
                    return
                try:
                    if Path(path).stat().st_ino != opened:
                        break
                except FileNotFoundError:
                    pass  # renamed, and the next one is not there yet
                time.sleep(POLL_SECONDS)


def _asked_for(record: dict[str, Any], args: argparse.Namespace) -> bool:
    for name in ("caller", "verb", "profile", "outcome"):
        asked = getattr(args, name)
        if asked is not None and record.get(name) != asked:
            return False
    return args.since is None or str(record.get("time", "")) >= args.since


def _print_row(record: dict[str, Any]) -> None:
    outcome = record.get("outcome") or record.get("phase") or ""
    stage = f" ({record['stage']})" if record.get("stage") else ""
    shown = {**record, "time": str(record.get("time", ""))[:19], "outcome": f"{outcome}{stage}"}
    cells = [f"{screen.clean(str(shown.get(name, ''))):<{width}}" for name, width in _COLUMNS]
    more = " ".join(f"{name}={_short(value)}" for name, value in record.items() if name not in _KNOWN)
    row = "  ".join([*cells, screen.clean(more)]).rstrip()
    if screen.is_terminal() and "NO_COLOR" not in os.environ and outcome not in ("OK", "intent", ""):
        row = f"\x1b[31m{row}\x1b[0m"
    print(row)


def _short(value: object) -> str:
    return screen.shortened(value if isinstance(value, str) else json.dumps(value, separators=(",", ":")), 40)


def _since(text: str) -> str:
    """As records spell it, so that texts compare as times do."""
    try:
        if re.fullmatch("[0-9]+[smhd]", text):
            when = datetime.now(UTC) - timedelta(seconds=_AGO.read(text))
        else:
            when = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return when.astimezone(UTC).isoformat(timespec="microseconds")
