"""One migration as a world: the row, two daemons with the production protocol, two monitors, and an unreliable wire.

    reconciler ──orders──▶ daemon(Source) ──commands──▶ SourceMonitor
        │                    │  ▲ events ◀───────────────────┘ │ memory
        ▼                    ▼  │                              ▼
       ROW ◀══ requests ══ WIRE ══ answers ══▶ daemon(Target) ◀─▶ TargetMonitor

The monitors have QEMU's habits: a source whose migration fails before its end
runs again by itself; cancelling may come too late; the target announces the guest
before anything is committed; the source may report completion before the target
has loaded the state, and the target may still fail then.

Requests and answers get lost, doubled and late; daemons crash between any two
commands and come back with their journal alone; hosts die. Who chooses is `rng`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random

from tests.simulation.monitors import Broken, SourceMonitor, TargetMonitor
from workers.domain import migration as law
from workers.domain.errors import SpotError
from workers.domain.migration import Migration, MigrationPhase, Ports, Role, Said
from workers.domain.names import HostId, MigrationId, RunnerId
from workers.host import source as src
from workers.host import target as tgt
from workers.host.source import Source, SourceCommand, SourceState
from workers.host.target import Target, TargetCommand, TargetState

P = MigrationPhase
START = datetime(2026, 1, 1, tzinfo=UTC)
STEP = timedelta(milliseconds=20)
CRASHES_MAX = 3


@dataclass
class Message:
    """On the wire: a read (said is None) or a word, or its answer on the way back."""

    role: Role
    incarnation: int
    said: Said | None = None
    answer: tuple[MigrationPhase, bool] | None = None


@dataclass
class Side:
    """One host: its daemon's memory is lost in a crash, its journal and its monitor are not."""

    role: Role
    incarnation: int = 0
    up: bool = True
    alive: bool = True
    role_written: bool = False
    owed: Said | None = None
    """A word that is repeated until it was answered."""
    events: list[src.SourceEvent | tgt.TargetEvent] = field(default_factory=list)


SAYS = {"SAY_PAUSED": Said.PAUSED, "SAY_COMMITTED": Said.COMMITTED, "SAY_ABORTED": Said.ABORTED}
OWES = {"SAY_WIPED": Said.WIPED, "SAY_RUNNING": Said.RUNNING}


@dataclass
class World:
    """Everything, and the promises that hold at every moment."""

    rng: Random
    source_type: type[Source] = Source
    target_type: type[Target] = Target
    decide: Callable[[Migration, Role, Said, datetime], Migration] = law.decide
    aborted: Callable[..., Migration] = law.aborted
    seen: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.now, self.crashes, self.healed = START, 0, False
        self.row = Migration(
            id=MigrationId("m"),
            runner_id=RunnerId("r"),
            source_id=HostId("a"),
            target_id=HostId("b"),
            phase=P.PLANNED,
            epoch=2,
            planned_at=START,
            deadline_at=START + timedelta(minutes=2),
        )
        self.wire: list[Message] = []
        self.sides = {role: Side(role) for role in Role}
        self.at_source = SourceMonitor(self.rng, self._event_for(Role.SOURCE))
        self.at_target = TargetMonitor(self._event_for(Role.TARGET))
        self.source: Source | None = None
        self.target: Target | None = None

    # ---------------------------------------------------------------- what may happen next

    def actions(self) -> Iterator[Callable[[], None]]:
        """Everything that may happen by itself now."""
        yield self.reconcile
        for message in list(self.wire):
            yield partial(self.deliver, message)
        for side in self.sides.values():
            yield from self._of_side(side)
        yield self.at_source.go_on
        if self.at_source.state == "postmigrate" and self.at_target.state == "incoming":
            yield self.at_target.load

    def _of_side(self, side: Side) -> Iterator[Callable[[], None]]:
        if side.alive and not side.up:
            yield lambda: self.restart(side)
        if not side.up:
            return
        if side.events:
            yield lambda: self.hand_over(side)
        if self._machine(side) is not None:
            yield lambda: self.send(Message(side.role, side.incarnation))
            if side.owed:
                yield lambda: self.send(Message(side.role, side.incarnation, side.owed))

    def faults(self) -> Iterator[Callable[[], None]]:
        for message in list(self.wire):
            yield partial(self.wire.remove, message)
            yield partial(self.wire.append, replace(message))
        yield self.at_source.fail
        yield self.at_target.fail
        yield self.give_up
        for side in self.sides.values():
            if side.up and self._machine(side) is not None:
                yield partial(self.tell_limit, side)
                yield partial(self.tell_silent, side)
            if side.up and self.crashes < CRASHES_MAX:
                yield partial(self.crash, side)
            if side.alive and self.rng.random() < 0.05:
                yield partial(self.die, side)

    # ---------------------------------------------------------------- the control plane

    def reconcile(self) -> None:
        """Move the row as the control plane's reconciler does."""
        source, target = self.sides[Role.SOURCE], self.sides[Role.TARGET]
        if not (source.alive and target.alive):
            self.row = self.aborted(self.row, "a host is gone", source_is_gone=not source.alive)
        if self.row.phase is P.PLANNED and target.up and self.target is None and not target.role_written:
            self.target = self.target_type()
            self._tell(target, tgt.ReceiveOrdered())
        elif self.row.phase is P.PLANNED and self.target and self.target.state is TargetState.RECEIVING:
            self.row = replace(self.row, phase=P.RECEIVING, ports=Ports(1, 2))
        elif self.row.phase is P.RECEIVING:
            self.row = replace(self.row, phase=P.COPYING)
        elif self.row.phase is P.COPYING and source.up and self.source is None and not source.role_written:
            self.source = self.source_type()
            self._tell(source, src.SendOrdered())

    def give_up(self) -> None:
        """The deadline is too near for the control plane's taste."""
        if self.row.phase is not P.PLANNED or self.rng.random() < 0.1:
            gone = not self.sides[Role.SOURCE].alive
            self.row = self.aborted(self.row, "too late", source_is_gone=gone)

    # ---------------------------------------------------------------- the wire

    def send(self, message: Message) -> None:
        if not any(m.answer is None and m == message for m in self.wire):
            self.wire.append(message)

    def deliver(self, message: Message) -> None:
        self.wire.remove(message)
        side = self.sides[message.role]
        if message.answer is None:
            self.row = law.seen(self.row, message.role, self.now)
            if message.said is not None:
                self.row = self.decide(self.row, message.role, message.said, self.now)
            self.wire.append(replace(message, answer=(self.row.phase, law.may_pause(self.row, self.now))))
        elif side.up and message.incarnation == side.incarnation:
            if message.said is not None and side.owed is message.said:
                side.owed = None
            phase, may_pause = message.answer
            self._tell(side, src.RowRead(phase, may_pause) if side.role is Role.SOURCE else tgt.RowRead(phase))

    # ---------------------------------------------------------------- the daemons

    def hand_over(self, side: Side) -> None:
        self._tell(side, side.events.pop(0))

    def tell_limit(self, side: Side) -> None:
        self._tell(side, src.LimitReached() if side.role is Role.SOURCE else tgt.LimitReached())

    def tell_silent(self, side: Side) -> None:
        if side.role is Role.SOURCE:
            self._tell(side, src.RowSilent())

    def crash(self, side: Side) -> None:
        self.crashes += 1
        side.up, side.incarnation, side.owed = False, side.incarnation + 1, None
        side.events.clear()
        if side.role is Role.SOURCE:
            self.source = None
        else:
            self.target = None

    def die(self, side: Side) -> None:
        self.crash(side)
        side.alive = False
        if side.role is Role.SOURCE:
            self.at_source.state = "dead"
            self.at_target.fail()
        else:
            self.at_target.state = "dead"
            self.at_source.fail()
        side.events.clear()

    def restart(self, side: Side) -> None:
        side.up = True
        if not side.role_written:
            return
        if side.role is Role.SOURCE:
            self.source = self.source_type(SourceState.RECOVERED)
            return
        self.target = self.target_type(TargetState.RECEIVING)
        found: dict[str, tgt.TargetEvent] = {"held": tgt.MemoryHeld(), "running": tgt.GuestRuns()}
        if self.at_target.state in found:
            self._tell(side, found[self.at_target.state])
        elif self.at_target.state in {"none", "dead"}:
            self._tell(side, tgt.MonitorFailed("no monitor after the restart"))

    def _machine(self, side: Side) -> Source | Target | None:
        return self.source if side.role is Role.SOURCE else self.target

    def _event_for(self, role: Role) -> Callable[[src.SourceEvent | tgt.TargetEvent], None]:
        def tell(event: src.SourceEvent | tgt.TargetEvent) -> None:
            if self.sides[role].up:
                self.sides[role].events.append(event)

        return tell

    def _tell(self, side: Side, event: src.SourceEvent | tgt.TargetEvent) -> None:
        machine = self._machine(side)
        if machine is None:
            return
        commands = machine.receive(event)  # type: ignore[arg-type]  # each side gets its own events, see the callers
        self.seen[f"{side.role}:{machine.state.name}"] += 1
        for command in commands:
            if not self.healed and self.crashes < CRASHES_MAX and self.rng.random() < 0.03:
                self.crash(side)
                return
            self._carry_out(side, command)

    def _carry_out(self, side: Side, command: SourceCommand | TargetCommand) -> None:
        if command.name == "WRITE_ROLE":
            side.role_written = True
        elif command.name in SAYS:
            self.send(Message(side.role, side.incarnation, SAYS[command.name]))
        elif command.name in OWES:
            side.owed = OWES[command.name]
        elif isinstance(command, SourceCommand):
            self.at_source.carry_out(command)
        else:
            self.at_target.carry_out(command)

    # ---------------------------------------------------------------- the promises

    def check(self) -> None:
        """Raise `Broken` if a promise is broken at this moment."""
        self.seen[f"row:{self.row.phase}"] += 1
        forward = self.row.phase in {P.COMMITTED, P.FINISHED}
        if self.at_source.guest_runs and self.at_target.guest_runs:
            raise Broken("two copies run")
        if self.at_target.guest_runs and not forward:
            raise Broken("the target runs what was not committed to it")
        if self.at_source.guest_runs and forward:
            raise Broken("the source runs what was committed away")
        if self.at_target.attached and not forward:
            raise Broken("the target's tap joined the network before the commit")
        if self.at_target.announced_attached:
            raise Broken("the network heard of the guest before the commit")

    def check_end(self) -> None:
        """Raise `Broken` unless, with everything mended, exactly the owner runs the guest."""
        source, target = self.sides[Role.SOURCE], self.sides[Role.TARGET]
        match self.row.phase:
            case P.ABORTED:
                # The source's own monitor never dies in these stories, so whoever lives has the guest.
                if source.alive and not self.at_source.guest_runs:
                    raise Broken(f"aborted, and the source's guest is {self.at_source.state}")
                if target.alive and self.at_target.state not in {"none", "dead"}:
                    raise Broken(f"aborted, and the target is still {self.at_target.state}")
            case P.COMMITTED | P.FINISHED:
                if source.alive and self.at_source.state != "dead":
                    raise Broken(f"committed, and the source is still {self.at_source.state}")
                if target.alive and not self.at_target.guest_runs and not self.at_target.broke:
                    raise Broken(f"committed, and the target's guest is {self.at_target.state}")
                if self.row.phase is P.COMMITTED and source.alive and self.at_target.guest_runs:
                    raise Broken("both sides are done and the row is not finished")
            case _:
                if source.alive or target.alive:
                    raise Broken(f"undecided for ever in {self.row.phase}: {self.source} {self.target}")


def live(world: World, steps: int) -> None:
    """Let things happen by chance, then mend everything and let it come to rest."""
    try:
        trouble, calm = world.rng.choice((0.0, 0.02, 0.1, 0.3)), world.rng.randrange(steps) if steps else 0
        for step in range(steps):
            world.now += STEP
            kind = world.faults() if step >= calm and world.rng.random() < trouble else world.actions()
            world.rng.choice(list(kind))()
            world.check()
        world.healed = True
        for turn in range(60):
            if turn == 40:  # whoever still waits for a peer that gave up long ago
                for side in world.sides.values():
                    if side.up:
                        world.tell_limit(side)
            for action in list(world.actions()):
                world.now += STEP / 10
                action()
                world.check()
    except SpotError as error:
        raise Broken(str(error)) from error
    world.check_end()
