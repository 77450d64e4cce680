"""The target's half of a migration: carries out what workers/host/target.py decides."""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Final, Self, assert_never

from workers.domain.errors import Bug, SpotError, TryLater
from workers.domain.messages import MoveOrder, RowView
from workers.domain.migration import MigrationPhase, Ports, Said
from workers.host import target
from workers.host.disks import Stock
from workers.host.journal import Standing
from workers.host.microvm import Microvm
from workers.host.moves import READ_INTERVAL_S, WATCH_INTERVAL_S, Move, Pace
from workers.host.qemu import QemuEvent
from workers.host.rules import MIGRATION_PORTS
from workers.host.streams import listen, load_keys, stop_listening
from workers.host.target import Target, TargetCommand, TargetEvent, TargetState
from workers.host.tls import readable_keys, subject

PORT_ATTEMPTS: Final = 50
# A monitor that has just told that it failed answers at once, or is gone.
WHY_LIMIT_S: Final = 0.5
_REFUSED: Final = frozenset({"failed", "cancelled"})
_WORDS: Final = {
    TargetCommand.SAY_COMMITTED: Said.COMMITTED,
    TargetCommand.SAY_ABORTED: Said.ABORTED,
    TargetCommand.SAY_RUNNING: Said.RUNNING,
}
_DECIDED_FORWARD: Final = frozenset({MigrationPhase.COMMITTED, MigrationPhase.FINISHED})
_WAITING: Final = frozenset({TargetState.PREPARING, TargetState.RECEIVING})


class Receiving(Move):
    """One guest on its way to this host."""

    def __init__(self, microvm: Microvm, order: MoveOrder) -> None:
        super().__init__(microvm, order)
        self._target = Target()
        self._pace = Pace(0.002, 0.2)
        self._stood_ms: float | None = None

    @classmethod
    def recovered(cls, microvm: Microvm, order: MoveOrder) -> Self:
        """Go on after a restart of the daemon: the monitor is asked first, then the row."""
        receiving = cls(microvm, order)
        receiving.recover()
        return receiving

    def recover(self) -> None:
        self._target = Target(TargetState.RECEIVING)

    @property
    def listens(self) -> Ports | None:
        """Where the source finds it; None if nobody is to come."""
        return self.ports

    @property
    def ports(self) -> Ports:
        """Where it listens."""
        if self.order.ports is None:
            raise Bug(f"{self.order.migration_id} has no ports yet")
        return self.order.ports

    async def listen(self, stock: Stock) -> None:
        """Start the machine and open its ports; if that fails nothing of it is left."""
        try:
            for command in self._target.receive(target.ReceiveOrdered()):
                await self._prepare(command, stock)
        except BaseException:
            await asyncio.shield(self._undo())
            raise
        self._target.receive(target.Listening())

    @property
    def has_decided(self) -> bool:
        return self._target.state in target.ENDS

    @property
    def reason(self) -> str:
        return self._target.reason

    def read(self, view: RowView) -> object:
        if view.phase in _DECIDED_FORWARD and self._target.state is TargetState.HOLDING:
            self.figures.setdefault("commit_read_at", time.time())
            self._stood_ms = view.stood_ms
        return target.RowRead(view.phase)

    def silent(self) -> object | None:
        return None

    def pace(self) -> float:
        """Ask often for what a standing guest waits for."""
        return READ_INTERVAL_S if self._target.state in _WAITING else self._pace.next()

    def beside(self) -> tuple[Coroutine[None, None, None], ...]:
        return (self._watch(),) if self.microvm.has_ended else (self._watch(), self._hear())

    async def begin(self) -> None:
        """Look at the monitor, since what it said while nobody listened is not said again."""
        if self.microvm.has_ended:
            self.put(target.MonitorFailed("the target's monitor has ended"))
        elif await self.microvm.qemu.status() == "running":
            self.microvm.is_standing_still = False
            self.put(target.GuestRuns())
        else:
            await self._begin_at((await self.microvm.qemu.migration()).get("status"))

    async def _begin_at(self, status: object) -> None:
        if status == "completed":
            self.put(target.MemoryHeld())
        elif status in _REFUSED:
            self.put(target.MonitorFailed(await self._refusal()))

    async def conclude(self) -> None:
        entry = self.microvm.entry
        if self._target.state is TargetState.WIPED:
            await self.microvm.write(replace(entry, standing=Standing.GONE, order=None, process=None, move=None))
        else:
            await self.microvm.write(replace(entry, standing=Standing.OWNED, move=None))

    # ------------------------------------------------------------ events

    async def take(self, event: object) -> None:
        if isinstance(event, QemuEvent):
            event = await self._translated(event)
        if event is None or self._is_known(event):
            return
        waiting = [event]
        while waiting:
            before = self._target.state
            commands = self._target.receive(_known(waiting.pop(0)))
            if self._target.state is not before:
                self._pace.reset()
            # An outcome is taken before anything that came meanwhile: it belongs to the state that asked for it.
            outcomes = [await self._carry_out(command) for command in commands]
            waiting += [outcome for outcome in outcomes if outcome is not None]

    def _is_known(self, event: object) -> bool:
        """Say whether QEMU said by an event what `begin` has asked it for already."""
        return isinstance(event, target.MemoryHeld) and self._target.state is not TargetState.RECEIVING

    async def _translated(self, event: QemuEvent) -> TargetEvent | None:
        status = event.facts.get("status")
        if status == "completed":
            self.figures["held_at"] = event.at
            return target.MemoryHeld()
        return target.MonitorFailed(await self._refusal()) if status in _REFUSED else None

    async def _refusal(self) -> str:
        """Say that QEMU has not taken the stream, in its own words if it is there to say them."""
        because: object = None
        with suppress(SpotError, TimeoutError):
            async with asyncio.timeout(WHY_LIMIT_S):
                because = (await self.microvm.qemu.migration()).get("error-desc")
        return f"the target's monitor refused what came{f': {because}' if because else ''}"

    # ------------------------------------------------------------ commands

    async def _prepare(self, command: TargetCommand, stock: Stock) -> None:
        match command:
            case TargetCommand.WRITE_ROLE:
                ports = await asyncio.to_thread(free_ports, self.microvm.parts.address)
                self.order = replace(self.order, ports=ports)
                await self.microvm.write(replace(self.microvm.entry, move=self.order))
            case TargetCommand.LISTEN:
                await self._listen(stock)
            case _:
                raise Bug(f"target of a migration: {command} before it listens")

    async def _listen(self, stock: Stock) -> None:
        microvm, parts = self.microvm, self.microvm.parts
        keys = await self.keys()
        await microvm.start(stock, fresh=True)
        await microvm.write(replace(microvm.entry, process=microvm.qemu.name))
        for port in (self.ports.memory, self.ports.disk):
            await asyncio.to_thread(parts.network.admit, port, self.order.peer_address)
        if self.order.peer is None:
            raise Bug(f"{self.order.migration_id} comes from nowhere")
        with readable_keys(keys, microvm.directory, microvm.user) as place:
            await load_keys(microvm.qemu, place, "server")
        await listen(microvm.qemu, parts.address, self.ports, subject(self.order.peer, self.order.migration_id))

    async def _carry_out(self, command: TargetCommand) -> TargetEvent | None:
        match command:
            case TargetCommand.SAY_COMMITTED | TargetCommand.SAY_ABORTED | TargetCommand.SAY_RUNNING:
                self.say(_WORDS[command])
                if command is TargetCommand.SAY_RUNNING:
                    await self._settle_in()
                return None
            case TargetCommand.ATTACH:
                await self.microvm.join()
                return None
            case TargetCommand.RUN:
                return await self._let_run()
            case TargetCommand.WIPE:
                await self._undo()
                return target.GuestWiped()
            case TargetCommand.WRITE_ROLE | TargetCommand.LISTEN:
                raise Bug(f"target of a migration: {command} when it was listening already")
            case _:
                assert_never(command)

    async def _let_run(self) -> TargetEvent:
        try:
            self.figures["resumed_at"] = await self.microvm.run()
        except SpotError as error:
            return target.MonitorFailed(str(error))
        return target.GuestRuns()

    async def _settle_in(self) -> None:
        """The guest runs here: nobody may come in any more, and it is told where it is."""
        await stop_listening(self.microvm.qemu)
        await self._dismiss()
        await self.microvm.end_connections()
        await self.microvm.tell_place({"pause_ms": self.pause_ms()})

    def pause_ms(self) -> float | None:
        """Return how long the guest stood still: at the source by its clock, then here by ours. None: not known."""
        held_at, resumed_at = self.figures.get("held_at"), self.figures.get("resumed_at")
        if self._stood_ms is None or held_at is None or resumed_at is None:
            return None
        return round(self._stood_ms + max(0.0, resumed_at - held_at) * 1000, 1)

    async def _undo(self) -> None:
        try:
            await self.microvm.wipe()
        finally:  # nobody may come in, whatever is left of it
            await self._dismiss()

    async def _dismiss(self) -> None:
        ports = self.order.ports
        for port in () if ports is None else (ports.memory, ports.disk):
            await asyncio.to_thread(self.microvm.parts.network.dismiss, port)

    # ------------------------------------------------------------ beside the queue

    async def _hear(self) -> None:
        with self.microvm.qemu.hearing("MIGRATION") as events:
            async for event in events.every():
                self.put(event)
        if self._target.state in _WAITING | {TargetState.HOLDING}:
            self.put(target.MonitorFailed("the target's monitor has ended"))

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            if self._target.state in _WAITING and time.monotonic() > self.ends_at:
                self.put(target.LimitReached())


def free_ports(address: str) -> Ports:
    """Return two migration ports on which nobody listens now. Raises `TryLater`."""
    first, last = MIGRATION_PORTS
    found: set[int] = set()
    for _ in range(PORT_ATTEMPTS):
        port = first + secrets.randbelow(last - first + 1)
        if _is_free(address, port):
            found.add(port)
        if len(found) == len(Ports.__dataclass_fields__):
            return Ports(memory=found.pop(), disk=found.pop())
    raise TryLater(f"no two migration ports are free on {address}")


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((address, port))
        except OSError:
            return False
    return True


def _known(event: object) -> TargetEvent:
    if not isinstance(event, TargetEvent):
        raise Bug(f"target of a migration: {event!r} is no event")
    return event
