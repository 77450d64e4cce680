"""Tells the job where it is: `GET http://127.0.0.1:7707/v1/runner`, for the action that a workflow may use."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

PORT: Final = 7707
PATH: Final = "/v1/runner"


class Placement:
    """Where this guest runs, as the host told it last."""

    def __init__(self) -> None:
        self.told: dict[str, Any] | None = None

    def placed(self, told: dict[str, Any]) -> None:
        """Remember what the host says after a restore and after each move."""
        self.told = {"runner_id": str(told["runner_id"]), "host_id": str(told["host_id"]), "moves": int(told["moves"])}


def placement_server(placement: Placement, port: int = PORT) -> ThreadingHTTPServer:
    """Listen on loopback only; the caller serves."""

    class Answer(BaseHTTPRequestHandler):
        server_version = "spot-runner"
        sys_version = ""

        def do_GET(self) -> None:
            told = placement.told if self.path == PATH else None
            body = json.dumps(told or {"error": "not placed yet" if self.path == PATH else "no such page"}).encode()
            self.send_response(200 if told else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing: a job may ask as often as it likes."""

    return ThreadingHTTPServer(("127.0.0.1", port), Answer)
