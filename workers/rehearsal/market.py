"""The local spot market of docs/protocols.md: Flask in front, the landlord behind."""

from __future__ import annotations

import argparse
import re
import signal
import threading
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Final, TypeVar

from flask import Flask, Response, request
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from werkzeug.serving import make_server

from workers.domain.errors import BadInput, NoCapacity
from workers.domain.names import HostId
from workers.domain.runner import Shape
from workers.ports import Instance
from workers.rehearsal.landlord import Estate, Landlord

# It names a namespace, a folder and a log, so it must be a plain word.
HOST_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,47}")
NOTICE_MAX_S: Final = 3600.0
BODY_MAX: Final = 64 * 1024

_STRICT: Final = ConfigDict(extra="forbid")
_ONE: Final = TypeAdapter(Instance)
_ALL: Final = TypeAdapter(tuple[Instance, ...])
Body = TypeVar("Body", bound=BaseModel)


class LaunchBody(BaseModel):
    model_config = _STRICT
    spec: Shape
    user_data: str


class NoticeBody(BaseModel):
    model_config = _STRICT
    seconds: float = Field(ge=0, le=NOTICE_MAX_S)


class StockBody(BaseModel):
    model_config = _STRICT
    machines: bool


class EstateFile(BaseModel):
    """What the rehearsal tells the market's program, as a file."""

    model_config = _STRICT
    estate: Estate
    listen: tuple[str, int]


def create_market(landlord: Landlord, warn: Callable[[HostId], None] = lambda _: None) -> Flask:
    """Return the market's API over this landlord; `warn` is told of each notice, if the machine's cloud says it too."""
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = BODY_MAX
    app.register_error_handler(BadInput, lambda error: _refusal(HTTPStatus.BAD_REQUEST, error))
    app.register_error_handler(NoCapacity, lambda error: _refusal(HTTPStatus.CONFLICT, error))

    @app.get("/instances")
    def instances() -> Response:
        return _json(_ALL.dump_json(landlord.instances()))

    @app.get("/instances/<name>")
    def instance(name: str) -> Response:
        seen = landlord.instance(_host(name))
        return _nothing(HTTPStatus.NOT_FOUND) if seen is None else _json(_ONE.dump_json(seen))

    @app.put("/instances/<name>")
    def launch(name: str) -> Response:
        return _json(_ONE.dump_json(landlord.launch(_host(name), _read(LaunchBody).user_data)))

    @app.delete("/instances/<name>")
    def terminate(name: str) -> Response:
        landlord.end(_host(name))
        return _nothing()

    @app.post("/instances/<name>/notice")
    def notice(name: str) -> Response:
        seconds = _read(NoticeBody).seconds
        if seconds > 0:
            warn(_host(name))
        return _found(known=landlord.end(_host(name), seconds, with_notice=seconds > 0))

    @app.delete("/instances/<name>/notice")
    def withdraw(name: str) -> Response:
        return _found(known=landlord.withdraw(_host(name)))

    @app.post("/instances/<name>/crash")
    def crash(name: str) -> Response:
        return _found(known=landlord.crash_daemon(_host(name)))

    @app.post("/instances/<name>/rebalance")
    def rebalance(name: str) -> Response:
        return _found(known=landlord.rebalance(_host(name)))

    _let_all_be_changed(app, landlord)
    return app


def _let_all_be_changed(app: Flask, landlord: Landlord) -> None:
    """Add what is said of the whole market."""

    @app.post("/notice")
    def notice_to_all() -> Response:
        landlord.take_all_back(_read(NoticeBody).seconds)
        return _nothing()

    @app.put("/stock")
    def stock() -> Response:
        landlord.sell(machines=_read(StockBody).machines)
        return _nothing()


def _host(name: str) -> HostId:
    if not HOST_NAME.fullmatch(name):
        raise BadInput(f"host id {name[:60]!r}: use 1 to 48 of a-z, 0-9 and hyphens")
    return HostId(name)


def _read(kind: type[Body]) -> Body:
    try:
        return kind.model_validate_json(request.get_data())
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInput(f"body, {'.'.join(map(str, first['loc'])) or 'whole'}: {first['msg']}") from error


def _json(body: bytes) -> Response:
    return Response(body, mimetype="application/json")


def _nothing(status: HTTPStatus = HTTPStatus.NO_CONTENT) -> Response:
    return Response(status=status)


def _found(*, known: bool) -> Response:
    return _nothing(HTTPStatus.NO_CONTENT if known else HTTPStatus.NOT_FOUND)


def _refusal(status: HTTPStatus, error: Exception) -> Response:
    answer = Response(TypeAdapter(dict[str, str]).dump_json({"error": str(error)}), status, mimetype="application/json")
    answer.headers["Connection"] = "close"
    return answer


def serve(file: Path) -> None:
    """Run the market until SIGTERM or SIGINT; then every machine of it ends too."""
    told = EstateFile.model_validate_json(file.read_bytes())
    landlord = Landlord(told.estate)
    server = make_server(*told.listen, create_market(landlord), threaded=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: landlord.close())
    threading.Thread(target=server.serve_forever, daemon=True, name="requests").start()
    landlord.own()
    server.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="the estate, as JSON")
    serve(parser.parse_args().file)


if __name__ == "__main__":
    main()
