"""What stands in for AWS in tests: moto's KMS and STS, a credentials endpoint of a container, and a KMS that misbehaves. Real HTTP, on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3.session
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from tests.running import free_port

REGION = "eu-central-1"
IDENTITY = {
    "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "a-secret-of-nobody",
    "AWS_EC2_METADATA_DISABLED": "true",
    "NO_PROXY": "127.0.0.1",
}
"""An environment with credentials."""


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 - werkzeug's name
        pass


class Aws:
    """moto's server. What it keeps, keys above all, outlives `stop`; it comes back at the same port."""

    def __init__(self) -> None:
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._server: BaseWSGIServer | None = None
        self._thread: threading.Thread | None = None
        self.seen: list[tuple[str, str]] = []  # operation, and the access key that signed

    def start(self) -> None:
        application = DomainDispatcherApplication(create_backend_app)

        def noting(environ: dict[str, Any], start_response: Any) -> Any:
            operation = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2] or environ["PATH_INFO"]
            signed = environ.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].partition("/")[0]
            self.seen.append((operation, signed))
            return application(environ, start_response)

        self._server = make_server("127.0.0.1", self.port, noting, threaded=True, request_handler=_Quiet)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
        self._server = None

    def client(self, service: str = "kms") -> Any:
        session = boto3.session.Session("AKIAEXAMPLE", "a-secret-of-nobody", region_name=REGION)
        return session.client(service, endpoint_url=self.endpoint)

    def make_key(self, **arguments: Any) -> str:
        """The ARN of a fresh key."""
        return str(self.client().create_key(**arguments)["KeyMetadata"]["Arn"])


Handle = Callable[[BaseHTTPRequestHandler, bytes], None]


@contextmanager
def http_server(handle: Handle) -> Iterator[str]:
    """A server that answers every request by this function; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            handle(self, self.rfile.read(int(self.headers.get("Content-Length", "0"))))

        do_GET = do_POST  # noqa: N815 - the library's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that has given up is what some tests are about."""

    server = Server(("127.0.0.1", free_port()), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answering(status: int, body: object) -> Handle:
    """Always the same answer; what is not bytes goes as JSON."""

    def handle(request: BaseHTTPRequestHandler, asked: bytes) -> None:
        reply(request, status, body)

    return handle


def reply(request: BaseHTTPRequestHandler, status: int, body: object) -> None:
    """One answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request.send_response(status)
    request.send_header("Content-Type", "application/x-amz-json-1.1")
    request.send_header("Content-Length", str(len(data)))
    request.end_headers()
    request.wfile.write(data)
