"""The instance metadata service of one host: IMDSv2, nothing older, or Hetzner's.

`PUT /latest/api/token` gives a token that lives for as long as was asked; every read needs one (401 without), and what
is not set is 404. What it serves stands in a file of paths and bodies, which the market replaces as a whole.
"""

from __future__ import annotations

import argparse
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

ADDRESS: Final = "169.254.169.254"
PORT: Final = 80
TTL_MAX_S: Final = 21600
TTL_HEADER: Final = "X-aws-ec2-metadata-token-ttl-seconds"
TOKEN_HEADER: Final = "X-aws-ec2-metadata-token"  # noqa: S105 the name of a header
REQUEST_LIMIT_S: Final = 10.0
# Hetzner's service knows no tokens.
WITHOUT_TOKEN: Final = "hetzner/"  # noqa: S105 a path


class Tokens:
    """Tokens that were handed out and still live."""

    def __init__(self) -> None:
        self._ends: dict[str, float] = {}
        self._lock = threading.Lock()

    def issue(self, ttl_s: int) -> str:
        token = secrets.token_urlsafe(32)
        with self._lock:
            now = time.monotonic()
            self._ends = {known: end for known, end in self._ends.items() if end > now} | {token: now + ttl_s}
        return token

    def is_live(self, token: str | None) -> bool:
        with self._lock:
            return token is not None and self._ends.get(token, 0.0) > time.monotonic()


class Service(ThreadingHTTPServer):
    """Serves the file; many at once, because the daemon polls several paths."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], file: Path, now: Callable[[], float] = time.time) -> None:
        super().__init__(address, Answer)
        self.file = file
        self.now = now
        """What the cloud's own clock shows, which need not be the machine's."""
        self.tokens = Tokens()


class Answer(BaseHTTPRequestHandler):
    """One request."""

    server: Service
    protocol_version = "HTTP/1.1"
    timeout = REQUEST_LIMIT_S

    def do_PUT(self) -> None:
        # A forwarded request would hand the machine's identity to whoever is behind a proxy; IMDSv2 refuses it.
        if self.path != "/latest/api/token" or "X-Forwarded-For" in self.headers:
            return self._say(HTTPStatus.FORBIDDEN)
        ttl = self.headers.get(TTL_HEADER, "")
        if not (ttl.isdecimal() and 1 <= int(ttl) <= TTL_MAX_S):
            return self._say(HTTPStatus.BAD_REQUEST)
        return self._say(HTTPStatus.OK, self.server.tokens.issue(int(ttl)))

    def do_GET(self) -> None:
        path = self.path.strip("/")
        if not path.startswith(WITHOUT_TOKEN) and not self.server.tokens.is_live(self.headers.get(TOKEN_HEADER)):
            return self._say(HTTPStatus.UNAUTHORIZED)
        body = json.loads(self.server.file.read_text()).get(path)
        return self._say(HTTPStatus.NOT_FOUND) if body is None else self._say(HTTPStatus.OK, body)

    def _say(self, status: HTTPStatus, body: str = "") -> None:
        content = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def date_time_string(self, timestamp: float | None = None) -> str:
        """Date an answer by the cloud's clock."""
        return super().date_time_string(self.server.now() if timestamp is None else timestamp)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 http.server's name
        """Say nothing: the daemon asks every second."""


def write_state(file: Path, bodies: dict[str, str]) -> None:
    """Replace what is served, all at once."""
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps(bodies))
    draft.replace(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--listen", default=f"{ADDRESS}:{PORT}")
    options = parser.parse_args()
    address, _, port = options.listen.rpartition(":")
    socket.setdefaulttimeout(REQUEST_LIMIT_S)
    Service((address, int(port)), options.file).serve_forever()


if __name__ == "__main__":
    main()
