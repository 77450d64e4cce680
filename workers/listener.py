"""HTTPS for callers whose certificate says who they are: the host daemon's side and the relay's.

Whoever is not vouched for by the trusted issuer does not get through the handshake; the name in the certificate is in
`request.state.peer` afterwards. Bodies are bounded and strict, and every error is one sentence with a status that
tells the caller what to do: 409 later, 422 never, 400 and 413 never and it is the body's fault.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import ssl
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import pydantic_core
import structlog
import uvicorn
from pydantic import TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from workers.domain.errors import BadInput, Bug, GiveUp, TryLater, Unfit

T = TypeVar("T")

# No request line and headers of ours come near this.
HEAD_LIMIT_BYTES: Final = 16 << 10
# Answers in flight get this long when the server ends.
GOODBYE_LIMIT_S: Final = 2
IDLE_LIMIT_S: Final = 60
# Leaves live for 24 hours and are renewed hours before their end.
RENEWED_INTERVAL_S: Final = 30.0

_log: Final = structlog.get_logger()


@dataclass(frozen=True)
class Identity:
    """The files with which a server shows itself and knows its callers."""

    certificate: Path
    key: Path
    trusted: Path
    """The issuer of everybody who may call."""


def make_app(routes: Sequence[Route], *, caller: str) -> Starlette:
    """Return an application that answers nobody but the caller with this name."""
    return Starlette(
        routes=routes,
        middleware=[Middleware(_OnlyFor, caller=caller)],
        exception_handlers={
            HTTPException: _refuse,
            TryLater: _sentence(409),
            BadInput: _sentence(400),
            GiveUp: _sentence(422),
            Bug: _sentence(500),
        },
    )


async def read(request: Request, adapter: TypeAdapter[T], limit_bytes: int) -> T:
    """Return the body as a message; 413 if it is longer than the limit, 400 if it is not exactly such a message."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit_bytes:
            # Closed, so that nobody has to read the rest.
            raise HTTPException(413, f"the body is longer than {limit_bytes} bytes", {"Connection": "close"})
    try:
        message = adapter.validate_json(bytes(body), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "body"
        raise BadInput(f"{place}: {first['msg']}") from error
    # A plain dataclass ignores unknown fields, so what came is compared with what was understood.
    _check("body", pydantic_core.from_json(bytes(body)), adapter.dump_python(message, mode="json"))
    return message


def read_epoch(request: Request) -> int:
    """Return the `epoch` of the query."""
    given = request.query_params.get("epoch", "")
    if not (given.isascii() and given.isdecimal() and len(given) < 10):  # noqa: PLR2004  an epoch has few digits
        raise BadInput("epoch: the query must have one, a whole number")
    return int(given)


def answer(adapter: TypeAdapter[T], message: T, status: int = 200) -> Response:
    """Return a message as a response."""
    return Response(adapter.dump_json(message), status, media_type="application/json")


def open_port(host: str, port: int) -> socket.socket:
    """Take the port now, so that a taken one is one sentence before anything else is started."""
    try:
        return socket.create_server((host, port), backlog=64)
    except OSError as error:
        remedy = "end what listens there" if error.errno == errno.EADDRINUSE else "give an address of this machine"
        raise Unfit(f"cannot listen on {host}:{port}: {error.strerror}; {remedy}") from error


async def serve(app: Starlette, listening: socket.socket, identity: Identity) -> None:
    """Serve until cancelled; then finish what is being answered."""
    config = uvicorn.Config(
        app,
        http=_KnowsItsPeer,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        ssl_certfile=identity.certificate,
        ssl_keyfile=str(identity.key),
        ssl_ca_certs=str(identity.trusted),
        ssl_cert_reqs=ssl.CERT_REQUIRED,
        h11_max_incomplete_event_size=HEAD_LIMIT_BYTES,
        timeout_graceful_shutdown=GOODBYE_LIMIT_S,
        timeout_keep_alive=IDLE_LIMIT_S,
    )
    config.load()
    server = _Quiet(config)
    serving = asyncio.ensure_future(server.serve(sockets=[listening]))
    renewing = asyncio.ensure_future(_show_renewed(config, identity))
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        server.should_exit = True
        await serving
        raise
    finally:
        renewing.cancel()


async def _show_renewed(config: uvicorn.Config, identity: Identity) -> None:
    """Show the certificate that lies in the files now: whoever renews it only has to replace them."""
    shown = identity.certificate.stat().st_mtime_ns
    while config.ssl is not None:
        await asyncio.sleep(RENEWED_INTERVAL_S)
        with contextlib.suppress(OSError, ssl.SSLError):  # files that do not belong together yet: look again
            if (found := identity.certificate.stat().st_mtime_ns) != shown:
                config.ssl.load_cert_chain(identity.certificate, identity.key)
                shown = found


def parse_listen(text: str) -> tuple[str, int]:
    """Split `address:port`. Raises `BadInput`."""
    host, separator, port = text.rpartition(":")
    if not separator or not port.isascii() or not port.isdecimal() or not int(port) < 1 << 16:
        raise BadInput(f"listen address {text!r} is not of the form address:port")
    return host, int(port)


def require_root(command: str) -> None:
    """Raise `Unfit` unless this is root."""
    if os.geteuid() != 0:
        raise Unfit(f"{command} changes the network of this machine; start it as root")


def run_until_told(service: Coroutine[Any, Any, None]) -> None:
    """Run a service until it ends or the process gets SIGTERM or SIGINT; both are an orderly end."""
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_cancelled_by_signals(service))


async def _cancelled_by_signals(service: Coroutine[Any, Any, None]) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(service)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    await task


class _Quiet(uvicorn.Server):
    """Leaves signals to the program."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _KnowsItsPeer(H11Protocol):
    """Puts the name in the client's certificate into `request.state.peer`, once per connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own does so
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        self.app_state = {**self.app_state, "peer": _common_name(tls.getpeercert() if tls else None)}


def _common_name(certificate: Any) -> str | None:  # noqa: ANN401  ssl has no type for it
    pairs = [pair for part in (certificate or {}).get("subject", ()) for pair in part]
    return next((value for name, value in pairs if name == "commonName"), None)


class _OnlyFor:
    """Answers 403 to everybody but one caller."""

    def __init__(self, app: ASGIApp, caller: str) -> None:
        self._app = app
        self._caller = caller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope.get("state", {}).get("peer") != self._caller:
            await JSONResponse({"error": f"only {self._caller} may call here"}, 403)(scope, receive, send)
            return
        await self._app(scope, receive, send)


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  registered for it
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


def _sentence(status: int) -> Any:  # noqa: ANN401  starlette's own type for it is wider than any function
    async def say(request: Request, error: Exception) -> Response:
        _log.warning("call_refused", method=request.method, path=request.url.path, status=status, error=str(error))
        return JSONResponse({"error": str(error)}, status)

    return say


def _check(place: str, came: Any, understood: Any) -> None:  # noqa: ANN401  any JSON
    if isinstance(came, dict) and isinstance(understood, dict):
        for name, value in came.items():
            if name not in understood:
                raise BadInput(f"{place}.{name}: unknown field; remove it, or both sides run different versions")
            _check(f"{place}.{name}", value, understood[name])
    elif isinstance(came, list) and isinstance(understood, list):
        for index, (one, other) in enumerate(zip(came, understood, strict=True)):
            _check(f"{place}.{index}", one, other)
