"""A running guest on its way into the object store.

    overlay ─▶ all of it ─▶ again what has changed ─▶ ... ─▶ │ the guest stands ─▶ what is left ─┐
    memory               ─▶ pre-copy to a socket of ours ──▶ │                     the rest ─────┼─▶ manifest
                                                                                                 ▼
                                                                              its hash, for the row

The monitor is never asked about its disk: once its migration has completed it has written everything out, and one more
look at the file finds what differs (docs/adr/0003).
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from workers.domain.migration import Ports
from workers.domain.names import HostId, MigrationId
from workers.domain.park import PART_BYTES, Manifest, Stream
from workers.host.blocks import Blocks
from workers.host.locker import AT_ONCE, Locker, Shipment
from workers.host.qemu import Qemu
from workers.host.streams import Outgoing

# The guest stands until another host runs it anyway, so a second more saves the time of sending much twice.
PARK_DOWNTIME_MS: Final = 1000
# While memory is sent the overlay is looked through again, a quarter of the time at most.
REST_FACTOR: Final = 3.0
REST_LEAST_S: Final = 0.5
SOCKET_NAME: Final = "park"
# The line of a stream to the store is QEMU's own end of a socket, so it has neither address nor ports nor a peer.
_NOWHERE: Final = Ports(memory=0, disk=0)


class Deposit(Outgoing):
    """Both streams of one park; what differs from a move's is where they end."""

    def __init__(self, qemu: Qemu, overlay: Path, park_id: MigrationId, locker: Locker) -> None:
        super().__init__(qemu, "", _NOWHERE, HostId("store"))
        self._qemu, self._locker, self._park_id = qemu, locker, park_id
        room = asyncio.Semaphore(AT_ONCE)
        self._memory = Shipment(locker, Stream.MEMORY, room)
        self._disk = Shipment(locker, Stream.DISK, room)
        self._overlay = os.open(overlay, os.O_RDONLY | os.O_CLOEXEC)
        self._blocks = Blocks(self._overlay)
        self._line: socket.socket | None = None
        self._reading: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._started, self._stands = asyncio.Event(), asyncio.Event()
        self._closing: asyncio.Task[None] | None = None

    # ------------------------------------------------------------ while the guest runs

    async def copy_disk(self) -> None:
        """Store all of the overlay once. Raises what befell a part."""
        await self._pass()

    async def start_memory(self) -> None:
        """Begin to store memory; QEMU stops the guest by itself when little is left, and waits."""
        ours, theirs = socket.socketpair()
        self._line = ours  # at once, so that it is closed whatever comes
        with theirs:
            await self._qemu.give(SOCKET_NAME, theirs.fileno())
        await self._qemu.capabilities(events=True, return_path=False, pause_before_switchover=True)
        pace = {"downtime-limit": PARK_DOWNTIME_MS, "tls-creds": ""}
        await self._qemu.execute("migrate-set-parameters", pace)
        await self._qemu.execute("migrate", {"uri": f"fd:{SOCKET_NAME}"})
        self._reading = asyncio.create_task(self._read(ours), name="memory of a park")
        self._following = asyncio.create_task(self._follow_disk(), name="overlay of a park")
        self._started.set()

    async def memory_read(self) -> None:
        """Return when the memory stream has ended, one way or the other. Raises what befell a part of it."""
        await self._started.wait()
        if self._reading is not None:
            await asyncio.shield(self._reading)

    async def end_mirror(self) -> None:
        """The guest stands; its disk is looked at once its monitor has written everything out."""

    async def cancel(self) -> bool:
        """End the memory stream, even if QEMU hangs on it; True if it had completed before."""
        self._hang_up()
        return await super().cancel()

    async def progress(self) -> tuple[object, object]:
        """Return something that changes as long as the store takes what we send."""
        return (self._locker.stored_bytes, self._memory.content_bytes)

    async def memory_sent(self) -> int:
        """Return how many bytes of memory were sent."""
        return self._memory.content_bytes

    async def tidy(self) -> None:
        """There is nothing in QEMU to be let go of."""

    # ------------------------------------------------------------ once it stands

    async def finish(self) -> str:
        """Store what is left, and the manifest at the very end; return its hash. The monitor must have completed."""
        await self.memory_read()
        self._stands.set()
        if self._following is not None:
            await asyncio.shield(self._following)
        await self._pass()
        memory, disk = await self._memory.all(), await self._disk.all()
        manifest = Manifest(self._park_id, memory, disk, os.fstat(self._overlay).st_size)
        return await self._locker.put_manifest(manifest)

    def figures(self) -> dict[str, float]:
        """Return what went where, in MiB."""
        mib = 1 << 20
        return {
            "memory_mib_sent": round(self._memory.content_bytes / mib, 2),
            "disk_mib_sent": round(self._disk.content_bytes / mib, 2),
            "stored_mib": round(self._locker.stored_bytes / mib, 2),
        }

    async def close(self) -> None:
        """Let go of everything, even if whoever waits for this is cancelled; what was not stored yet never will be."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="end of a park")
        await asyncio.shield(self._closing)

    # ------------------------------------------------------------ inside

    async def _close(self) -> None:
        self._hang_up()
        self._stands.set()
        self._memory.drop()
        self._disk.drop()
        for task in (self._reading, self._following):
            if task is not None:
                task.cancel()
                await asyncio.wait((task,))
        if self._line is not None:
            self._line.close()
        self._locker.close()
        os.close(self._overlay)

    async def _read(self, line: socket.socket) -> None:
        while contents := await asyncio.to_thread(_part_of, line):
            await self._memory.add(contents)

    async def _follow_disk(self) -> None:
        """Keep the difference small that is left for when the guest stands."""
        while not self._stands.is_set():
            began = time.monotonic()
            await self._pass(until=self._stands)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(REST_LEAST_S, REST_FACTOR * (time.monotonic() - began))):
                    await self._stands.wait()

    async def _pass(self, until: asyncio.Event | None = None) -> None:
        batches = self._blocks.changed(PART_BYTES)
        while not (until and until.is_set()) and (batch := await asyncio.to_thread(_next, batches)):
            await self._disk.add(batch)

    def _hang_up(self) -> None:
        """End the line: whoever reads or writes there hears of it."""
        if self._line is not None:
            with suppress(OSError):
                self._line.shutdown(socket.SHUT_RDWR)


def _next(batches: Iterator[bytes]) -> bytes:
    return next(batches, b"")


def _part_of(line: socket.socket) -> bytes:
    """Return the next part of a stream, a shorter one at its end, then nothing."""
    contents = bytearray(PART_BYTES)
    view, filled = memoryview(contents), 0
    while filled < PART_BYTES and (got := line.recv_into(view[filled:])):
        filled += got
    return bytes(view[:filled])
