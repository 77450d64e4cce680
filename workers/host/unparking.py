"""The target's half of a resume: a migration whose source is the object store.

    manifest ─▶ overlay, block by block ─▶ QEMU, standing still ─▶ memory, part by part ─▶ held
             ─▶ COMMITTED (read) ─▶ runs ─▶ clock ─▶ network

Nobody listens and nobody comes: this host fetches. Everything is verified before QEMU sees it. The clock is stepped
before the guest is on the network, since until then its certificates and tokens are those of minutes ago.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Final

import structlog

from workers.domain.errors import BadInput, Bug, SpotError
from workers.domain.messages import MoveOrder
from workers.domain.migration import Ports
from workers.domain.park import Manifest, Stream
from workers.host import target
from workers.host.blocks import put_back
from workers.host.disks import Stock, check_overlay
from workers.host.locker import Locker
from workers.host.microvm import Microvm, fresh_identity
from workers.host.receiving import Receiving
from workers.host.target import TargetCommand, TargetEvent

SOCKET_NAME: Final = "park"
# A full overlay is somewhat longer than its disk: what says where each cluster lies comes on top.
OVERLAY_FACTOR: Final = 1.1
MIB: Final = 1 << 20
LOAD_LIMIT_S: Final = 30.0

log = structlog.get_logger()


class Unparking(Receiving):
    """One guest on its way out of the store."""

    def __init__(self, microvm: Microvm, order: MoveOrder) -> None:
        super().__init__(microvm, order)
        self._stock: Stock | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._ordered_at = time.monotonic()
        self._ran_at: float | None = None

    def recover(self) -> None:
        super().recover()
        self._stock = None
        self._ran_at = None

    @property
    def listens(self) -> Ports | None:
        return None

    def beside(self) -> tuple[Coroutine[None, None, None], ...]:
        return (self._watch(), self._fetch())

    async def begin(self) -> None:
        """What an earlier daemon had begun to fetch cannot be gone on with."""
        if self._stock is None:
            await super().begin()
            if self._queue.empty():
                self.put(target.MonitorFailed("the target's daemon was started again"))

    # ------------------------------------------------------------ commands

    async def _prepare(self, command: TargetCommand, stock: Stock) -> None:
        if command is TargetCommand.WRITE_ROLE:
            await self.microvm.write(self.microvm.entry)
        else:
            self._stock = stock

    async def _carry_out(self, command: TargetCommand) -> TargetEvent | None:
        if command is TargetCommand.ATTACH:
            return None  # once its clock is right
        return await super()._carry_out(command)

    async def _let_run(self) -> TargetEvent:
        event = await super()._let_run()
        self._ran_at = time.monotonic()
        return event

    async def _settle_in(self) -> None:
        """The guest runs here; it is told what time it is before anybody else can speak to it."""
        try:
            told = fresh_identity(self.microvm.order, self.microvm.parts.network.mtu)
            step = await self.microvm.call("AfterResume", "unparked", told, limit_s=self.microvm.parts.wake_limit_s)
            log.info("guest_unparked", runner=self.microvm.entry.runner_id, clock_step_s=step["clock_step_s"])
        except SpotError as error:
            log.warning("guest_clock_not_stepped", runner=self.microvm.entry.runner_id, because=str(error))
        await self.microvm.join()
        await self.microvm.end_connections()
        await self.microvm.tell_place({"pause_ms": self.pause_ms()})

    # ------------------------------------------------------------ beside the queue

    def pause_ms(self) -> float | None:
        """Return how long the guest stood still: until it was sent for, and since then. None: not known."""
        if self.order.stood_s is None or self._ran_at is None:
            return None
        return round((self.order.stood_s + self._ran_at - self._ordered_at) * 1000, 1)

    async def _undo(self) -> None:
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait((self._fetching,))
        await super()._undo()

    async def _fetch(self) -> None:
        self._fetching = asyncio.current_task()
        if self._stock is not None:
            try:
                await self._restore(self._stock)
            except (SpotError, OSError) as error:
                self.put(target.MonitorFailed(f"the guest could not be taken out of the store: {error}"))
                return
        if not self.microvm.has_ended:
            await asyncio.shield(self.microvm.qemu.ended)
            self.put(target.MonitorFailed("the target's monitor has ended"))

    async def _restore(self, stock: Stock) -> None:
        park, parts = self.order.park, self.microvm.parts
        if park is None:
            raise Bug(f"{self.order.migration_id} is no resume")
        locker = Locker(self.order.migration_id, park, parts.control, parts.objects)
        try:
            manifest = await locker.manifest()
            overlay = await self._restore_overlay(stock, locker, manifest)
            await self._start(stock, overlay)
            await self._restore_memory(locker, manifest)
        finally:
            locker.close()
        self.figures["fetched_mib"] = round(locker.stored_bytes / MIB, 2)
        self.put(target.MemoryHeld())

    async def _start(self, stock: Stock, overlay: int) -> None:
        """Start QEMU and write its name down; who gives up meanwhile waits for it, so that it can be ended."""
        starting = asyncio.ensure_future(self.microvm.start(stock, fresh=True, overlay=overlay))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            await asyncio.wait((starting,))
            raise
        await self.microvm.write(replace(self.microvm.entry, process=self.microvm.qemu.name))

    async def _restore_overlay(self, stock: Stock, locker: Locker, manifest: Manifest) -> int:
        limit = int(stock.disk_mib * MIB * OVERLAY_FACTOR)
        if manifest.overlay_bytes > limit:
            raise BadInput(
                f"overlay_bytes: {manifest.overlay_bytes} are more than a disk of {stock.disk_mib} MiB needs"
            )
        overlay = await asyncio.to_thread(self.microvm.make_overlay, stock)
        try:
            os.truncate(overlay, 0)
            async for batch in locker.contents(Stream.DISK, manifest.disk):
                await asyncio.to_thread(put_back, overlay, batch, limit)
            os.truncate(overlay, manifest.overlay_bytes)
            check_overlay(overlay)
        except BaseException:
            os.close(overlay)
            raise
        return overlay

    async def _restore_memory(self, locker: Locker, manifest: Manifest) -> None:
        qemu = self.microvm.qemu
        ours, theirs = socket.socketpair()
        with closing_line(ours):
            with theirs:
                await qemu.give(SOCKET_NAME, theirs.fileno())
            await qemu.capabilities(events=True, return_path=False)
            with qemu.hearing("MIGRATION") as events:
                await qemu.execute("migrate-incoming", {"uri": f"fd:{SOCKET_NAME}"})
                async for contents in locker.contents(Stream.MEMORY, manifest.memory):
                    await asyncio.to_thread(ours.sendall, contents)
                ours.shutdown(socket.SHUT_WR)
                held = await events.migration("completed", LOAD_LIMIT_S)
        self.figures["held_at"] = held.at


@contextmanager
def closing_line(line: socket.socket) -> Iterator[None]:
    """Close a line in the end, and let go whoever still waits there."""
    with line:
        try:
            yield
        finally:
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
