"""The two Flask apps of the receiver: wiring only.

They run in processes of their own: whoever floods the public listener does not delay a host's word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import structlog
from flask import Flask, Response, abort, jsonify, request
from werkzeug.exceptions import HTTPException

from webhook import bodies, deliveries
from webhook.hosts import host_routes
from webhook.needs import Clock, DeliveryStore, Hints, ServedObjects
from webhook.objects import OBJECT_ROUTES, object_routes
from webhook.signature import is_signed
from webhook.words import Words
from workers.domain.errors import BadInput, Refused, TryLater

log: Final = structlog.get_logger(__name__)


def create_public_app(
    store: DeliveryStore, hints: Hints, clock: Clock, secrets: Sequence[bytes], is_well: Callable[[], bool]
) -> Flask:
    """Return the app that GitHub and people reach. Deliveries are stored first and hinted at afterwards.

    What any of the secrets has signed is GitHub's.
    """
    app = _app("webhook.public", deliveries.BODY_LIMIT_BYTES)

    @app.post("/github")
    def github() -> Response:
        body = request.get_data()
        if not is_signed(body, request.headers.get("X-Hub-Signature-256"), secrets):
            return _error("the signature is missing or wrong; both sides must have the same webhook secret", 401)
        delivery = deliveries.read(request.headers, body, clock.now())
        store.write_deliveries([delivery])
        log.info("delivery", guid=delivery.guid, event_name=delivery.event, action=delivery.action)
        if delivery.fact is not None:
            hints.look_at("job", str(delivery.fact.job_id))
        return Response(status=202)

    @app.get("/healthz")
    def healthz() -> Response:
        return jsonify(store="ok") if is_well() else _error("the store does not answer", 503)

    return app


def create_host_app(words: Words, served: ServedObjects | None = None) -> Flask:
    """Return the app that hosts reach; `served` is where guests are parked if hosts reach that through us."""
    app = _app("webhook.hosts", bodies.BODY_LIMIT_BYTES)
    app.register_blueprint(host_routes(words))
    if served is not None:
        app.register_blueprint(object_routes(served, words))
    return app


def _app(name: str, body_limit_bytes: int) -> Flask:
    app = Flask(name, static_folder=None)
    # A body without a length is cut off at the maximum in silence; one byte more tells it from a whole one.
    app.config["MAX_CONTENT_LENGTH"] = body_limit_bytes + 1

    @app.before_request
    def refuse_large() -> None:
        if request.blueprint == OBJECT_ROUTES:
            return  # limits of its own, and looked at only once the URL is known to be ours
        if len(request.get_data()) > body_limit_bytes:
            abort(413)

    app.register_error_handler(BadInput, lambda error: _error(str(error), 400))
    app.register_error_handler(Refused, lambda error: _error(str(error), 403))
    app.register_error_handler(TryLater, _not_now)
    app.register_error_handler(HTTPException, lambda error: _error(error.description or error.name, error.code or 500))
    return app


def _not_now(error: TryLater) -> Response:
    log.warning("not_now", why=str(error), path=request.path)
    answer = _error("the store cannot be reached now, or the row is being worked on; send it again", 503)
    answer.headers["Retry-After"] = "1"
    return answer


def _error(sentence: str, status: int) -> Response:
    answer = jsonify(error=sentence)
    answer.status_code = status
    return answer
