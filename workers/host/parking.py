"""The source's half of a park: a migration whose target is the object store.

The protocol is a move's (workers/host/source.py): the disk is copied, then memory is sent, the guest stands, and what
is left follows. `MemoryCompleted` means here that every part and the manifest are in the store, for that is what the
row's PAUSED promises; QEMU has completed before that, and from then on it never runs the guest by itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from typing import Final

from workers.domain.errors import Bug, SpotError
from workers.domain.messages import MoveOrder, Word
from workers.domain.migration import Ports
from workers.domain.names import HostId
from workers.host import source
from workers.host.depositing import PARK_DOWNTIME_MS, Deposit
from workers.host.line import Line
from workers.host.locker import Locker
from workers.host.microvm import Microvm
from workers.host.qemu import QemuEvent
from workers.host.sending import MIRRORED_LIMIT_S, Sending
from workers.host.source import SourceCommand, SourceEvent, SourceState
from workers.host.streams import Outgoing

# From then on what is written meanwhile is better sent once, while the guest stands.
LAST_CHANCE_S: Final = 15.0
# The control plane looks at every part before it commits.
COMMIT_LIMIT_S: Final = 10.0


class Parking(Sending):
    """One guest on its way into the store."""

    # A store that hangs ends its own calls; one that is slow is no reason to keep a guest on a machine that goes away.
    stall_limit_s = float("inf")
    # What is left once the guest stands may take until the deadline.
    limits: Mapping[SourceState, float] = {
        SourceState.MIRRORED: MIRRORED_LIMIT_S,
        SourceState.PAUSED: COMMIT_LIMIT_S,
    }

    def __init__(self, microvm: Microvm, order: MoveOrder, line: Line) -> None:
        super().__init__(microvm, order, line)
        self._downtime_ms = PARK_DOWNTIME_MS
        self._deposit: Deposit | None = None
        self._ordered, self._completed = asyncio.Event(), asyncio.Event()
        self._carrying: asyncio.Task[None] | None = None
        self._manifest: str | None = None

    def recover(self) -> None:
        super().recover()
        self._deposit = None

    def beside(self) -> tuple[Coroutine[None, None, None], ...]:
        return (*super().beside(), self._carry())

    def _translated(self, event: QemuEvent) -> SourceEvent | None:
        found = super()._translated(event)
        if isinstance(found, source.MemoryCompleted):
            self._completed.set()
            return None
        return found

    async def _carry_out(self, command: SourceCommand) -> SourceEvent | None:
        if command is SourceCommand.END_MIRROR:
            return source.MirrorEnded()
        return await super()._carry_out(command)

    async def _start_mirror(self) -> None:
        park, parts = self.order.park, self.microvm.parts
        if park is None:
            raise Bug(f"{self.order.migration_id} is no park")
        locker = Locker(self.order.migration_id, park, parts.control, parts.objects)
        self._deposit = Deposit(self.microvm.qemu, self.microvm.overlay, park.park_id, locker)
        self._ordered.set()

    async def _cancel(self) -> SourceEvent:
        if self._carrying is not None:
            self._carrying.cancel()
        return await super()._cancel()

    def _outgoing(self) -> Outgoing:
        return self._deposit or Outgoing(self.microvm.qemu, "", Ports(0, 0), HostId("store"))

    def _body(self) -> Word:
        return Word(self.order.runner.epoch, dict(self.figures), self.reason or None, self._manifest)

    async def _carry(self) -> None:
        """Do what takes long, and say by events how it went."""
        self._carrying = asyncio.current_task()
        try:
            await self._ordered.wait()
            if self._deposit is not None:
                await self._store(self._deposit)
        except (SpotError, OSError) as error:
            self.put(source.MonitorFailed(f"the guest could not be stored: {error}"))
        finally:
            if self._deposit is not None:
                await self._deposit.close()

    async def _store(self, deposit: Deposit) -> None:
        await deposit.copy_disk()
        self.put(source.MirrorReady())
        await deposit.memory_read()
        await self._completed.wait()
        self._manifest = await deposit.finish()
        self.figures |= deposit.figures() | {"stored_at": time.time()}
        self.put(source.MemoryCompleted())

    async def _be_patient(self, now: float) -> None:
        """The nearer the deadline, the more is left for when the guest stands: then nothing is sent twice."""
        await self._copy.keep_share(self._outgoing())
        left_s = self.ends_at - now
        wanted = int(left_s * 500) if left_s < LAST_CHANCE_S else PARK_DOWNTIME_MS
        if wanted > self._downtime_ms and self._source.state is SourceState.COPYING:
            self._downtime_ms = wanted
            with suppress(SpotError):  # it has just ended, one way or the other
                await self._outgoing().allow_downtime(wanted)
