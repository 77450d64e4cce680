"""The two Flask apps of the receiver: wiring only.

They run in processes of their own: whoever floods the public listener does not delay a host's word.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog
from flask import Flask, Response, abort, jsonify, request
from werkzeug.exceptions import HTTPException

from webhook import bodies, deliveries, described
from webhook.group_commit import ANSWER_LIMIT_S, GroupCommit
from webhook.hosts import host_routes
from webhook.needs import Clock, DeliveryStore, Hints, ServedObjects
from webhook.objects import OBJECT_ROUTES, object_routes
from webhook.openapi import describe
from webhook.signature import is_signed
from webhook.words import Words
from workers.domain.errors import BadInput, Refused, TryLater
from workers.domain.events import Delivery
from workers.domain.installation import EVERYBODY, Guests

log: Final = structlog.get_logger(__name__)


def create_public_app(
    store: DeliveryStore,
    hints: Hints,
    clock: Clock,
    secrets: Sequence[bytes],
    served: Guests = EVERYBODY,
    limit_s: float = ANSWER_LIMIT_S,
) -> Flask:
    """Return the app that GitHub and people reach. Deliveries are stored first and hinted at afterwards.

    What any of the secrets has signed is GitHub's. Nobody waits for the store for longer than `limit_s`.
    """
    app = _app("webhook.public", deliveries.BODY_LIMIT_BYTES)
    commit = GroupCommit(store.write_deliveries, lambda rows: _told(rows, hints), limit_s)

    @app.post("/github")
    def github() -> Response:
        body = request.get_data()
        if len(body) > deliveries.BODY_LIMIT_BYTES:
            abort(413)
        if not is_signed(body, request.headers.get("X-Hub-Signature-256"), secrets):
            return _error("the signature is missing or wrong; both sides must have the same webhook secret", 401)
        commit.put(deliveries.admitted(deliveries.read(request.headers, body, clock.now()), served))
        return Response(status=202)

    @app.get("/healthz")
    def healthz() -> Response:
        commit.put(None)
        return jsonify(store="ok")

    describe(app, "spot-runner: the public listener", described.PUBLIC)
    return app


def _told(rows: Sequence[Delivery], hints: Hints) -> None:
    """Tell what is written down now: people, in one line, and the workers."""
    if rows:
        log.info("deliveries", guids=[row.guid for row in rows])
    for row in rows:
        if row.refused is not None:
            log.info("delivery_refused", guid=row.guid, because=row.refused)
    if jobs := dict.fromkeys(str(row.fact.job_id) for row in rows if row.fact is not None):
        hints.look_at("job", *jobs)
    if changed := dict.fromkeys(str(row.installation.installation_id) for row in rows if row.installation is not None):
        hints.look_at("installation", *changed)


def create_host_app(words: Words, served: ServedObjects | None = None) -> Flask:
    """Return the app that hosts reach; `served` is where guests are parked if hosts reach that through us."""
    app = _app("webhook.hosts", bodies.BODY_LIMIT_BYTES)
    app.before_request(_refuse_large)
    app.register_blueprint(host_routes(words))
    if served is not None:
        app.register_blueprint(object_routes(served, words))
    describe(app, "spot-runner: the host listener", described.HOSTS)
    return app


def _app(name: str, body_limit_bytes: int) -> Flask:
    app = Flask(name, static_folder=None)
    # A body without a length is cut off at the maximum in silence; one byte more tells it from a whole one.
    app.config["MAX_CONTENT_LENGTH"] = body_limit_bytes + 1
    app.register_error_handler(BadInput, lambda error: _error(str(error), 400))
    app.register_error_handler(Refused, lambda error: _error(str(error), 403))
    app.register_error_handler(TryLater, _not_now)
    app.register_error_handler(HTTPException, lambda error: _error(error.description or error.name, error.code or 500))
    return app


def _refuse_large() -> None:
    if request.blueprint == OBJECT_ROUTES:
        return  # limits of its own, and looked at only once the URL is known to be ours
    length = request.content_length
    if (len(request.get_data()) if length is None else length) > bodies.BODY_LIMIT_BYTES:
        abort(413)


def _not_now(error: TryLater) -> Response:
    log.warning("not_now", why=str(error), path=request.path)
    answer = _error("the store cannot be reached now, or the row is being worked on; send it again", 503)
    answer.headers["Retry-After"] = "1"
    return answer


def _error(sentence: str, status: int) -> Response:
    answer = jsonify(error=sentence)
    answer.status_code = status
    return answer
