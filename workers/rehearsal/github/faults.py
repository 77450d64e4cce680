"""Faults that a rehearsal may plant in the public API: GitHub's bad days, and one thing it never does."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum, auto
from http import HTTPStatus
from typing import Final

from flask import Request, Response, jsonify

from workers.rehearsal.github.records import Json


class FaultKind(StrEnum):
    UNAVAILABLE = auto()
    """503, and nothing was done."""
    BROKEN = auto()
    """500, and nothing was done."""
    LOST = auto()
    """It was done, but the answer is a gateway's 502."""
    LATE = auto()
    """It was done, but the gateway did not wait for it: 504."""
    THROTTLED = auto()
    """429."""
    RATE_LIMITED = auto()
    """403 with the headers of the primary limit."""
    SECONDARY = auto()
    """403 with the words of the secondary limit."""
    FORBIDDEN = auto()
    """403: a permission is missing."""
    NOT_FOUND = auto()
    """404, and nothing was done."""
    CONFLICT = auto()
    """409, and nothing was done."""
    UNPROCESSABLE = auto()
    """422, and nothing was done."""
    WRONG = auto()
    """The answer lacks one of its fields; the check against the contract must catch it."""


REFUSALS: Final[Mapping[FaultKind, tuple[HTTPStatus, str, dict[str, str]]]] = {
    FaultKind.BROKEN: (HTTPStatus.INTERNAL_SERVER_ERROR, "Server Error", {}),
    FaultKind.UNAVAILABLE: (HTTPStatus.SERVICE_UNAVAILABLE, "Service Unavailable", {}),
    FaultKind.THROTTLED: (HTTPStatus.TOO_MANY_REQUESTS, "Too Many Requests", {"Retry-After": "60"}),
    FaultKind.RATE_LIMITED: (
        HTTPStatus.FORBIDDEN,
        "API rate limit exceeded for installation ID 1.",
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Limit": "5000"},
    ),
    FaultKind.SECONDARY: (
        HTTPStatus.FORBIDDEN,
        "You have exceeded a secondary rate limit.",
        {"Retry-After": "60"},
    ),
    FaultKind.FORBIDDEN: (HTTPStatus.FORBIDDEN, "Resource not accessible by integration", {}),
    FaultKind.NOT_FOUND: (HTTPStatus.NOT_FOUND, "Not Found", {}),
    FaultKind.CONFLICT: (HTTPStatus.CONFLICT, "Already exists - A runner with this name already exists.", {}),
    FaultKind.UNPROCESSABLE: (HTTPStatus.UNPROCESSABLE_ENTITY, "Validation Failed", {}),
}
"""The answers that come instead of the call."""


@dataclass
class Fault:
    """One planted fault."""

    kind: FaultKind
    verb: str
    path: str
    """Part of the path of the requests that it strikes."""
    times: int = 1
    share: float = 1.0
    """How many of them it strikes, from 0 to 1."""


class Faults:
    """The planted faults that have not struck yet."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)  # noqa: S311  # a rehearsal's dice, to be thrown alike again
        self._lock = threading.Lock()
        self._planted: list[Fault] = []

    def plant(self, fault: Fault) -> None:
        """Let the next matching requests meet this fault."""
        with self._lock:
            self._planted.append(fault)

    def strike(self, request: Request) -> FaultKind | None:
        """Return the fault that this request meets."""
        with self._lock:
            for fault in self._planted:
                if fault.verb == request.method and fault.path in request.path and self._strikes(fault):
                    fault.times -= 1
                    if fault.times == 0:
                        self._planted.remove(fault)
                    return fault.kind
        return None

    def _strikes(self, fault: Fault) -> bool:
        return fault.share >= 1 or self._random.random() < fault.share


def answer_before(kind: FaultKind) -> Response | None:
    """Return the answer that comes instead of the call, if the fault is of that sort."""
    return refusal(*REFUSALS[kind]) if kind in REFUSALS else None


def answer_after(kind: FaultKind, response: Response) -> Response:
    """Spoil the answer to a call that was carried out."""
    if kind is FaultKind.LOST:
        return refusal(HTTPStatus.BAD_GATEWAY, "Server Error")
    if kind is FaultKind.LATE:
        return refusal(HTTPStatus.GATEWAY_TIMEOUT, "We couldn't respond to your request in time.")
    body = response.get_json()
    if kind is FaultKind.WRONG and isinstance(body, dict) and body:
        del body[next(iter(body))]
        response.set_data(jsonify(body).get_data())
    return response


def refusal(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """Answer with an error in GitHub's shape."""
    body: Json = {"message": message, "documentation_url": "https://docs.github.com/rest", "status": str(int(status))}
    response = jsonify(body)
    response.status_code = int(status)
    response.headers.update(headers or {})
    return response
