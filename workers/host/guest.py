"""The channel to the agent inside a guest: calls and answers over the monitor's unix socket.

The guest is hostile. Nothing is read while no call is open, so a guest that
talks all day costs the host nothing; during a call only so much of what was
not asked for is read before the channel is given up. An answer is matched by
its call, so what an earlier host (or the template, before its snapshot) left
on the way is dropped.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic reads typing's own only from Python 3.12 on

from guest_agent import wire
from workers.domain.errors import Bug, Refused, Unreachable

# A snapshot or a move leaves a handful of old frames on the way; more than that is a flood.
STRAYS_MAX: Final = 64
UNASKED_BYTES_MAX: Final = 4 * wire.FRAME_MAX
REASON_MAX: Final = 200

_STRICT: Final = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@with_config(_STRICT)
class ClockStep(TypedDict):
    """By how much a guest's clock moved."""

    clock_step_s: float


@with_config(_STRICT)
class HoldAsked(TypedDict):
    """The job's last wish not to be moved."""

    number: Annotated[int, Field(ge=1, lt=1 << 31)]
    seconds: Annotated[float, Field(ge=0, le=1e6)]


@with_config(_STRICT)
class RunnerStatus(TypedDict):
    """What the agent says of the runner program, and of its job's wishes if it has any."""

    state: Literal["waiting", "running", "ended"]
    exit_code: int | None
    hold: NotRequired[HoldAsked]


VALUES: Final[Mapping[str, TypeAdapter[Any]]] = {
    "BeforeSuspend": TypeAdapter(None),
    "AfterResume": TypeAdapter(ClockStep),
    "StartRunner": TypeAdapter(None),
    "RunnerStatus": TypeAdapter(RunnerStatus),
    "Placed": TypeAdapter(None),
    "ResetConnections": TypeAdapter(Annotated[int, Field(ge=0, strict=True)]),
    "Shutdown": TypeAdapter(None),
}


class GuestChannel:
    """One connection to one guest's agent; calls are carried out one after the other.

    Raises `Unreachable` if the guest does not answer as it should, `Refused` if its agent says no.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Use `connect`."""
        self._reader = reader
        self._writer = writer
        self._frames = wire.Frames()
        self._turn = asyncio.Lock()

    @classmethod
    async def connect(cls, path: Path, limit_s: float) -> GuestChannel:
        """Open the monitor's socket. The agent need not be up yet: a call waits for it."""
        try:
            async with asyncio.timeout(limit_s):
                reader, writer = await asyncio.open_unix_connection(path, limit=wire.FRAME_MAX)
        except (TimeoutError, OSError) as error:
            raise Unreachable(f"the guest channel {path} does not open: {error}") from error
        return cls(reader, writer)

    async def call(self, function: str, *args: object, limit_s: float) -> Any:  # noqa: ANN401 - `VALUES` says which
        """Let the agent carry out one function (docs/protocols.md) and return its value, checked."""
        adapter = VALUES.get(function)
        if adapter is None:
            raise Bug(f"the guest channel has no function {function}")
        request = wire.Request(secrets.token_hex(8), function, args)
        try:
            async with asyncio.timeout(limit_s), self._turn:
                response = await self._answered(request)
        except TimeoutError as error:
            raise Unreachable(f"the guest did not answer {function} within {limit_s:g} s") from error
        except OSError as error:
            raise Unreachable(f"the guest channel broke during {function}: {error}") from error
        if response.err:
            raise Refused(f"the guest refused {function}: {_plain(response.err)}")
        return _checked(function, adapter, response.value)

    async def close(self) -> None:
        """Let go of the channel; the guest does not notice."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            return  # it was broken before

    async def _answered(self, request: wire.Request) -> wire.Response:
        self._writer.write(wire.encode(request))
        await self._writer.drain()
        strays = unasked = 0
        while strays <= STRAYS_MAX and unasked <= UNASKED_BYTES_MAX:
            chunk = await self._reader.read(65536)
            if not chunk:
                raise Unreachable(f"the guest channel closed during {request.function}")
            unasked += len(chunk)
            for line in self._frames.feed(chunk):
                message = _decoded(line)
                if isinstance(message, wire.Response) and message.call == request.call:
                    return message
                strays += 1
        raise Unreachable(f"the guest sent {strays} frames that nobody asked for instead of answering")


def _decoded(line: bytes) -> wire.Request | wire.Response | None:
    try:
        return wire.decode(line)
    except wire.Malformed:
        return None


def _checked(function: str, adapter: TypeAdapter[Any], value: object) -> object:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise Unreachable(f"the guest answered {function} with something else") from error


def _plain(text: str) -> str:
    """A guest's words may hold anything; only what a log line may hold is kept."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:REASON_MAX])
