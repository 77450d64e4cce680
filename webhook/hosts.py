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
from workers.domain.names import HostId, MigrationId, PackageDigest

T = TypeVar("T")

REGISTER: Final = TypeAdapter(RegistrationRequest)
RENEW: Final = TypeAdapter(RenewalRequest)
REGISTERED: Final = TypeAdapter(RegistrationAnswer)
HEARTBEAT: Final = TypeAdapter(Heartbeat)
HEARD: Final = TypeAdapter(HeartbeatAnswer)
NOTICE: Final = TypeAdapter(Notice)
WORD: Final = TypeAdapter(Word)
ROW: Final = TypeAdapter(RowView)
_NOT_YOURS: Final = "no such migration of this host"
ASKED: Final = TypeAdapter(ObjectsAsked)
URLS: Final = TypeAdapter(ObjectUrls)


def host_routes(words: Words) -> Blueprint:
    """Return the routes of docs/protocols.md, "Host listener"."""
    routes = Blueprint("hosts", __name__, url_prefix="/v1")

    @routes.get("/ca")
    def ca() -> Response:
        return Response(words.authority.control_ca, mimetype="application/x-pem-file")

    @routes.post("/register")
    def register() -> Response:
        return _answer(REGISTERED, words.register(_body(REGISTER), request.remote_addr))

    @routes.post("/renew")
    def renew() -> Response:
        return _answer(REGISTERED, words.renew(admitted(words), _body(RENEW)))

    @routes.post("/heartbeat")
    def heartbeat() -> Response:
        return _answer(HEARD, words.heartbeat(_caller(), _body(HEARTBEAT)))

    @routes.post("/notice")
    def notice() -> Response:
        words.notice(admitted(words), _body(NOTICE))
        return Response(status=204)

    @routes.get("/migrations/<migration_id>")
    def look(migration_id: str) -> Response:
        return _row(words.look(admitted(words), MigrationId(migration_id)))

    @routes.post("/migrations/<migration_id>/objects")
    def objects(migration_id: str) -> Response:
        urls = words.object_urls(admitted(words), MigrationId(migration_id), _body(ASKED).names)
        return _answer(URLS, ObjectUrls(urls)) if urls is not None else abort(404, _NOT_YOURS)

    @routes.post("/migrations/<migration_id>/certificate")
    def certificate(migration_id: str) -> Response:
        given = words.move_certificate(admitted(words), MigrationId(migration_id), _body(RENEW))
        return _answer(REGISTERED, given) if given else abort(404, _NOT_YOURS)

    @routes.post("/migrations/<migration_id>/<said>")
    def say(migration_id: str, said: str) -> Response:
        caller, word = admitted(words), _body(WORD)
        return _row(words.say(caller, MigrationId(migration_id), _said(said), word))

    _add_package_routes(routes, words)
    return routes


def _add_package_routes(routes: Blueprint, words: Words) -> None:
    @routes.post("/packages/<hex_>/objects")
    def package_objects(hex_: str) -> Response:
        admitted(words)
        return _answer(URLS, ObjectUrls(words.package_urls(PackageDigest(f"sha256:{hex_}"), _body(ASKED).names)))


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
    return _answer(ROW, view) if view else abort(404, _NOT_YOURS)


def _answer(adapter: TypeAdapter[T], value: T) -> Response:
    return Response(adapter.dump_json(value), mimetype="application/json")
