"""The sidecar that scenarios are played with, and what happens to it."""

from __future__ import annotations

import secrets
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

from tests.authority import LOCAL, Authority, uri
from tests.dpop import Presenter
from tests.running import RunningSidecar, free_port

if TYPE_CHECKING:
    from collections.abc import Callable

PROFILES = ("default", "large", "ticket", "session", "rotated", "leaked", "busy")
MORE = {
    "large": "max_token_bytes = 16384",
    "ticket": "one_time = true",
    "session": 'refresh_ttl = "1h"\nrefresh_max_ttl = "2h"',
}
LARGE = 8 * 1024 - len('{"text":""}')


def _profile(name: str) -> str:
    return (
        f'[profiles.{name}]\nissuer = "urn:conformance"\naudiences = ["orders", "billing"]\nleeway = "1s"\n'
        f"{MORE.get(name, '')}\n"
    )


class Stage:
    """One sidecar with sockets, TCP and mutual TLS. `names` is what steps may call by $name from the start."""

    def __init__(self) -> None:
        self.sidecar = RunningSidecar("", {"TOKENSIDECAR_LISTEN_APP": None, "TOKENSIDECAR_LISTEN_ADMIN": None})
        folder = self.sidecar.directory / "tls"
        authority = Authority()
        authority.issue(*LOCAL).write(folder, "server")
        authority.issue(uri("spiffe://example.org/web")).write(folder, "web")
        (folder / "ca.crt").write_bytes(authority.certificate)
        tls = f"127.0.0.1:{free_port()}"
        server = f'certificate = "{folder}/server.crt", key = "{folder}/server.key", client_ca = "{folder}/ca.crt"'
        config = f"""
[listen]
app = ["{self.sidecar.app_socket}", "{self.sidecar.app_tcp}", {{ address = "{tls}", tls = {{ {server}, trust_domain = "example.org" }} }}]
admin = ["{self.sidecar.admin_socket}"]
[keys]
refresh_interval = "1s"
propagation = "2s"
max_staleness = "2s"
max_skew = "1s"
"""
        text = config + "".join(map(_profile, PROFILES))
        (self.sidecar.directory / "config.toml").write_text(text, encoding="utf-8")
        self._presenter = Presenter()
        self._store = self.sidecar.state_dir / "state.db"
        self._aside = self.sidecar.directory / "aside"
        self._meanwhile: list[threading.Thread] = []
        self._problems: list[Exception] = []
        self.names = {
            "socket": self.sidecar.app_socket,
            "admin_socket": self.sidecar.admin_socket,
            "tcp": self.sidecar.app_tcp,
            "tls": tls.replace("127.0.0.1", "localhost"),
            "tls_ca": f"{folder}/ca.crt",
            "tls_certificate": f"{folder}/web.crt",
            "tls_key": f"{folder}/web.key",
            "large": "é" * (LARGE // 2),
            "thumbprint": self._presenter.thumbprint,
        }

    def set(self) -> dict[str, str]:
        """Sidecar up and ready; gives the names of a scenario that begins."""
        if not self.sidecar.running:
            self.sidecar.start()
        self.sidecar.wait_until_ready()
        return {**self.names, "fresh": secrets.token_hex(8)}

    def clear(self) -> None:
        """After a scenario, however it ended: everything is whole again."""
        for thread in self._meanwhile:
            thread.join()
        self._meanwhile.clear()
        if self.sidecar.running:
            self.sidecar.process.send_signal(signal.SIGCONT)
        if self._aside.exists():
            self._store_comes_back()
        if self._problems:
            raise AssertionError(str(self._problems.pop()))

    def close(self) -> None:
        """Ends the sidecar."""
        try:
            self.sidecar.stop()
        finally:
            self.sidecar.kill()
            self.sidecar.remove()

    def happens(self, step: dict[str, Any]) -> str | None:
        """What a step says, now or after so many seconds, beside what follows; gives what it made, if something."""
        what = step["happens"]
        if what == "a character of the ciphertext changes":
            parts = step["of"].split(".")
            text = parts[3]
            parts[3] = text[:9] + ("A" if text[9] != "A" else "B") + text[10:]
            return ".".join(parts)
        if what == "the presenter makes a proof":
            return self._presenter.proof(step["of"])
        if what == "time passes":
            time.sleep(step["seconds"])
            return None
        acts: dict[str, Callable[[], None]] = {
            "the sidecar ends": self.sidecar.stop,
            "the sidecar starts": self.sidecar.start,
            "the sidecar restarts": self._restart,
            "the sidecar is halted": lambda: self.sidecar.process.send_signal(signal.SIGSTOP),
            "the sidecar goes on": lambda: self.sidecar.process.send_signal(signal.SIGCONT),
            "the store is gone": self._store_goes,
            "the store is back": self._store_comes_back,
        }
        act = acts[what]
        if "after" not in step:
            act()
        else:
            self._meanwhile.append(threading.Thread(target=self._later, args=(step["after"], act)))
            self._meanwhile[-1].start()
        return None

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        time.sleep(seconds)
        try:
            act()
        except Exception as problem:  # noqa: BLE001 - raised by clear, in the thread that waits for it
            self._problems.append(problem)

    def _restart(self) -> None:
        self.sidecar.stop()
        self.sidecar.start()

    def _store_goes(self) -> None:
        self._store.rename(self._aside)

    def _store_comes_back(self) -> None:
        self._aside.rename(self._store)
