"""A stand-in for the Hugging Face hub over real HTTP: repositories that are open, gated, or not there."""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def hub(open_to_all: Collection[str], gated: Collection[str]) -> Iterator[str]:
    """Serve a hub that has these repositories (models and data sets alike); its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(200, {})

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            name = "/".join(path.removeprefix("/api/models/").removeprefix("/api/datasets/").split("/")[:2])
            if name in open_to_all or (name in gated and not path.endswith("/auth-check")):
                self.answer(200, {"id": name, "modelId": name, "sha": "0" * 40, "siblings": []})
            elif name in gated:
                self.answer(403, {"error": "gated"}, "GatedRepo")
            else:
                self.answer(404, {"error": "Repository not found"}, "RepoNotFound")

        def answer(self, status: int, body: dict[str, object], code: str = "") -> None:
            payload = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(payload)))
            if code:
                self.send_header("X-Error-Code", code)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(payload)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
