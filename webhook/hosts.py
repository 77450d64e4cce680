"""The host listener: HTTP in, words of docs/protocols.md out.

Who speaks is told by the certificate on the socket and by nothing else. The listener's TLS takes certificates of the
`hosts` issuer alone, and asks for one without insisting, since a machine that registers has none yet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from flask import Blueprint, Response, abort, request
from pydantic import TypeAdapter

from webhook import bodies
from webhook.words import Words
from workers.domain.errors import BadInput, Refused
from workers.domain.messages import (
    Heartbeat,
    HeartbeatAnswer,
    Notice,
    ObjectsAsked,
    ObjectUrls,
    RegistrationAnswer,
    RegistrationRequest,
    RenewalRequest,
    RowView,
    Word,
)
from workers.domain.migration import Said
from workers.domain.names import HostId, MigrationId

T = TypeVar("T")

_REGISTER: Final = TypeAdapter(RegistrationRequest)
_RENEW: Final = TypeAdapter(RenewalRequest)
_REGISTERED: Final = TypeAdapter(RegistrationAnswer)
_HEARTBEAT: Final = TypeAdapter(Heartbeat)
_HEARD: Final = TypeAdapter(HeartbeatAnswer)
_NOTICE: Final = TypeAdapter(Notice)
_WORD: Final = TypeAdapter(Word)
_ROW: Final = TypeAdapter(RowView)
_NOT_YOURS: Final = "no such migration of this host"
_ASKED: Final = TypeAdapter(ObjectsAsked)
_URLS: Final = TypeAdapter(ObjectUrls)


def host_routes(words: Words) -> Blueprint:
    """Return the routes of docs/protocols.md, "Host listener"."""
    routes = Blueprint("hosts", __name__, url_prefix="/v1")

    @routes.get("/ca")
    def ca() -> Response:
        return Response(words.authority.control_ca, mimetype="application/x-pem-file")

    @routes.post("/register")
    def register() -> Response:
        return _answer(_REGISTERED, words.register(_body(_REGISTER)))

    @routes.post("/renew")
    def renew() -> Response:
        return _answer(_REGISTERED, words.renew(admitted(words), _body(_RENEW)))

    @routes.post("/heartbeat")
    def heartbeat() -> Response:
        return _answer(_HEARD, words.heartbeat(_caller(), _body(_HEARTBEAT)))

    @routes.post("/notice")
    def notice() -> Response:
        words.notice(admitted(words), _body(_NOTICE))
        return Response(status=204)

    @routes.get("/migrations/<migration_id>")
    def look(migration_id: str) -> Response:
        return _row(words.look(admitted(words), MigrationId(migration_id)))

    @routes.post("/migrations/<migration_id>/objects")
    def objects(migration_id: str) -> Response:
        urls = words.object_urls(admitted(words), MigrationId(migration_id), _body(_ASKED).names)
        return _answer(_URLS, ObjectUrls(urls)) if urls is not None else abort(404, _NOT_YOURS)

    @routes.post("/migrations/<migration_id>/certificate")
    def certificate(migration_id: str) -> Response:
        given = words.move_certificate(admitted(words), MigrationId(migration_id), _body(_RENEW))
        return _answer(_REGISTERED, given) if given else abort(404, _NOT_YOURS)

    @routes.post("/migrations/<migration_id>/<said>")
    def say(migration_id: str, said: str) -> Response:
        caller, word = admitted(words), _body(_WORD)
        return _row(words.say(caller, MigrationId(migration_id), _said(said), word))

    return routes


def admitted(words: Words) -> HostId:
    """Return the host on this socket. Raises `Refused` for one that is not, or no longer, of ours."""
    caller = _caller()
    words.admit(caller)
    return caller


def _caller() -> HostId:
    """Return the name in the certificate on this socket. Raises `Refused` if there is none."""
    getpeercert: Callable[[], Any] | None = getattr(request.environ.get("gunicorn.socket"), "getpeercert", None)
    certificate = getpeercert() if getpeercert else None
    names = [value for part in (certificate or {}).get("subject", ()) for key, value in part if key == "commonName"]
    if len(names) != 1:
        raise Refused("no client certificate on this connection; register first, then show the certificate")
    return HostId(names[0])


def _body(adapter: TypeAdapter[T]) -> T:
    if request.mimetype != "application/json":
        raise BadInput(f"Content-Type is {request.mimetype!r}; send application/json")
    return bodies.read(adapter, request.get_data())


def _said(text: str) -> Said:
    try:
        return Said(text)
    except ValueError:
        abort(404, f"{text!r} is nothing that a host may say; it may say {', '.join(Said)}")


def _row(view: RowView | None) -> Response:
    return _answer(_ROW, view) if view else abort(404, _NOT_YOURS)


def _answer(adapter: TypeAdapter[T], value: T) -> Response:
    return Response(adapter.dump_json(value), mimetype="application/json")
