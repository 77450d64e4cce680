"""The simulated Hetzner Cloud as one Flask application: what hcloud's own client asks, with only the endpoint changed.

Every request counts against the hour, then it is asked whose it is, then it meets the fault that was planted for it.
Fields and parameters that the rehearsed part of the API does not have are refused, so that a wrong call is seen.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import IPv4Network
from typing import Final

from flask import Flask, Response, g, jsonify, request
from werkzeug.exceptions import HTTPException

from workers.ports import Clock
from workers.rehearsal.hetzner.api import Api
from workers.rehearsal.hetzner.faults import Faults, instead, spoiled
from workers.rehearsal.hetzner.project import Project, Spans
from workers.rehearsal.hetzner.rates import REQUESTS_PER_HOUR, RateLimit
from workers.rehearsal.hetzner.records import STATUS_OF, ApiError
from workers.rehearsal.hetzner.rehearsing import Rehearsing

PUBLISHED: Final = "/v1/"
BODY_MAX: Final = 256 * 1024


@dataclass(frozen=True)
class Settings:
    """One simulated project."""

    tokens: Collection[str] = field(repr=False)
    """Those that may do everything."""
    readonly_tokens: Collection[str] = field(default=(), repr=False)
    spans: Spans = field(default_factory=Spans)
    requests_per_hour: int = REQUESTS_PER_HOUR
    network: IPv4Network | None = None
    """Where servers' addresses are from; None: they lead nowhere."""


class Simulation:
    """One simulated project, its limits and its faults."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self.project = Project(clock, settings.spans, settings.network)
        self.rates = RateLimit(clock, settings.requests_per_hour)
        self.faults = Faults()
        self.flask = self._application()

    def _application(self) -> Flask:
        flask = Flask(__name__)
        flask.config["MAX_CONTENT_LENGTH"] = BODY_MAX
        flask.before_request(self._admit)
        flask.after_request(self._stamp)
        flask.register_error_handler(ApiError, refusal)
        flask.register_error_handler(HTTPException, _refused_by_flask)
        flask.register_blueprint(Api(self.project).blueprint())
        flask.register_blueprint(Rehearsing(self.project, self.faults, self.rates).blueprint())
        return flask

    def _admit(self) -> Response | None:
        if not request.path.startswith(PUBLISHED):
            return None
        if not self.rates.admit():
            raise ApiError(
                "rate_limit_exceeded", f"limit of {self._settings.requests_per_hour} requests per hour reached"
            )
        self._identify()
        g.fault = self.faults.strike(request)
        return None if g.fault is None else instead(g.fault)

    def _identify(self) -> None:
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if kind == "Bearer" and token in self._settings.tokens:
            return
        if kind != "Bearer" or token not in self._settings.readonly_tokens:
            raise ApiError("unauthorized", "the token you provided is invalid")
        if request.method != "GET":
            raise ApiError("token_readonly", "the token is only allowed to perform GET requests")

    def _stamp(self, response: Response) -> Response:
        if not request.path.startswith(PUBLISHED):
            return response
        if g.get("fault") is not None:
            response = spoiled(g.fault, response)
        response.headers.update(self.rates.headers())
        response.headers["X-Correlation-Id"] = secrets.token_hex(8)
        return response


def refusal(error: ApiError) -> Response:
    """Answer with an error in Hetzner's form."""
    response = jsonify({"error": {"code": error.code, "message": error.message, "details": error.details}})
    response.status_code = STATUS_OF[error.code]
    return response


def _refused_by_flask(error: HTTPException) -> Response:
    is_unknown = error.code in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}
    return refusal(ApiError("not_found" if is_unknown else "invalid_input", error.description or "not here"))
