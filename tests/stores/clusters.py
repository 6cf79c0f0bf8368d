"""API servers that keep Secrets: a real kube-apiserver with etcd, and a stand-in that answers as it does. Both speak TLS on loopback.

`apiserver/go.mod` beside this file builds the real ones, in ten minutes on two cores; there:

    go build -trimpath -o /usr/local/bin/kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver
    go build -trimpath -o /usr/local/bin/etcd go.etcd.io/etcd/server/v3

Accounts, the same in both: `admin` may do everything; `creator` may get, update and create Secrets; `named` may get and update the one
called `named`; `nobody` may do nothing.
"""

from __future__ import annotations

import base64
import datetime as dt
import http.client
import http.server
import ipaddress
import json
import os
import re
import secrets
import shutil
import signal
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from email.utils import formatdate
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.running import free_port

NAMESPACE = "tokens"
ROLES: Mapping[str, Mapping[str, list[str]]] = {
    "creator": {"verbs": ["get", "update", "create"]},
    "named": {"verbs": ["get", "update"], "resourceNames": ["named"]},
}
ACCOUNTS = ("admin", *ROLES, "nobody")


class Cluster:
    """What tests need of an API server. As a context manager: it answers inside."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ts-", dir="/tmp"))
        self.port = free_port()
        self.server = f"https://127.0.0.1:{self.port}"
        self.ca = make_certificates(self.folder)
        for account in ACCOUNTS:
            self.token(account).write_text(secrets.token_hex(16) + "\n")

    def token(self, account: str) -> Path:
        """The file with this account's token."""
        return self.folder / account

    def __enter__(self) -> Self:
        raise NotImplementedError

    def __exit__(self, *_: object) -> None:
        raise NotImplementedError

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
        """As admin, under `/api/v1/namespaces/tokens` or from the root. Status and JSON."""
        whole = path if path.startswith("/api") else f"/api/v1/namespaces/{NAMESPACE}/{path}"
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=10, context=ssl.create_default_context(cafile=str(self.ca))
        )
        try:
            headers = {
                "Authorization": f"Bearer {self.token('admin').read_text().strip()}",
                "Content-Type": "application/json",
            }
            connection.request(method, whole, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def create(self, name: str, data: Mapping[str, bytes], **more: Any) -> None:
        """A Secret, deployed by somebody."""
        encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
        status, answer = self.ask(
            "POST",
            "secrets",
            {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": name}, "data": encoded, **more},
        )
        assert status == 201, answer

    def read(self, name: str) -> dict[str, Any]:
        """The Secret as the API shows it."""
        status, answer = self.ask("GET", f"secrets/{name}")
        assert status == 200, answer
        return dict(answer)

    def data(self, name: str) -> dict[str, bytes]:
        """What a mount of it would hold."""
        return {key: base64.b64decode(value) for key, value in (self.read(name).get("data") or {}).items()}

    def replace(self, name: str, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the Secret behind everybody's back."""
        secret = self.read(name)
        change(secret)
        status, answer = self.ask("PUT", f"secrets/{name}", secret)
        assert status == 200, answer

    def remove(self, name: str) -> None:
        assert self.ask("DELETE", f"secrets/{name}")[0] == 200


class RealCluster(Cluster):
    """etcd and kube-apiserver, with role-based access control."""

    def __enter__(self) -> Self:
        etcd, peer = free_port(), free_port()
        with (self.folder / "tokens.csv").open("w") as tokens:
            for account in ACCOUNTS:
                groups = ',"system:masters"' if account == "admin" else ""
                tokens.write(f"{self.token(account).read_text().strip()},{account},{account}{groups}\n")
        self._processes = [
            self._start(
                "etcd",
                f"--data-dir={self.folder}/etcd",
                f"--listen-client-urls=http://127.0.0.1:{etcd}",
                f"--advertise-client-urls=http://127.0.0.1:{etcd}",
                f"--listen-peer-urls=http://127.0.0.1:{peer}",
                "--unsafe-no-fsync",
            ),
            self._start(
                "kube-apiserver",
                f"--etcd-servers=http://127.0.0.1:{etcd}",
                "--bind-address=127.0.0.1",
                f"--secure-port={self.port}",
                f"--tls-cert-file={self.folder}/server.crt",
                f"--tls-private-key-file={self.folder}/server.key",
                f"--service-account-key-file={self.folder}/server.key",
                f"--service-account-signing-key-file={self.folder}/server.key",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--token-auth-file={self.folder}/tokens.csv",
                "--authorization-mode=RBAC",
                "--disable-admission-plugins=ServiceAccount",
                "--service-cluster-ip-range=10.0.0.0/24",
                "--endpoint-reconciler-type=none",
            ),
        ]
        try:
            self._wait(lambda: self.ask("GET", "/api/v1/namespaces/default")[0] == 200)
            self._grant()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder)

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{command[0]}.log").open("wb") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)

    def _wait(self, answered: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                if answered():
                    return
            except (OSError, http.client.HTTPException, ValueError):
                pass
            if time.monotonic() > deadline or any(p.poll() is not None for p in self._processes):
                raise AssertionError((self.folder / "kube-apiserver.log").read_text()[-2000:])
            time.sleep(0.1)

    def _grant(self) -> None:
        rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}"
        self._post("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        for account, rule in ROLES.items():
            self._post(
                f"{rbac}/roles",
                {"metadata": {"name": account}, "rules": [{"apiGroups": [""], "resources": ["secrets"], **rule}]},
            )
            self._post(
                f"{rbac}/rolebindings",
                {
                    "metadata": {"name": account},
                    "subjects": [{"kind": "User", "name": account, "apiGroup": "rbac.authorization.k8s.io"}],
                    "roleRef": {"kind": "Role", "name": account, "apiGroup": "rbac.authorization.k8s.io"},
                },
            )
            review = {
                "spec": {
                    "user": account,
                    "resourceAttributes": {
                        "namespace": NAMESPACE,
                        "verb": "update",
                        "resource": "secrets",
                        "name": rule.get("resourceNames", [""])[0],
                    },
                }
            }
            self._wait(
                lambda review=review: self.ask(  # type: ignore[misc]
                    "POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review
                )[1]["status"]["allowed"]
            )

    def _post(self, path: str, body: Mapping[str, Any]) -> None:
        status, answer = self.ask("POST", path, body)
        assert status in (201, 409), answer


class StandIn(Cluster):
    """Secrets in memory, behind the part of the API that `KubernetesStore` speaks.

    `before`: called with method and path before a request is looked at; what it returns, if anything, is the answer: status, headers,
    body. `date_ahead`: seconds by which its clock is ahead. `loses_answers`: does what it is asked and breaks off.
    """

    def __init__(self) -> None:
        super().__init__()
        self.before: Callable[[str, str], tuple[int, dict[str, str], bytes] | None] = lambda _method, _path: None
        self.date_ahead = 0.0
        self.loses_answers = False
        self._secrets: dict[str, dict[str, Any]] = {}
        self._version = 0
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        stand_in = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 65536  # head and body in one go
            disable_nagle_algorithm = True

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                status, headers, answer = stand_in.answer(
                    self.command, self.path, self.headers.get("Authorization", ""), body
                )
                if stand_in.loses_answers:
                    self.close_connection = True
                    return
                self.send_response_only(status)
                self.send_header("Date", formatdate(time.time() + stand_in.date_ahead, usegmt=True))
                self.send_header("Content-Length", str(len(answer)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_PUT = do_POST = do_DELETE = answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                pass  # a client that went away

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "server.crt", self.folder / "server.key")
        self._http = Server(("127.0.0.1", self.port), Handler)
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
        shutil.rmtree(self.folder)

    def answer(self, method: str, path: str, authorization: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """One request, as the API server would answer it."""
        if (prepared := self.before(method, path)) is not None:
            return prepared
        with self._lock:
            status, answer = self._answer(method, path, authorization, body)
        return status, {"Content-Type": "application/json"}, json.dumps(answer).encode()

    def _answer(self, method: str, path: str, authorization: str, body: bytes) -> tuple[int, dict[str, Any]]:
        account = next((a for a in ACCOUNTS if f"Bearer {self.token(a).read_text().strip()}" == authorization), None)
        if account is None:
            return _status(401, "Unauthorized")
        found = re.fullmatch(r"/api/v1/namespaces/([a-z0-9-]+)/secrets(?:/([a-z0-9.-]+))?", path)
        if not found:
            return _status(404, "the server could not find the requested resource")
        namespace, name = found.groups()
        verb = {"GET": "get", "PUT": "update", "POST": "create", "DELETE": "delete"}[method]
        if account != "admin" and not (namespace == NAMESPACE and _granted(account, verb, name)):
            return _status(403, f'secrets "{name}" is forbidden: User "{account}" cannot {verb} resource "secrets"')
        if verb == "create":
            if namespace != NAMESPACE:
                return _status(404, f'namespaces "{namespace}" not found')
            return self._create(json.loads(body))
        if name not in self._secrets:
            return _status(404, f'secrets "{name}" not found')
        if verb == "get":
            return 200, self._secrets[name]
        if verb == "delete":
            del self._secrets[name]
            return 200, {"kind": "Status", "status": "Success"}
        return self._update(name, json.loads(body))

    def _create(self, secret: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        name = secret["metadata"]["name"]
        if name in self._secrets:
            return _status(409, f'secrets "{name}" already exists')
        return self._keep({**secret, "metadata": {**secret["metadata"], "uid": secrets.token_hex(16)}}, 201)

    def _update(self, name: str, secret: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        present = self._secrets[name]
        for field in ("resourceVersion", "uid"):
            wanted = secret["metadata"].get(field)
            if wanted and wanted != present["metadata"][field]:
                return _status(409, f'Operation cannot be fulfilled on secrets "{name}": the object has been modified')
        if present.get("immutable") and secret.get("data") != present.get("data"):
            return _status(422, f'Secret "{name}" is invalid: data: field is immutable when `immutable` is set')
        return self._keep(secret, 200)

    def _keep(self, secret: dict[str, Any], status: int) -> tuple[int, dict[str, Any]]:
        data = {key: base64.b64decode(value, validate=True) for key, value in (secret.get("data") or {}).items()}
        if sum(map(len, data.values())) > 1024 * 1024:
            return _status(422, "data: Too long: may not be more than 1048576 bytes")
        self._version += 1
        kept = json.loads(json.dumps(secret))
        kept["metadata"]["resourceVersion"] = str(self._version)
        if not data:
            kept.pop("data", None)
        self._secrets[kept["metadata"]["name"]] = kept
        return status, kept


def _granted(account: str, verb: str, name: str | None) -> bool:
    rule = ROLES.get(account, {"verbs": []})
    return verb in rule["verbs"] and ("resourceNames" not in rule or name in rule["resourceNames"])


def _status(code: int, message: str) -> tuple[int, dict[str, Any]]:
    return code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}


def make_certificates(folder: Path) -> Path:
    """A CA and, signed by it, `server.crt` and `server.key` for 127.0.0.1; the CA's file."""
    now = dt.datetime.now(dt.UTC)

    def certificate(name: str, key: ec.EllipticCurvePrivateKey, issuer: str) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
        )

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = (
        certificate("test CA", ca_key, "test CA")
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    server = (
        certificate("kubernetes", key, "test CA")
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "ca.crt").write_bytes(ca.public_bytes(pem))
    (folder / "server.crt").write_bytes(server.public_bytes(pem))
    with os.fdopen(os.open(folder / "server.key", os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
        file.write(key.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()))
    return folder / "ca.crt"
