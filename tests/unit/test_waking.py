"""How long a restored guest may take to answer is the host's to say: a machine that is emulated itself needs more."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.test_whereabouts import ORDER
from workers.domain.errors import Unreachable
from workers.domain.names import HostId
from workers.host.engine import EngineParts
from workers.host.guest import GuestChannel
from workers.host.journal import Entry, Journal, Standing
from workers.host.microvm import Microvm


async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    writer.close()


@pytest.mark.parametrize("limit_s", [0.1, 0.2])
def test_a_guest_that_does_not_answer_is_given_up_after_as_long_as_this_host_waits(
    tmp_path: Path, limit_s: float
) -> None:
    nothing: Any = None
    network: Any = SimpleNamespace(mtu=1500)
    connect = GuestChannel.connect
    parts = EngineParts(
        HostId("a"), "127.0.0.1", tmp_path, nothing, nothing, network, nothing, nothing, connect, wake_limit_s=limit_s
    )
    microvm = Microvm(parts, Journal(tmp_path / "journal"), Entry(ORDER.runner_id, Standing.OWNED, ORDER))

    async def wake() -> None:
        microvm.directory.mkdir(parents=True)
        async with await asyncio.start_unix_server(silent, microvm.directory / "agent"):
            await microvm.wake()

    with pytest.raises(Unreachable, match=rf"the guest did not answer AfterResume within {limit_s:g} s"):
        asyncio.run(wake())
