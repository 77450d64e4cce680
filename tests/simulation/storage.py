"""A park and the resumes that follow it as a world: production protocols at every host, a store between them.

    host a ─Source─▶ PARK row ─▶ store ─▶ RESUME row ─Target─▶ host b        each leg is a World of handover.py in which
                        ▲                     ▲                              the store takes the place of one side
                        └── control plane ────┘  looks, commits, plans, ends

What the store and the control plane do is decided by `planning.parking` and the law of `domain.migration`; who crashes,
what gets lost and what comes next is chosen by `rng`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random
from typing import Any, cast

from tests.contract.store_rows import a_runner
from tests.simulation.handover import STEP, Message, P, World
from tests.simulation.monitors import Broken, SourceMonitor
from workers.domain import migration as law
from workers.domain.errors import SpotError
from workers.domain.migration import Migration, Role
from workers.domain.names import HostId, MigrationId
from workers.domain.runner import RunnerState
from workers.host import source as src
from workers.host import target as tgt
from workers.host.source import Source
from workers.host.target import Target, TargetState
from workers.planning import parking
from workers.planning.parking import ParkSeen, ParkStep

UNDECIDED = {P.PLANNED, P.RECEIVING, P.COPYING, P.PAUSED}
RESUMES_MAX = 12
# How often the control plane has its turn: a slow one leaves guests standing, and whoever is impatient in temptation.
CONTROL_PACES = (0.2, 0.01)


class DepositingMonitor(SourceMonitor):
    """QEMU completes first; what its driver calls completed comes when all is in the store, or when that fails."""

    is_stored = False

    def go_on(self) -> None:
        if self.state == "switching":
            self.state = "postmigrate"
        elif self.state == "postmigrate" and not self.is_stored:
            self.is_stored = True
            self.tell(src.MemoryCompleted())
        else:
            super().go_on()

    def fail(self) -> None:
        if self.state == "postmigrate" and not self.is_stored:
            self.tell(src.MonitorFailed("a part could not be stored"))
        else:
            super().fail()


class ParkLeg(World):
    """From host a into the store."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.row = replace(self.row, target_id=None, key="00" * 32)
        self.at_source = DepositingMonitor(self.rng, self._event_for(Role.SOURCE))
        store = self.sides[Role.TARGET]
        store.up = store.alive = False
        self.looks = True

    def reconcile(self) -> None:
        """Give the order, and look into the store once the source has said PAUSED."""
        source = self.sides[Role.SOURCE]
        if not source.alive and self.row.phase in UNDECIDED - {P.PAUSED}:
            self.row = self.aborted(self.row, "the source is lost", source_is_gone=True)
        if self.row.phase in {P.PLANNED, P.RECEIVING}:
            self.row = replace(self.row, phase=P.RECEIVING if self.row.phase is P.PLANNED else P.COPYING)
        elif self.row.phase is P.COPYING and source.up and self.source is None and not source.role_written:
            self.source = self.source_type()
            self._tell(source, src.SendOrdered())

    def look(self) -> None:
        """Let the store decide what the row says."""
        if self.looks and not self.is_whole:
            self.row = self.aborted(self.row, "it is not whole", source_is_gone=False)
        else:
            self.row = law.stored(self.row, self.now)

    @property
    def is_whole(self) -> bool:
        return cast("DepositingMonitor", self.at_source).is_stored

    def give_up(self) -> None:
        if self.row.phase is not P.PAUSED or self.sides[Role.SOURCE].alive:
            super().give_up()

    def deliver(self, message: Message) -> None:
        super().deliver(message)
        if self.row.phase is P.PAUSED and self.row.manifest is None:
            self.row = replace(self.row, manifest="its hash")


class ResumeLeg(World):
    """From the store to another host."""

    storage: Storage

    def __post_init__(self) -> None:
        super().__post_init__()
        store = self.sides[Role.SOURCE]
        store.up = store.alive = False
        self.at_source.state = "dead"

    def actions(self) -> Iterator[Callable[[], None]]:
        yield from super().actions()
        if self.at_target.state == "incoming" and self.storage.has_objects:
            yield self.at_target.load

    def faults(self) -> Iterator[Callable[[], None]]:
        yield from super().faults()
        if self.at_target.state == "incoming" and not self.storage.has_objects:
            yield self.at_target.fail

    def reconcile(self) -> None:
        """Give the order, and say PAUSED in the store's name."""
        target = self.sides[Role.TARGET]
        if not target.alive:
            self.row = self.aborted(self.row, "the target is lost", source_is_gone=False)
        if self.row.phase is P.PLANNED and target.up and self.target is None and not target.role_written:
            self.target = self.target_type()
            self._tell(target, tgt.ReceiveOrdered())
        elif self.row.phase is P.PLANNED and self.target and self.target.state is not TargetState.PREPARING:
            self.row = replace(self.row, phase=P.RECEIVING)
        elif self.row.phase is P.RECEIVING:
            self.row = replace(self.row, phase=P.COPYING)
        elif self.row.phase is P.COPYING:
            self.row = law.taken_out(self.row)

    def give_up(self) -> None:
        if self.row.phase is not P.PLANNED or self.rng.random() < 0.1:
            self.row = self.aborted(self.row, "too late", source_is_gone=False)


class Storage:
    """The runner's row, its park, and every attempt to take it out again."""

    def __init__(
        self,
        rng: Random,
        source_type: type[Source] = Source,
        target_type: type[Target] = Target,
        next_step: Callable[[ParkSeen], ParkStep] = parking.next_step,
        *,
        looks: bool = True,
    ) -> None:
        self.rng, self.target_type, self.next_step = rng, target_type, next_step
        self.park = ParkLeg(rng, source_type=source_type)
        self.park.looks = looks
        self.resumes: list[ResumeLeg] = []
        self.runner = replace(
            a_runner(1, "a"), host_id=HostId("a"), epoch=self.park.row.epoch - 1, migration_id=self.park.row.id
        )
        self.has_objects = True
        self.settled: dict[MigrationId, law.MigrationPhase] = {}

    @property
    def legs(self) -> list[World]:
        return [self.park, *self.resumes]

    # ---------------------------------------------------------------- the control plane

    def control(self) -> None:
        """Do what the reconciler of parks does, as its plan says."""
        self.settle()
        match self.next_step(ParkSeen(self.park.row, self.runner)):
            case ParkStep.LOOK:
                self.park.look()
            case ParkStep.RESUME if len(self.resumes) < RESUMES_MAX:
                self.plan()
            case ParkStep.END:
                self.end()
            case _:
                pass
        self.settle()

    def plan(self) -> None:
        number = len(self.resumes)
        leg = ResumeLeg(self.rng, target_type=self.target_type)
        leg.storage = self
        leg.now = self.park.now
        leg.row = replace(
            leg.row,
            id=MigrationId(f"resume-{number}"),
            source_id=None,
            target_id=HostId(f"b{number}"),
            epoch=self.runner.epoch + 1,
            park_id=self.park.row.id,
            planned_at=self.park.now,
        )
        self.resumes.append(leg)
        self.runner = replace(self.runner, migration_id=leg.row.id)

    def end(self) -> None:
        self.has_objects = False
        self.park.row = law.ended(law.keyless(self.park.row))

    def cancel_job(self) -> None:
        """Its job is not needed any more: what is undecided is given up, as the reconciler of runners does."""
        self.runner = replace(self.runner, state=RunnerState.STOPPING)
        for leg in self.resumes:
            leg.row = law.aborted(leg.row, "not needed", source_is_gone=False)

    def settle(self) -> None:
        """Give the runner to whom each decision gives it, in the transaction of that decision."""
        for leg in self.legs:
            row = leg.row
            if self.settled.get(row.id) is not row.phase:
                self.settled[row.id] = row.phase
                self._settle(row)

    def _settle(self, row: Migration) -> None:
        if row.phase is P.COMMITTED and self.runner.epoch < row.epoch:
            self.runner = replace(self.runner, **cast("dict[str, Any]", law.owner_after(row)))
        elif row.phase is P.ABORTED and self.runner.migration_id == row.id:
            self.runner = replace(self.runner, migration_id=None)

    # ---------------------------------------------------------------- the promises

    def check(self) -> None:
        """Raise `Broken` if a promise is broken at this moment."""
        self.settle()
        for leg in self.legs:
            leg.check()
        running = [self.park.at_source.guest_runs, *(leg.at_target.guest_runs for leg in self.resumes)]
        if sum(running) > 1:
            raise Broken("two copies run")
        if any(running[1:]) and self.park.row.phase not in {P.COMMITTED, P.FINISHED}:
            raise Broken("a guest was taken out of a park that was never committed")
        committed = [leg for leg in self.resumes if leg.row.phase in {P.COMMITTED, P.FINISHED}]
        if len(committed) > 1:
            raise Broken("two hosts were given the same guest")
        is_needed = self.runner.is_parked and self.runner.state is RunnerState.BUSY
        if is_needed and self.park.row.phase is P.COMMITTED and not self.has_objects:
            raise Broken("the objects of a guest that lies in the store were destroyed")

    def check_end(self) -> None:
        """Raise `Broken` unless, with everything mended, the guest is where its row says, or was given up."""
        for leg in self.legs:
            leg.check_end()
        if self.park.row.phase in {P.COMMITTED, P.FINISHED} and self.runner.state is RunnerState.BUSY:
            if self.runner.is_parked:
                raise Broken("a guest lies in the store for ever")
            if not self.has_objects and self.park.row.key is not None:
                raise Broken("the key outlives the park")
        if self.park.row.phase is P.FINISHED and self.has_objects:
            raise Broken("the objects outlive the park")


def live(storage: Storage, steps: int, *, cancels: bool = True) -> Counter[str]:
    """Let things happen by chance, then mend everything and let it come to rest."""
    rng = storage.rng
    try:
        trouble, calm = rng.choice((0.0, 0.02, 0.1, 0.3)), rng.randrange(steps) if steps else 0
        pace = rng.choice(CONTROL_PACES)
        for step in range(steps):
            leg = rng.choice(storage.legs)
            leg.now += STEP
            if rng.random() < pace:
                storage.control()
            elif cancels and rng.random() < 0.0005:
                storage.cancel_job()
            else:
                kind = leg.faults() if step >= calm and rng.random() < trouble else leg.actions()
                rng.choice(list(kind))()
            storage.check()
        _mend(storage)
    except SpotError as error:
        raise Broken(str(error)) from error
    storage.check_end()
    return sum((leg.seen for leg in storage.legs), Counter())


def _mend(storage: Storage) -> None:
    for turn in range(160):
        storage.control()
        storage.check()
        for leg in storage.legs:
            leg.healed = True
            if turn % 40 == 39:  # whoever still waits for a peer, or for parts, that will never come
                for side in leg.sides.values():
                    if side.up:
                        leg.tell_limit(side)
            for action in list(leg.actions()):
                leg.now += STEP / 10
                action()
                storage.check()
