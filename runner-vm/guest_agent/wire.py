"""Frames of the guest channel: one JSON object a line, a request or a response (docs/protocols.md).

Both ends read with this module, and to each the other end is hostile: a frame
has a greatest size and a greatest depth, and everything else is `Malformed`.

    stream of bytes ──Frames.feed──▶ lines ──decode──▶ Request | Response
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NoReturn

FRAME_MAX: Final = 256 * 1024
# What we say to each other is an object of an envelope of arguments of values; nobody needs more.
DEPTH_MAX: Final = 8
NAME_MAX: Final = 64
ERROR_MAX: Final = 1000


class Malformed(ValueError):
    """The other side sent something that is no frame."""


@dataclass(frozen=True)
class Request:
    """Call `function`; the answer carries the same `call`."""

    call: str
    function: str
    args: tuple[Any, ...] = ()

    def __repr__(self) -> str:
        return f"Request(call={self.call!r}, function={self.function!r}, args=…)"


@dataclass(frozen=True)
class Response:
    """The answer to one call; `err` is empty if it went well."""

    call: str
    value: Any = None
    err: str = ""


def encode(message: Request | Response) -> bytes:
    """Return the frame.

    The line break before it ends whatever half a frame a lost connection left behind. Raises `Malformed` if the
    message is larger than a frame may be.
    """
    frame = json.dumps(_envelope(message), separators=(",", ":")).encode()
    if len(frame) > FRAME_MAX:
        raise Malformed(f"a frame of {len(frame)} bytes is larger than {FRAME_MAX}")
    return b"\n" + frame + b"\n"


def decode(frame: bytes) -> Request | Response:
    """Return what a line says, or raise `Malformed`."""
    if len(frame) > FRAME_MAX:
        raise Malformed(f"a frame of {len(frame)} bytes is larger than {FRAME_MAX}")
    envelope = _parsed(frame)
    if not isinstance(envelope, dict) or set(envelope) != {"request", "response"}:
        raise Malformed("a frame is an object of request and response")
    if not _is_shallow(envelope):
        raise Malformed(f"a frame is nested deeper than {DEPTH_MAX}")
    match envelope:
        case {"request": dict(request), "response": None}:
            return _request(request)
        case {"request": None, "response": dict(response)}:
            return _response(response)
        case _:
            raise Malformed("a frame holds either a request or a response")


class Frames:
    """Cuts a stream into lines and never keeps more than one frame of it."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._skipping = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield every line that `chunk` completes; empty lines, and lines that are too long, are left out."""
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            if line or self._rest or self._skipping:  # a flood of empty lines costs next to nothing
                yield from self._piece(line + b"\n")
        yield from self._piece(rest)

    def _piece(self, piece: bytes) -> Iterator[bytes]:
        self._rest += piece
        if len(self._rest) > FRAME_MAX + 1:
            self._rest.clear()
            self._skipping = True
        if not piece.endswith(b"\n"):
            return
        line, skipped = bytes(self._rest).strip(), self._skipping
        self._rest.clear()
        self._skipping = False
        if line and not skipped:
            yield line


def _envelope(message: Request | Response) -> dict[str, Any]:
    if isinstance(message, Request):
        request = {"call": message.call, "function": message.function, "args": list(message.args)}
        return {"request": request, "response": None}
    response = {"call": message.call, "value": message.value, "err": message.err[:ERROR_MAX]}
    return {"request": None, "response": response}


def _parsed(frame: bytes) -> Any:  # noqa: ANN401 - JSON is any value until it has been looked at
    try:
        return json.loads(frame, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Malformed("a frame is not JSON") from error


def _no_constant(name: str) -> NoReturn:
    raise Malformed(f"{name} is no number")


def _is_shallow(value: object) -> bool:
    """Walk level by level, so that the depth of a hostile value costs no stack."""
    level = [value]
    for _ in range(DEPTH_MAX):
        level = [below for above in level for below in _children(above)]
        if not level:
            return True
    return False


def _children(value: object) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _request(fields: dict[str, Any]) -> Request:
    match fields:
        case {"call": str(call), "function": str(function), "args": list(args), **others} if not others:
            return Request(_name(call), _name(function), tuple(args))
        case _:
            raise Malformed("a request is call, function and args")


def _response(fields: dict[str, Any]) -> Response:
    match fields:
        case {"call": str(call), "value": value, "err": str(err), **others} if not others:
            return Response(_name(call), value, err[:ERROR_MAX])
        case _:
            raise Malformed("a response is call, value and err")


def _name(text: str) -> str:
    if not 0 < len(text) <= NAME_MAX or not text.isascii() or not text.isprintable():
        raise Malformed(f"a name has 1 to {NAME_MAX} printable characters")
    return text
