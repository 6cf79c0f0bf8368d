"""What the doctor makes of what it saw: each thing that can be wrong has its line, with what to do."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from sidecar.addresses import Address, Tls
from sidecar.config import load
from sidecar.findings import findings, worst
from sidecar.keyring import Role
from sidecar.profile import DEFAULT
from sidecar.seen import Finding, Running, Seen, Verdict
from tests.authority import LOCAL, Authority
from tests.keepers import Fleet

if TYPE_CHECKING:
    from pathlib import Path

    from sidecar.config import Config
    from sidecar.keeper import Keeper

DAY = 86400.0
GOOD = """
[listen]
app = ["unix:{0}/run/app/app.sock"]
admin = ["unix:{0}/run/admin/admin.sock"]
http = "127.0.0.1:8792"
[profiles.default]
issuer = "urn:test"
audiences = ["orders"]
[policy.web]
caller = "unix:app"
issue = {{ profiles = ["default"] }}
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "run").mkdir(mode=0o700)
    file = tmp_path / "config.toml"
    file.write_text(GOOD.format(tmp_path))
    env = {"TOKENSIDECAR_STATE_DIR": str(tmp_path / "state"), "TOKENSIDECAR_RUNTIME_DIR": str(tmp_path / "run")}
    return load(str(file), env)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def _said(seen: Seen) -> list[Finding]:
    return [each for each in findings(seen) if each.verdict is not Verdict.OK]


async def _kept(fleet: Fleet, **roles: object) -> dict[str, Keeper]:
    return {"default": await fleet.start(**roles)}  # type: ignore[arg-type]


async def test_where_all_is_well_nothing_is_said(config: Config, fleet: Fleet) -> None:
    seen = Seen(config, keepers=await _kept(fleet), revisions={"default": 1})
    assert _said(seen) == []
    areas = ["config", "sidecar", "store", "kms", "clock", "permissions", "times", "state", "keys"]
    assert list(dict.fromkeys(each.area for each in findings(seen))) == areas
    assert worst(findings(seen)) is Verdict.OK


def test_before_the_first_start_nothing_is_wrong(config: Config) -> None:
    assert _said(Seen(config, absent=True)) == []


@pytest.mark.parametrize(
    ("seen", "area", "words", "advice"),
    [
        ({"store_problem": "the disk is full"}, "store", "the disk is full", "goes on until it is stale"),
        ({"damaged": {"default": "a broken seal"}}, "store", "a broken seal", "restore the store from a backup"),
        ({"kms": {Role.OPEN: "throttled"}}, "kms", "role open: throttled", "through rotations too"),
        ({"kms": dict.fromkeys(Role, "gone")}, "kms", "role issue and open: gone", "no sidecar starts"),
        ({"pins_problem": "cannot be read"}, "state", "cannot be read", "own user"),
    ],
)
def test_what_cannot_be_used_is_a_problem(
    config: Config, seen: dict[str, object], area: str, words: str, advice: str
) -> None:
    found = _said(Seen(config, revisions={"default": 1}, **seen))  # type: ignore[arg-type]
    assert [(each.area, each.verdict) for each in found] == [(area, Verdict.PROBLEM)]
    assert words in found[0].says
    assert advice in found[0].advice


@pytest.mark.parametrize(
    ("gauge", "value", "words"),
    [
        ("tokensidecar_config_good", 0.0, "refused the config file"),
        ("tokensidecar_audit_lost_records", 3.0, "could not write 3 audit records"),
        ("tokensidecar_state_stale", 1.0, "STATE_STALE for profile 'default'"),
        ("tokensidecar_ring_rolled_back", 1.0, "gone back to an older state"),
        ("tokensidecar_clock_skew_seconds", -7.0, "7.0 s behind the store's; 5 s are allowed"),
        ("tokensidecar_clock_skew_seconds", 3.0, "3.0 s ahead of the store's"),
        ("tokensidecar_ring_revision", 1.0, "holds revision 1 of profile 'default', and the store has 2"),
    ],
)
async def test_what_a_running_sidecar_tells_is_told(
    config: Config, fleet: Fleet, gauge: str, value: float, words: str
) -> None:
    running = Running(ready=True, gauges=((gauge, {"profile": "default"}, value),))
    seen = Seen(config, running=running, keepers=await _kept(fleet), revisions={"default": 2})
    found = _said(seen)
    assert len(found) == 1
    assert words in found[0].says
    assert found[0].advice


def test_a_sidecar_that_is_not_ready_and_a_stranger_at_its_port_are_told_apart(config: Config) -> None:
    waiting = _said(Seen(config, absent=True, running=Running(says="not ready: waiting for a keeper")))
    assert [(each.verdict, each.area) for each in waiting] == [(Verdict.WARN, "sidecar")]
    assert "waiting for a keeper" in waiting[0].says
    stranger = _said(Seen(config, absent=True, running=Running(stranger=True)))
    assert [each.verdict for each in stranger] == [Verdict.PROBLEM]
    assert "something else than a sidecar" in stranger[0].says


async def test_a_rotation_that_is_late_and_seals_that_are_old_are_told(config: Config, fleet: Fleet) -> None:
    keepers = await _kept(fleet)
    fleet.clock.pass_time(50 * DAY)
    await keepers["default"].refresh()
    found = _said(Seen(config, keepers=keepers, revisions={"default": 1}))
    assert [each.area for each in found] == ["keys", "keys"]
    assert "its rotation is 49d late" in found[0].says
    assert "last renewed 50d ago" in found[1].says


async def test_settings_that_differ_from_the_newest_keys_are_told(config: Config, fleet: Fleet) -> None:
    await _kept(fleet)
    keepers = await _kept(fleet, profile=replace(DEFAULT, max_ttl=7200))
    found = _said(Seen(config, keepers=keepers, revisions={"default": 1}))
    assert [each.verdict for each in found] == [Verdict.WARN]
    assert "max_ttl" in found[0].says
    assert "settings_revision" in found[0].advice


async def test_rings_under_the_further_key_are_told(config: Config, fleet: Fleet) -> None:
    await _kept(fleet)
    new = {role: fleet.kek(f"new-{role.value}") for role in Role}
    found = _said(Seen(config, keepers=await _kept(fleet, kms=new, further=fleet.kms), revisions={"default": 1}))
    assert ["sealed under keys.further_kek" in each.says and "rekey" in each.advice for each in found] == [True]


async def test_a_keeper_s_silence_is_told(config: Config, fleet: Fleet) -> None:
    seen = Seen(config, keepers=await _kept(fleet), revisions={"default": 1}, now=10_000.0, written=10_000.0 - 3600)
    assert ["a keeper last wrote 1h ago" in each.says for each in _said(seen)] == [True]
    assert _said(replace(seen, written=10_000.0 - 60)) == []


async def test_times_that_leave_no_room_are_told(config: Config, fleet: Fleet) -> None:
    tight = replace(DEFAULT, propagation=6, max_staleness=60)
    found = _said(Seen(replace(config, profiles={"default": tight}), absent=True))
    assert [each.area for each in found] == ["times", "times"]
    assert "at least 15s" in found[0].advice


def test_directories_of_others_are_told(config: Config, tmp_path: Path) -> None:
    (tmp_path / "state").chmod(0o777)
    found = _said(Seen(config, absent=True))
    assert [(each.area, each.verdict) for each in found] == [("permissions", Verdict.WARN)]
    assert "can be written by every user" in found[0].says
    (tmp_path / "state").rmdir()
    (tmp_path / "state").touch()
    found = _said(Seen(config, absent=True))
    assert [each.verdict for each in found] == [Verdict.PROBLEM]
    assert "cannot write to" in found[0].says


def test_a_missing_ring_is_a_keeper_s_to_make(config: Config) -> None:
    shared = replace(config, keys=replace(config.keys, store=f"file:{config.state_dir}"))
    found = _said(Seen(shared, revisions={"other": 1}))
    assert [each.verdict for each in found] == [Verdict.WARN]
    assert "there is no ring yet of default: a keeper makes it" in found[0].says
    assert _said(Seen(shared, keeping=True)) == []


def test_without_policies_it_is_said_what_that_means(config: Config) -> None:
    found = _said(Seen(replace(config, policy=()), absent=True))
    assert ["whoever reaches the app plane" in each.says for each in found] == [True]


@pytest.mark.parametrize(
    ("until", "ca_until", "verdict", "words"),
    [
        (timedelta(days=30), timedelta(days=300), Verdict.OK, "is good for 29d"),
        (timedelta(hours=-0.5), timedelta(days=300), Verdict.PROBLEM, "expired"),
        (timedelta(minutes=5), timedelta(days=300), Verdict.WARN, "is good for 4m"),
        (timedelta(days=30), timedelta(days=3), Verdict.WARN, "the last CA of client certificates is good for 2d"),
    ],
)
def test_certificates_that_end_are_told(
    config: Config, tmp_path: Path, until: timedelta, ca_until: timedelta, verdict: Verdict, words: str
) -> None:
    authority = Authority(until=ca_until)
    authority.issue(*LOCAL, until=until).write(tmp_path, "server")
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    tls = Tls(tmp_path / "server.crt", tmp_path / "server.key", tmp_path / "ca.crt")
    address = Address("tcp", host="127.0.0.1", port=8790, tls=tls)
    listen = replace(config.listen, app=(address,))
    found = [
        each
        for each in findings(Seen(replace(config, listen=listen), absent=True, wall=time.time()))
        if each.area == "certificates"
    ]
    assert [each.verdict for each in found] == [verdict]
    assert words in found[0].says
    assert bool(found[0].advice) is (verdict is not Verdict.OK)
