"""The source's half of a migration: carries out what workers/host/source.py decides."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Final, Self, assert_never

from workers.domain.errors import Bug, SpotError, Unreachable
from workers.domain.messages import MoveOrder, RowView
from workers.domain.migration import Ports, Said
from workers.domain.names import move_name
from workers.host import source
from workers.host.copying import Copy
from workers.host.journal import Standing
from workers.host.line import Line
from workers.host.microvm import Microvm
from workers.host.moves import READ_INTERVAL_S, WATCH_INTERVAL_S, Move, Pace
from workers.host.pressing import DOWNTIME_MAX_MS
from workers.host.qemu import Hearing, QemuEvent
from workers.host.source import Source, SourceCommand, SourceEvent, SourceState
from workers.host.streams import EVENTS, MIB, Outgoing, load_keys
from workers.host.tls import readable_keys

# Nothing taken for so long means that the peer is lost; with the cut that follows no write of the guest hangs for 2 s.
STALL_LIMIT_S: Final = 1.2
# The end of the mirror and the last memory take some tens of milliseconds, of a guest in a hurry as long as QEMU was
# allowed at most, and as long again if its line gets slower just then.
SWITCH_LIMIT_S: Final = 2 * DOWNTIME_MAX_MS / 1000
# The target commits within a few round trips, or not at all.
PAUSED_LIMIT_S: Final = 5.0
# Both sides read the row three times a second; one that has not been seen by then is cut off.
MIRRORED_LIMIT_S: Final = 3.0
# What is left of the deadline must do for backing out.
DEADLINE_MARGIN_S: Final = 1.0
_COPYING: Final = frozenset({SourceState.MIRRORING, SourceState.COPYING})
_BEFORE_THE_PAUSE: Final = _COPYING | {SourceState.MIRRORED, SourceState.SWITCHING}
_LIMITS: Final = {
    SourceState.MIRRORED: MIRRORED_LIMIT_S,
    SourceState.SWITCHING: SWITCH_LIMIT_S,
    SourceState.PAUSED: PAUSED_LIMIT_S,
}
_WORDS: Final = {
    SourceCommand.SAY_PAUSED: Said.PAUSED,
    SourceCommand.SAY_ABORTED: Said.ABORTED,
    SourceCommand.SAY_WIPED: Said.WIPED,
}


class Sending(Move):
    """One guest on its way to another host."""

    stall_limit_s = STALL_LIMIT_S
    limits: Mapping[SourceState, float] = _LIMITS

    def __init__(self, microvm: Microvm, order: MoveOrder, line: Line) -> None:
        super().__init__(microvm, order)
        self._source = Source()
        self._copy = Copy(microvm, order, line, self.figures)
        self._pace = Pace(0.01, 0.2)
        self._began = time.monotonic()
        self._entered = time.monotonic()
        self._is_cancelled = False
        self._is_setting_up = False
        """QEMU looks at all memory before it sends any, and answers nothing meanwhile."""

    @classmethod
    def recovered(cls, microvm: Microvm, order: MoveOrder, line: Line) -> Self:
        """Go on after a restart of the daemon: the row is read first."""
        sending = cls(microvm, order, line)
        sending.recover()
        return sending

    def recover(self) -> None:
        self._source = Source(SourceState.RECOVERED)
        self._is_cancelled = self._is_setting_up = False

    async def accept(self) -> None:
        """Write down that the guest is being sent; a daemon that ends after this says what has become of it."""
        if self.microvm.entry.move != self.order:
            await self.microvm.write(replace(self.microvm.entry, standing=Standing.SENDING, move=self.order))

    @property
    def has_decided(self) -> bool:
        return self._source.state in source.ENDS

    @property
    def reason(self) -> str:
        return self._source.reason

    def read(self, view: RowView) -> object:
        return source.RowRead(view.phase, view.may_pause)

    def silent(self) -> object | None:
        return source.RowSilent()

    def pace(self) -> float:
        """Keep the line free for PAUSED while the guest stands, and ask often for what it waits for."""
        match self._source.state:
            case SourceState.SWITCHING:
                return SWITCH_LIMIT_S
            case SourceState.PAUSED | SourceState.BACKING_OUT | SourceState.GIVEN:
                return self._pace.next()
            case _:
                return READ_INTERVAL_S

    def beside(self) -> tuple[Coroutine[None, None, None], ...]:
        return (self._watch(),) if self.microvm.has_ended else (self._watch(), self._hear())

    async def begin(self) -> None:
        if self._source.state is SourceState.NEW:
            self._copy.begin()
            self.put(source.SendOrdered())

    async def conclude(self) -> None:
        entry = self.microvm.entry
        await asyncio.to_thread(self.microvm.parts.network.withdraw, self.order.runner.number)
        self._copy.end()
        if self._source.state is SourceState.GIVEN:
            gone = replace(entry, standing=Standing.GONE, order=None, process=None, move=None, gone_epoch=entry.epoch)
            await self.microvm.write(gone)
            return
        await self._copy.relieve()
        await self.microvm.write(replace(entry, standing=Standing.OWNED, move=None))
        if not self.microvm.has_ended:
            await self._outgoing().tidy()

    # ------------------------------------------------------------ events

    async def take(self, event: object) -> None:
        if isinstance(event, QemuEvent):
            event = self._translated(event)
        if event is None:
            return
        waiting = [event]
        while waiting:
            before = self._source.state
            commands = self._source.receive(_known(waiting.pop(0)))
            if self._source.state is not before:
                self._entered = time.monotonic()
                self._pace.reset()
                if self._source.state not in _BEFORE_THE_PAUSE:
                    self._copy.end()
            # An outcome is taken before anything that came meanwhile: it belongs to the state that asked for it.
            outcomes = [await self._carry_out(command) for command in commands]
            waiting += [outcome for outcome in outcomes if outcome is not None]

    def _translated(self, event: QemuEvent) -> SourceEvent | None:
        if event.name == "MIGRATION":
            self._is_setting_up = event.facts.get("status") == "setup"
        match event.name, event.facts.get("status"):
            case "STOP", _:
                self.figures["stopped_at"] = event.at
                self.microvm.is_standing_still = True
                return None
            case _ if self._is_cancelled:
                return None  # what it came to is asked of QEMU, once
            case "MIGRATION", "pre-switchover":
                return source.SwitchoverReached()
            case "MIGRATION", "completed":
                self.figures["completed_at"] = event.at
                self.figures["total_s"] = round(time.monotonic() - self._began, 4)
                return source.MemoryCompleted()
            case "MIGRATION", "failed" | "cancelled":
                return source.MonitorFailed(f"the memory stream has {event.facts.get('status')}")
            case _:
                return self._of_the_mirror(event)

    def _of_the_mirror(self, event: QemuEvent) -> SourceEvent | None:
        match event.name:
            case "BLOCK_JOB_READY":
                return source.MirrorReady()
            case "BLOCK_JOB_COMPLETED" if not event.facts.get("error"):
                offset = event.facts.get("offset")
                self.figures["disk_mib_sent"] = round(offset / MIB, 2) if isinstance(offset, int) else 0.0
                return source.MirrorEnded()
            case "BLOCK_JOB_COMPLETED" | "BLOCK_JOB_CANCELLED" | "BLOCK_JOB_ERROR":
                return source.MonitorFailed("the disk stream has failed")
            case _:
                return None

    # ------------------------------------------------------------ commands

    async def _carry_out(self, command: SourceCommand) -> SourceEvent | None:
        match command:
            case SourceCommand.WRITE_ROLE:
                await self.accept()
                return None
            case SourceCommand.START_MIRROR | SourceCommand.START_MEMORY:
                return await self._start_stream(command)
            case SourceCommand.END_MIRROR:
                return await self._attempt(self._outgoing().end_mirror())
            case SourceCommand.SWITCH_OVER:
                return await self._attempt(self._outgoing().switch_over())
            case SourceCommand.CANCEL:
                return await self._cancel()
            case SourceCommand.SAY_PAUSED | SourceCommand.SAY_ABORTED | SourceCommand.SAY_WIPED:
                self.say(_WORDS[command])
                return None
            case SourceCommand.RESUME:
                return await self._resume()
            case SourceCommand.WIPE:
                return await self._wipe()
            case _:
                assert_never(command)

    async def _start_stream(self, command: SourceCommand) -> SourceEvent | None:
        if command is SourceCommand.START_MEMORY:
            return await self._attempt(self._start_memory())
        return await self._attempt(self._start_mirror())

    async def _start_mirror(self) -> None:
        approach, ports = self.microvm.parts.network.approach, (self._ports.memory, self._ports.disk)
        await asyncio.to_thread(approach, self.order.runner.number, self.order.peer_address, ports)
        with readable_keys(await self.keys(), self.microvm.directory, self.microvm.user) as place:
            await load_keys(self.microvm.qemu, place, "client")
        await self._outgoing().start_mirror()
        await self._copy.keep_share(self._outgoing(), at_once=True)

    async def _start_memory(self) -> None:
        await self._copy.keep_share(self._outgoing(), at_once=True)
        await self._outgoing().start_memory()

    async def _attempt(self, work: Coroutine[None, None, None]) -> SourceEvent | None:
        """A command that QEMU does not carry out has failed the move, not the daemon."""
        try:
            await work
        except SpotError as error:
            return source.MonitorFailed(str(error))
        return None

    async def _cancel(self) -> SourceEvent:
        self._is_cancelled = True
        await self._copy.relieve()
        if self.microvm.has_ended:
            return source.MonitorFailed("the source's monitor has ended")
        if await self._outgoing().cancel():
            return source.MemoryCompleted()
        return source.MonitorFailed(self.reason or "the move was given up")

    async def _resume(self) -> SourceEvent:
        """Make sure that the guest runs; one whose monitor has ended is reported as gone, which is all that is left."""
        if not self.microvm.has_ended and await self.microvm.qemu.status() != "running":
            await self.microvm.run()
        self.microvm.is_standing_still = False
        return source.GuestResumed()

    async def _wipe(self) -> SourceEvent:
        if not self.microvm.has_ended:
            self.figures["memory_mib_sent"] = round(await self._outgoing().memory_sent() / MIB, 2)
        await self.microvm.wipe()
        return source.GuestWiped()

    @property
    def _ports(self) -> Ports:
        if self.order.ports is None:
            raise Bug(f"{self.order.migration_id} is being sent to nowhere")
        return self.order.ports

    def _outgoing(self) -> Outgoing:
        if self.order.peer is None:
            raise Bug(f"{self.order.migration_id} is being sent to nobody")
        peer = move_name(self.order.peer, self.order.migration_id)
        return Outgoing(self.microvm.qemu, self.order.peer_address, self._ports, peer)

    # ------------------------------------------------------------ beside the queue

    async def _hear(self) -> None:
        qemu = self.microvm.qemu
        with qemu.hearing(*EVENTS) as events:
            await self._pass_on(events)
        if self._source.state in _BEFORE_THE_PAUSE:
            self.put(source.MonitorFailed("the source's monitor has ended"))

    async def _pass_on(self, events: Hearing) -> None:
        async for event in events.every():
            self.put(event)

    async def _watch(self) -> None:
        """Notice what nobody says: a peer that takes nothing any more, and time that has run out."""
        seen, looked_at, silent_s = (object(), object()), time.monotonic(), 0.0
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            now, state = time.monotonic(), self._source.state
            is_sending = state in _COPYING and not self._is_setting_up
            progress = await self._progress(seen) if is_sending else (object(), object())
            # Time in which this machine itself stood still says nothing about the peer.
            silent_s = silent_s + min(now - looked_at, WATCH_INTERVAL_S * 2) if progress == seen else 0.0
            seen, looked_at = progress, now
            if self._is_too_late(state, now, silent_s):
                self.put(source.LimitReached())
            elif is_sending:
                # A QEMU that hangs is noticed by the next look at its progress, so it must not hold this up.
                with suppress(SpotError, TimeoutError):
                    async with asyncio.timeout(WATCH_INTERVAL_S * 2):
                        await self._be_patient(now)

    async def _be_patient(self, now: float) -> None:
        """Keep to our share of the line, and see to it that a busy guest arrives."""
        await self._copy.keep_share(self._outgoing())
        if self._source.state is SourceState.COPYING:
            await self._copy.look(self._outgoing(), now, self.ends_at - now)

    async def _progress(self, seen: tuple[object, object]) -> tuple[object, object]:
        try:
            async with asyncio.timeout(WATCH_INTERVAL_S * 2):
                return await self._outgoing().progress()
        except (Unreachable, TimeoutError):
            return seen  # a QEMU that hangs makes no progress

    def _is_too_late(self, state: SourceState, now: float, silent_s: float) -> bool:
        if state in _COPYING and silent_s > self.stall_limit_s:
            self._source.reason = self._source.reason or "the target takes nothing any more"
            return True
        has_stood = now - self._entered > self.limits.get(state, float("inf"))
        return has_stood or (state in _BEFORE_THE_PAUSE and now > self.ends_at - DEADLINE_MARGIN_S)


def _known(event: object) -> SourceEvent:
    if not isinstance(event, SourceEvent):
        raise Bug(f"source of a migration: {event!r} is no event")
    return event
