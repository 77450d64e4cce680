"""Faults on order: Hetzner's bad days, for the requests that a rehearsal or a test names."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import StrEnum, auto
from http import HTTPStatus
from typing import Final

from flask import Request, Response

from workers.rehearsal.hetzner.records import STATUS_OF, ApiError

DELAY_MAX_S: Final = 60.0


class FaultKind(StrEnum):
    ERROR = auto()
    """Answered with `code`, and nothing was done."""
    DOWN = auto()
    """A gateway's 503 in HTML, and nothing was done."""
    LOST = auto()
    """It was done, but the answer is a gateway's 502 in HTML."""
    LATE = auto()
    """It was done, and the answer comes after `seconds`."""


@dataclass
class Fault:
    """One planted fault."""

    kind: FaultKind
    method: str
    path: str
    """Part of the path of the requests that it strikes."""
    times: int = 1
    code: str = "server_error"
    message: str = "as it was ordered"
    seconds: float = 1.0


class Faults:
    """The planted faults that have not struck yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._planted: list[Fault] = []

    def plant(self, fault: Fault) -> None:
        """Let the next matching requests meet this fault. Raises `ApiError` for a code that Hetzner does not have."""
        if fault.code not in STATUS_OF:
            raise ApiError("invalid_input", f"{fault.code} is not among {', '.join(sorted(STATUS_OF))}")
        with self._lock:
            self._planted.append(fault)

    def strike(self, request: Request) -> Fault | None:
        """Return the fault that this request meets."""
        with self._lock:
            for fault in self._planted:
                if fault.method == request.method and fault.path in request.path:
                    fault.times -= 1
                    if fault.times <= 0:
                        self._planted.remove(fault)
                    return fault
        return None


def instead(fault: Fault) -> Response | None:
    """Return what comes instead of the call, None if it is carried out. Raises `ApiError`."""
    if fault.kind is FaultKind.ERROR:
        raise ApiError(fault.code, fault.message)
    return _gateway(HTTPStatus.SERVICE_UNAVAILABLE) if fault.kind is FaultKind.DOWN else None


def spoiled(fault: Fault, response: Response) -> Response:
    """Return what is left of the answer to a call that was carried out."""
    if fault.kind is FaultKind.LATE:
        threading.Event().wait(min(fault.seconds, DELAY_MAX_S))
    return _gateway(HTTPStatus.BAD_GATEWAY) if fault.kind is FaultKind.LOST else response


def _gateway(status: HTTPStatus) -> Response:
    return Response(f"<html><h1>{status.value} {status.phrase}</h1></html>", status, mimetype="text/html")
