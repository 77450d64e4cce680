"""What a job may ask and tell the agent on its own loopback, for the action that a workflow may use.

GET /v1/runner   where it is
GET /v1/hold     how long it is not to be moved
PUT /v1/hold     {"seconds": N}: do not move me for so long; 0: let go
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from typing import Any, Final

from guest_agent.hold import BadWish, Hold

PORT: Final = 7707
PATH: Final = "/v1/runner"
HOLD_PATH: Final = "/v1/hold"
BODY_MAX: Final = 1024
LENGTH: Final = re.compile(r"[0-9]{1,4}")
TEXTS: Final = ("provider", "region", "zone", "instance_type", "lifecycle", "package")
NUMBERS: Final = ("restored_in_ms", "pause_ms")
# A job that sends half a request keeps a thread for no longer than this.
REQUEST_LIMIT_S: Final = 10.0


class Placement:
    """Where this guest runs, as the host told it last, and what that has cost so far; None: not known."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[str, Any] | None = None
        self._cost = Cost()

    def placed(self, told: dict[str, Any]) -> None:
        """Remember what the host says after a restore and after each move."""
        facts: dict[str, Any] = {
            "runner_id": str(told["runner_id"]),
            "host_id": str(told["host_id"]),
            "moves": int(told["moves"]),
        }
        facts |= {name: _text(told.get(name)) for name in TEXTS}
        facts |= {name: _number(told.get(name)) for name in NUMBERS}
        if facts["restored_in_ms"] is None:  # only the host that restored this guest knows, and it is not here any more
            facts["restored_in_ms"] = (self._told or facts)["restored_in_ms"]
        self._cost.goes_on_at(_number(told.get("usd_per_hour")), self._clock())
        self._told = facts

    def view(self) -> dict[str, Any] | None:
        """Return all that is known now, None before the first word of a host."""
        told = self._told
        return None if told is None else told | {"cost_usd": self._cost.until(self._clock())}


class Cost:
    """What a guest has cost, by its own clock, which stands still while the guest does.

    Once it was somewhere without a price, nobody knows what all of it has cost.
    """

    def __init__(self) -> None:
        self._since: float | None = None
        self._usd_per_hour: float | None = None
        self._usd: float | None = 0.0

    def goes_on_at(self, usd_per_hour: float | None, now: float) -> None:
        """Begin to count at another price; what was counted so far is kept."""
        self._usd = self.until(now) if self._since is not None else self._usd
        self._since, self._usd_per_hour = now, usd_per_hour

    def until(self, now: float) -> float | None:
        """Return what it has cost up to now, in US dollars; None: not known."""
        if self._usd is None or self._usd_per_hour is None or self._since is None:
            return None
        return self._usd + self._usd_per_hour * max(0.0, now - self._since) / 3600


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
                told = placement.view()
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


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) and value >= 0 else None


def _read(body: BufferedIOBase, length: str) -> object:
    if not LENGTH.fullmatch(length) or int(length) > BODY_MAX:
        raise BadWish(f'hold: the body has no length up to {BODY_MAX} bytes; send {{"seconds": N}}')
    try:
        return json.loads(body.read(int(length)))
    except (ValueError, RecursionError) as error:
        raise BadWish('hold: the body is not JSON; send {"seconds": N}') from error
