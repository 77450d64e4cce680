"""The engine: the microVMs of this host, each under a turn of its own, each order harmless when repeated.

    boot ─▶ OWNED ─▶ send ─▶ SENDING ─┬─▶ GONE          (the row says COMMITTED)
              ▲                       └─▶ OWNED         (ABORTED)
    receive ─▶ RECEIVING ─┬─▶ OWNED                     (COMMITTED)
                          └─▶ as it was before          (ABORTED)
    stop: OWNED ─▶ GONE; while a migration is undecided: not now

Epochs: an order whose epoch lies below what is here, or was here last, is an old one and is refused. Everything is in
the journal before it is acted on, and `adopt` goes on from there.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import structlog

from workers.domain.errors import BadInput, Refused, SpotError, TryLater
from workers.domain.messages import BootOrder, MoveOrder, RunnerReport, StartOrder
from workers.domain.migration import Ports
from workers.domain.names import MigrationId, PackageDigest, RunnerId
from workers.domain.runner import Shape
from workers.host.disks import Stock
from workers.host.journal import Entry, Journal, Standing
from workers.host.line import Line
from workers.host.microvm import START_RUNNER_LIMIT_S, Microvm
from workers.host.moves import Move
from workers.host.parking import Parking
from workers.host.parts import EngineParts
from workers.host.receiving import Receiving
from workers.host.sending import Sending
from workers.host.unparking import Unparking

__all__ = ["Engine", "EngineParts"]

# Names become directories and control groups.
NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")

# A guest that waits for room on the disk has lost that much time at most when there is some.
TEND_INTERVAL_S: Final = 1.0

log = structlog.get_logger()


class Engine:
    """The microVMs of one host. Raises `Refused` for what never will be, `TryLater` for what cannot be now."""

    def __init__(self, parts: EngineParts) -> None:
        self._parts = parts
        self._journal = Journal(parts.home / "journal")
        self._microvms: dict[RunnerId, Microvm] = {}
        self._gone: dict[RunnerId, int] = {}
        self._moves: dict[RunnerId, Move] = {}
        self._moved: set[MigrationId] = set()
        self._line = Line()
        self._timings: dict[RunnerId, Mapping[str, float]] = {}
        self._stocks: dict[PackageDigest, Stock] = {}
        self._unpacking = asyncio.Lock()
        self._turns: defaultdict[RunnerId, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def prepare(self, package: PackageDigest) -> Stock:
        """Make a package ready to start from; takes a second the first time, so it is done before the host is READY."""
        async with self._unpacking:
            stock = self._stocks.get(package)
            if stock is None:
                await self._parts.bring(package)
                unpacked = await asyncio.to_thread(self._parts.shelf.unpacked, package)
                stock = await asyncio.to_thread(Stock.make, unpacked, self._parts.home / "overlays")
                self._stocks[package] = stock
        return stock

    # ------------------------------------------------------------ orders

    async def boot(self, order: BootOrder) -> Mapping[str, float]:
        """Restore a microVM; returns its stages in milliseconds when its agent has answered and its link is up."""
        began = time.monotonic()
        async with self._turn(order.runner_id):
            microvm = self._microvms.get(order.runner_id)
            self._refuse_old(order.runner_id, order.epoch)
            if microvm is None:
                stock = await self.prepare(order.package)
                _check_shape(order.shape, stock)
                await self._boot(order, stock, began)
            elif microvm.order != replace(order, whereabouts=microvm.order.whereabouts):
                raise Refused(f"{order.runner_id} is here already, and it is another one")
            return self._timings.get(order.runner_id, {})

    async def start_runner(self, runner_id: RunnerId, order: StartOrder) -> None:
        """Hand the just-in-time configuration to the guest; handing it over twice starts one runner."""
        async with self._turn(runner_id):
            microvm = self._owned(runner_id, order.epoch)
            await microvm.call("StartRunner", order.jit_config, limit_s=START_RUNNER_LIMIT_S)

    async def stop(self, runner_id: RunnerId, epoch: int) -> None:
        """End a microVM and wipe all that it left; one that is not there is a success, and stays away."""
        async with self._turn(runner_id):
            microvm = self._microvms.get(runner_id)
            if microvm is None:
                await self._bury(runner_id, epoch)
                return
            if epoch < microvm.entry.epoch:
                raise Refused(f"{runner_id} is at epoch {microvm.entry.epoch} here; an order at {epoch} is an old one")
            if runner_id in self._moves:
                raise TryLater(f"a migration of {runner_id} is not decided yet; stop it where it will be")
            await microvm.wipe()
            del self._microvms[runner_id]
            await self._bury(runner_id, epoch)

    async def receive(self, order: MoveOrder) -> Ports | None:
        """Start the same machine, empty, for one peer alone; returns when both ports listen.

        A guest that lies in the store is fetched from there, and nobody listens: None.
        """
        runner_id = order.runner.runner_id
        async with self._turn(runner_id):
            move = self._moves.get(runner_id)
            if isinstance(move, Receiving) and move.order.migration_id == order.migration_id:
                return move.listens
            self._refuse_old(runner_id, order.runner.epoch)
            if runner_id in self._microvms:
                raise TryLater(f"{runner_id} is on this host already; end that first")
            stock = await self.prepare(order.runner.package)
            _check_shape(order.runner.shape, stock)
            entry = Entry(
                runner_id,
                Standing.RECEIVING,
                order.runner,
                move=order,
                moves=order.moves,
                gone_epoch=self._gone_epoch(runner_id),
            )
            receiving = _receiving_kind(order)(Microvm(self._parts, self._journal, entry), order)
            await receiving.listen(stock)
            self._microvms[runner_id] = receiving.microvm
            self._follow(receiving)
            return receiving.listens

    async def send(self, order: MoveOrder) -> None:
        """Begin to send the guest to the peer or to the store; returns at once, and the row tells how it goes."""
        runner_id = order.runner.runner_id
        async with self._turn(runner_id):
            move = self._moves.get(runner_id)
            if order.migration_id in self._moved or (move and move.order.migration_id == order.migration_id):
                return
            microvm = self._owned(runner_id, order.runner.epoch - 1)
            if order.ports is None and order.park is None:
                raise BadInput(f"{order.migration_id}: ports: missing; say where the target listens")
            move = _sending_kind(order)(microvm, order, self._line)
            # Before the answer: the control plane asks again only until the source has been heard.
            await move.accept()
            self._follow(move)

    def reports(self) -> tuple[RunnerReport, ...]:
        """Return what is known of every microVM here, those that have ended and were not stopped yet included."""
        return tuple(microvm.report() for microvm in self._microvms.values())

    def moving(self) -> frozenset[RunnerId]:
        """Return whose guests have a part in a migration here that has not ended, as far as this host knows."""
        return frozenset(self._moves)

    async def tend(self) -> None:
        """Let guests that found this host's disk full go on once there is room, for ever."""
        while True:
            await asyncio.sleep(TEND_INTERVAL_S)
            for runner_id in list(self._microvms):
                async with self._turn(runner_id):
                    await self._tend(runner_id)

    async def _tend(self, runner_id: RunnerId) -> None:
        microvm = self._microvms.get(runner_id)
        if microvm is None or runner_id in self._moves:
            return
        try:
            await microvm.go_on()
        except SpotError as error:
            log.info("guest_not_tended", runner=runner_id, because=str(error))

    # ------------------------------------------------------------ restarts

    async def adopt(self) -> None:
        """Take over what an earlier daemon left: go on with what the journal knows, throw away what was half made."""
        for entry in await asyncio.to_thread(lambda: list(self._journal.entries())):
            if entry.standing is Standing.GONE:
                self._gone[entry.runner_id] = entry.gone_epoch
            else:
                await self._adopt(entry)

    async def release(self) -> None:
        """Let go of every microVM and leave it as it is, for the next daemon to adopt."""
        for move in list(self._moves.values()):
            await move.leave()
        for microvm in self._microvms.values():
            await microvm.release()
        for stock in self._stocks.values():
            stock.close()

    async def _adopt(self, entry: Entry) -> None:
        microvm = Microvm(self._parts, self._journal, entry)
        is_alive = await microvm.adopt()
        log.info("runner_adopted", runner=entry.runner_id, standing=entry.standing, alive=is_alive)
        if entry.standing is Standing.BOOTING:
            await self._throw_away(microvm)
            return
        self._microvms[entry.runner_id] = microvm
        match entry.standing:
            case Standing.SENDING if entry.move is not None:
                self._follow(_sending_kind(entry.move).recovered(microvm, entry.move, self._line))
            case Standing.RECEIVING if entry.move is not None:
                self._follow(_receiving_kind(entry.move).recovered(microvm, entry.move))
            case _ if is_alive:
                microvm.serve()
            case _:
                log.warning("runner_ended_unseen", runner=entry.runner_id)

    # ------------------------------------------------------------ inside

    def _turn(self, runner_id: RunnerId) -> asyncio.Lock:
        if not NAME.fullmatch(runner_id):
            raise BadInput(f"runner_id: {runner_id!r} is no name; use small letters, digits and hyphens")
        return self._turns[runner_id]

    def _gone_epoch(self, runner_id: RunnerId) -> int:
        return self._gone.get(runner_id, 0)

    def _refuse_old(self, runner_id: RunnerId, epoch: int) -> None:
        here = self._microvms.get(runner_id)
        lowest = self._gone_epoch(runner_id) + 1 if here is None else here.entry.epoch
        if epoch < lowest:
            raise Refused(
                f"{runner_id} has been at epoch {lowest - (here is None)} here; an order at {epoch} is an old one"
            )

    def _owned(self, runner_id: RunnerId, epoch: int) -> Microvm:
        microvm = self._microvms.get(runner_id)
        if microvm is None:
            raise Refused(f"{runner_id} is not on this host")
        if epoch != microvm.entry.epoch:
            raise Refused(f"{runner_id} is at epoch {microvm.entry.epoch} here, and the order is for epoch {epoch}")
        if microvm.entry.standing is not Standing.OWNED or runner_id in self._moves:
            raise TryLater(f"{runner_id} is being moved")
        return microvm

    async def _boot(self, order: BootOrder, stock: Stock, began: float) -> None:
        entry = Entry(order.runner_id, Standing.BOOTING, order, gone_epoch=self._gone_epoch(order.runner_id))
        microvm = Microvm(self._parts, self._journal, entry)
        laps = Laps(began)
        try:
            await microvm.write(entry)
            laps.mark("journal_ms")
            await microvm.start(stock, fresh=False)
            laps.mark("start_ms")
            await microvm.restore(stock)
            laps.mark("restore_ms")
            await microvm.wake()
            laps.mark("agent_ms")
            await microvm.join()
            await microvm.tell_place({"restored_in_ms": round((time.monotonic() - began) * 1000, 1)})
            await microvm.write(replace(microvm.entry, standing=Standing.OWNED))
            laps.mark("link_ms")
        except BaseException:
            await asyncio.shield(self._throw_away(microvm))
            raise
        self._microvms[order.runner_id] = microvm
        self._timings[order.runner_id] = laps.all()
        microvm.serve()

    async def _throw_away(self, microvm: Microvm) -> None:
        """Undo a boot, as if it had never been asked for: it may be asked for again."""
        await microvm.wipe()
        entry = microvm.entry
        if entry.gone_epoch:
            await self._bury(entry.runner_id, entry.gone_epoch)
        else:
            await asyncio.to_thread(self._journal.forget, entry.runner_id)

    async def _bury(self, runner_id: RunnerId, epoch: int) -> None:
        """Remember that nothing is left here, up to this epoch."""
        highest = max(epoch, self._gone_epoch(runner_id))
        entry = Entry(runner_id, Standing.GONE, gone_epoch=highest)
        await asyncio.to_thread(self._journal.write, entry)
        self._gone[runner_id] = highest
        self._timings.pop(runner_id, None)

    def _follow(self, move: Move) -> None:
        """See a migration to its end in the background."""
        self._moves[move.microvm.entry.runner_id] = move
        move.follow(self._settle)

    async def _settle(self, move: Move) -> None:
        """A migration is over: what is here now is written in its microVM's entry."""
        entry = move.microvm.entry
        async with self._turn(entry.runner_id):
            self._moves.pop(entry.runner_id, None)
            self._moved.add(move.order.migration_id)
            if entry.standing is Standing.GONE:
                self._microvms.pop(entry.runner_id, None)
                self._gone[entry.runner_id] = entry.gone_epoch
            else:
                move.microvm.serve()


def _sending_kind(order: MoveOrder) -> type[Sending]:
    return Sending if order.park is None else Parking


def _receiving_kind(order: MoveOrder) -> type[Receiving]:
    return Receiving if order.park is None else Unparking


class Laps:
    """Where the time of one order went."""

    def __init__(self, began: float) -> None:
        self._began = self._last = began
        self._laps: dict[str, float] = {}

    def mark(self, name: str) -> None:
        """End a stage."""
        now = time.monotonic()
        self._laps[name] = round((now - self._last) * 1000, 1)
        self._last = now

    def all(self) -> Mapping[str, float]:
        """Return every stage and the whole, in milliseconds."""
        return self._laps | {"total_ms": round((self._last - self._began) * 1000, 1)}


def _check_shape(shape: Shape, stock: Stock) -> None:
    machine = stock.machine
    if (shape.vcpus, shape.memory_mib) != (machine.vcpus, machine.memory_mib):
        raise Refused(
            f"shape: the package holds a machine of {machine.vcpus} vCPUs and {machine.memory_mib} MiB, not of "
            f"{shape.vcpus} and {shape.memory_mib}; order that, or build another package"
        )
