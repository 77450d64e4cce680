"""Calls over one channel after the other; the test plays the guest, and what QEMU does to its port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from guest_agent import wire
from tests.unit.played_guest import Guest, answering, next_request, with_value
from workers.domain.errors import Unreachable
from workers.host.guest import GuestCaller, GuestChannel

LIMIT_S = 20.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent"


@asynccontextmanager
async def _calling(path: Path, *ends: Guest, was_open: bool = False) -> AsyncIterator[GuestCaller]:
    """Let a played guest meet every channel in its own manner; the last is for all that come after."""
    met = 0

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal met
        end, met = ends[min(met, len(ends) - 1)], met + 1
        try:
            await end(reader, writer)
        except (EOFError, OSError):
            pass  # the host has hung up
        finally:
            writer.close()

    async with asyncio.timeout(2 * LIMIT_S), await asyncio.start_unix_server(meet, path):
        caller = GuestCaller(path, GuestChannel.connect, was_open=was_open)
        try:
            yield caller
        finally:
            await caller.close()


_WAITING = {"state": "waiting", "exit_code": None}
_silent = answering(lambda _: b"")


def test_calls_at_once_are_carried_out_one_after_the_other(path: Path) -> None:
    async def story() -> None:
        async with _calling(path, with_value(_WAITING), _silent) as guest:
            calls = [guest.call("RunnerStatus", limit_s=LIMIT_S) for _ in range(20)]
            assert len(await asyncio.gather(*calls)) == 20

    asyncio.run(story())


def test_a_call_whose_predecessor_failed_has_a_channel_of_its_own(path: Path) -> None:
    async def leaver(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await next_request(reader)

    async def story() -> None:
        async with _calling(path, leaver, with_value(_WAITING)) as guest:
            calls = [guest.call("RunnerStatus", limit_s=LIMIT_S) for _ in range(2)]
            broken, answered = await asyncio.gather(*calls, return_exceptions=True)
            assert isinstance(broken, Unreachable)
            assert answered == _WAITING

    asyncio.run(story())


def test_a_port_that_an_earlier_daemon_left_shut_is_opened_again(path: Path) -> None:
    heard: list[str] = []

    def listener(request: wire.Request) -> bytes:
        heard.append(request.function)
        return wire.encode(wire.Response(request.call, _WAITING if request.function == "RunnerStatus" else None))

    async def story() -> None:
        async with _calling(path, _silent, answering(listener), was_open=True) as guest:
            assert await guest.call("StartRunner", "secret", limit_s=LIMIT_S) is None

    asyncio.run(story())
    assert heard == ["RunnerStatus", "StartRunner"]


def test_a_guest_that_is_silent_on_every_channel_is_unreachable_after_the_limit(path: Path) -> None:
    async def story() -> None:
        async with _calling(path, _silent, was_open=True) as guest:
            with pytest.raises(Unreachable, match=r"within 0\.5 s"):
                await guest.call("RunnerStatus", limit_s=0.5)

    asyncio.run(story())
