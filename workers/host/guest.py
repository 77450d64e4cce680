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
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NotRequired, Protocol

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic reads typing's own only from Python 3.12 on

from guest_agent import wire
from workers.domain.errors import Bug, Refused, Unreachable

# A snapshot or a move leaves a handful of old frames on the way; more than that is a flood.
STRAYS_MAX: Final = 64
UNASKED_BYTES_MAX: Final = 4 * wire.FRAME_MAX
REASON_MAX: Final = 200
# A guest that is there answers within milliseconds; one on a busy machine with software emulation may take its time.
GREETING_LIMITS_S: Final = (1.0, 2.0, 4.0, 8.0)

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


class Channel(Protocol):
    """One connection to one guest's agent, for one call at a time; raises `Unreachable` and `Refused`."""

    async def call(self, function: str, *args: object, limit_s: float) -> Any:  # noqa: ANN401 - as the function says
        """Let the agent carry out one function and return its value, checked."""

    async def close(self) -> None:
        """Let go of the channel; the guest does not notice."""


Connect = Callable[[Path, float], Awaitable[Channel]]


class GuestChannel:
    """One connection to one guest's agent, for one call at a time.

    Raises `Unreachable` if the guest does not answer as it should, `Refused` if its agent says no.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Use `connect`."""
        self._reader = reader
        self._writer = writer
        self._frames = wire.Frames()

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
            async with asyncio.timeout(limit_s):
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


class GuestCaller:
    """Calls one guest's agent, one call after the other, over channels that it opens as they are needed.

    A QEMU whose host end closed while the guest was about to answer (QEMU 10.0: the write fails, so the port is
    throttled) keeps the port shut for the next host end too, until that one closes. So whoever is not the first to open
    the socket asks for a harmless word before anything else, and opens it again if none comes.
    """

    def __init__(self, path: Path, connect: Connect, *, was_open: bool = False) -> None:
        """Take the monitor's socket, and whether it was ever open, to anybody, since its QEMU was started."""
        self._path = path
        self._connect = connect
        self._was_open = was_open
        self._channel: Channel | None = None
        self._turn = asyncio.Lock()

    async def call(self, function: str, *args: object, limit_s: float) -> Any:  # noqa: ANN401 - `VALUES` says which
        """Let the agent carry out one function within this time, in which earlier calls end too; return its value."""
        try:
            async with asyncio.timeout(limit_s), self._turn:
                return await self._called(function, args, limit_s)
        except TimeoutError as error:
            raise Unreachable(f"the guest did not answer {function} within {limit_s:g} s") from error

    async def close(self) -> None:
        """Let go of the guest; the next call opens a channel again."""
        if self._channel is not None:
            channel, self._channel = self._channel, None
            await channel.close()

    async def _called(self, function: str, args: tuple[object, ...], limit_s: float) -> Any:  # noqa: ANN401 - see `call`
        try:
            channel = self._channel or await self._opened(limit_s)
            return await channel.call(function, *args, limit_s=limit_s)
        except (Unreachable, asyncio.CancelledError):
            await self.close()
            raise

    async def _opened(self, limit_s: float) -> Channel:
        for patience_s in GREETING_LIMITS_S:
            self._channel = await self._connect(self._path, limit_s)
            is_first, self._was_open = not self._was_open, True
            if is_first or await _is_heard(self._channel, patience_s):
                return self._channel
            await self.close()
        raise Unreachable("the guest did not answer on any of its channels")


async def _is_heard(channel: Channel, patience_s: float) -> bool:
    try:
        await channel.call("RunnerStatus", limit_s=patience_s)
    except Unreachable:
        return False
    return True


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
