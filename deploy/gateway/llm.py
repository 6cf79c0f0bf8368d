"""A stand-in for a language model behind a gateway: it repeats what it is told, word by word, as a stream. It knows nothing of tokens.

    python llm.py PORT

Who asks is in X-User and X-Tenant, which only the gateway can set. The API has the shape of chat completions.
"""

from __future__ import annotations

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PAUSE = 0.08  # seconds between words


class Model(BaseHTTPRequestHandler):
    """Answers GET /v1/models, and POST /v1/chat/completions, streamed where that is asked for."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # noqa: N802 - the library's name
        if self.path == "/v1/models":
            self._whole({"object": "list", "data": [{"id": "parrot-1", "object": "model"}]})
        else:
            self._whole({"error": "no such thing here"}, 404)

    def do_POST(self) -> None:  # noqa: N802 - the library's name
        try:
            asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))))
            said = str(asked["messages"][-1]["content"])
        except (ValueError, TypeError, LookupError):
            self._whole({"error": 'send {"messages": [{"role": "user", "content": "…"}], "stream": true}'}, 400)
            return
        user, tenant = self.headers.get("X-User", "nobody"), self.headers.get("X-Tenant", "none")
        words = f"{user} of {tenant} said: {said}".split(" ")
        if not asked.get("stream"):
            self._whole({"choices": [{"message": {"role": "assistant", "content": " ".join(words)}}]})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for index, word in enumerate(words):
            delta = {"content": word if index == 0 else f" {word}"}
            self._chunk(f"data: {json.dumps({'choices': [{'delta': delta}]})}\n\n".encode())
            time.sleep(PAUSE)
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _whole(self, answer: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(answer).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Silence: the gateway has an access log."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Model).serve_forever()
