"""What a job may ask and tell the agent on its own loopback, for the action that a workflow may use.

GET /v1/runner   where it is
GET /v1/hold     how long it is not to be moved
PUT /v1/hold     {"seconds": N}: do not move me for so long; 0: let go
"""

from __future__ import annotations

import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from typing import Any, Final

from guest_agent.hold import BadWish, Hold

PORT: Final = 7707
PATH: Final = "/v1/runner"
HOLD_PATH: Final = "/v1/hold"
BODY_MAX: Final = 1024
LENGTH: Final = re.compile(r"[0-9]{1,4}")
# A job that sends half a request keeps a thread for no longer than this.
REQUEST_LIMIT_S: Final = 10.0


class Placement:
    """Where this guest runs, as the host told it last."""

    def __init__(self) -> None:
        self.told: dict[str, Any] | None = None

    def placed(self, told: dict[str, Any]) -> None:
        """Remember what the host says after a restore and after each move."""
        self.told = {"runner_id": str(told["runner_id"]), "host_id": str(told["host_id"]), "moves": int(told["moves"])}


def placement_server(placement: Placement, hold: Hold, port: int = PORT) -> ThreadingHTTPServer:
    """Listen on loopback only; the caller serves."""

    class Answer(BaseHTTPRequestHandler):
        server_version = "spot-runner"
        sys_version = ""
        timeout = REQUEST_LIMIT_S

        def do_GET(self) -> None:
            if self.path == HOLD_PATH:
                self._answer(200, hold.view())
            elif self.path != PATH:
                self._answer(404, {"error": "no such page"})
            else:
                told = placement.told
                self._answer(200 if told else 404, told or {"error": "not placed yet"})

        def do_PUT(self) -> None:
            if self.path != HOLD_PATH:
                self._answer(404, {"error": f"only {HOLD_PATH} can be put"})
                return
            try:
                self._answer(200, hold.ask(_read(self.rfile, self.headers.get("Content-Length", ""))))
            except BadWish as error:
                self._answer(400, {"error": str(error)})

        def _answer(self, status: int, told: dict[str, Any]) -> None:
            body = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing: a job may ask as often as it likes."""

    return ThreadingHTTPServer(("127.0.0.1", port), Answer)


def _read(body: BufferedIOBase, length: str) -> object:
    if not LENGTH.fullmatch(length) or int(length) > BODY_MAX:
        raise BadWish(f'hold: the body has no length up to {BODY_MAX} bytes; send {{"seconds": N}}')
    try:
        return json.loads(body.read(int(length)))
    except (ValueError, RecursionError) as error:
        raise BadWish('hold: the body is not JSON; send {"seconds": N}') from error
