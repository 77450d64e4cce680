"""Two hosts, one row, an unreliable wire: who runs the guest?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from random import Random

import pytest

from tests.simulation.handover import World, live
from tests.simulation.monitors import Broken
from workers.domain import migration as law
from workers.domain.migration import Migration, MigrationPhase, Role, Said
from workers.host import source as src
from workers.host import target as tgt
from workers.host.source import Source, SourceCommand, SourceState
from workers.host.target import Target, TargetCommand, TargetState

STORIES = 3000
STEPS = 120


def tell_stories(make: Callable[[Random], World], stories: int = STORIES) -> Counter[str]:
    seen: Counter[str] = Counter()
    for seed in range(stories):
        world = make(Random(seed))
        try:
            live(world, steps=STEPS)
        except Broken as error:
            raise Broken(f"seed {seed}: {error}") from error
        seen += world.seen
    return seen


def test_exactly_one_host_runs_the_guest_whatever_breaks() -> None:
    """At no moment do two copies run, and when everything is mended the row's owner runs it."""
    seen = tell_stories(World)
    for phase in MigrationPhase:
        assert seen[f"row:{phase}"], f"no story visited the row in {phase}"
    for role, states in ((Role.SOURCE, SourceState), (Role.TARGET, TargetState)):
        for state in set(states) - {SourceState.NEW, TargetState.NEW, SourceState.RECOVERED}:
            assert seen[f"{role}:{state.name}"], f"no story visited {role} {state.name}"


def test_without_faults_every_migration_is_finished() -> None:
    """The promises would also be kept by a migration that never succeeds."""
    for seed in range(200):
        world = World(Random(seed))
        world.healed = True
        live(world, steps=0)
        assert world.row.phase is MigrationPhase.FINISHED
        assert world.at_target.guest_runs


MINUTES = 10


def _committed(world: World) -> bool:
    """Let a migration go to its commit, and no further."""
    for _ in range(400):
        if world.row.phase is MigrationPhase.COMMITTED:
            return True
        world.rng.choice(list(world.actions()))()
        world.check()
    return world.row.phase is MigrationPhase.COMMITTED


def _cut_off(world: World) -> None:
    """Ten minutes in which nothing reaches the row, and everything else that can befall a source befalls it."""
    source = world.sides[Role.SOURCE]
    for second in range(MINUTES * 60):
        world.wire.clear()
        world.crashes = 0
        befalls = [world.at_source.fail, world.at_source.go_on]
        if source.up:
            befalls += [lambda: world.tell_limit(source), lambda: world.tell_silent(source)]
            befalls += [lambda: world.crash(source)] if second % 20 == 0 else []
            befalls += [lambda: world.hand_over(source)] if source.events else []
        else:
            befalls += [lambda: world.restart(source)]
        world.rng.choice(befalls)()
        world.check()


def test_a_source_without_a_control_plane_never_runs_what_was_committed() -> None:
    tell_silent_stories(World)


def tell_silent_stories(make: Callable[[Random], World]) -> None:
    told = 0
    for seed in range(300):
        world = make(Random(seed))
        if _committed(world) and world.at_source.state == "postmigrate":
            told += 1
            _cut_off(world)
            world.healed = True
            live(world, steps=0)
            assert world.row.phase is MigrationPhase.FINISHED
            assert world.at_target.guest_runs
    assert told > 200, "hardly a story got as far as the commit"


# ---------------------------------------------------------------- planted faults: each must be caught


class ResumesByItself(Source):
    """Takes the guest back when the pause gets long, without asking the row."""

    def _too_long(self) -> tuple[SourceCommand, ...]:
        if self.state is SourceState.PAUSED:
            return self._enter(SourceState.RESUMING, SourceCommand.RESUME)
        return super()._too_long()


class SaysPausedTooEarly(Source):
    """Says PAUSED when QEMU has paused but not completed, so that QEMU may still run it again by itself."""

    def receive(self, event: src.SourceEvent) -> tuple[SourceCommand, ...]:
        commands = super().receive(event)
        return (*commands, SourceCommand.SAY_PAUSED) if SourceCommand.SWITCH_OVER in commands else commands


class TrustsTheMonitorAfterRestart(Source):
    """Lets a paused guest run after a restart because the monitor is paused."""

    def _read_after_restart(self, phase: MigrationPhase) -> tuple[SourceCommand, ...]:
        if phase is MigrationPhase.PAUSED:
            return self._enter(SourceState.RESUMING, SourceCommand.RESUME)
        return super()._read_after_restart(phase)


class WipesWhenPaused(Source):
    """Wipes as soon as everything was sent."""

    def _read_while_paused(self, phase: MigrationPhase) -> tuple[SourceCommand, ...]:
        if phase is MigrationPhase.PAUSED:
            return self._enter(SourceState.WIPING, SourceCommand.WIPE)
        return super()._read_while_paused(phase)


class TakesBackBeforeItIsAborted(Source):
    """Backing out of a completed stream, it does not wait for the row."""

    def _take_back_if_aborted(self) -> tuple[SourceCommand, ...]:
        if self._stream_ended:
            return self._enter(SourceState.RESUMING, SourceCommand.RESUME)
        return ()


class RunsWhenItHoldsAll(Target):
    """Lets the guest run as soon as it is all there."""

    def _went_on(self, event: tgt.TargetEvent) -> tuple[TargetCommand, ...]:
        if isinstance(event, tgt.MemoryHeld) and self.state is TargetState.RECEIVING:
            return self._enter(
                TargetState.STARTING, TargetCommand.SAY_COMMITTED, TargetCommand.ATTACH, TargetCommand.RUN
            )
        return super()._went_on(event)


class RunsOnItsOwnWord(Target):
    """Lets the guest run once it has said COMMITTED and read PAUSED, without having read COMMITTED."""

    def _read_while_holding(self, phase: MigrationPhase) -> tuple[TargetCommand, ...]:
        if phase is MigrationPhase.PAUSED:
            return self._enter(
                TargetState.STARTING, TargetCommand.SAY_COMMITTED, TargetCommand.ATTACH, TargetCommand.RUN
            )
        return super()._read_while_holding(phase)


class AttachesEarly(Target):
    """Puts the tap on the network while it still receives, so the monitor's announcement gets out."""

    def _went_on(self, event: tgt.TargetEvent) -> tuple[TargetCommand, ...]:
        commands = super()._went_on(event)
        return (*commands, TargetCommand.ATTACH) if isinstance(event, tgt.Listening) else commands


class ForgetsTheGuest(Target):
    """Wipes what it holds when it has waited for long."""

    def _too_long(self) -> tuple[TargetCommand, ...]:
        if self.state is TargetState.HOLDING:
            return self._enter(TargetState.WIPING, TargetCommand.WIPE)
        return super()._too_long()


def lets_abort_win_after_commit(row: Migration, role: Role, said: Said, now: datetime) -> Migration:
    if said is Said.ABORTED and row.phase is MigrationPhase.COMMITTED:
        return replace(row, phase=MigrationPhase.ABORTED)
    return law.decide(row, role, said, now)


def commits_from_copying(row: Migration, role: Role, said: Said, now: datetime) -> Migration:
    if said is Said.COMMITTED and row.phase is MigrationPhase.COPYING:
        return replace(row, phase=MigrationPhase.COMMITTED)
    return law.decide(row, role, said, now)


PLANTED: dict[str, Callable[[Random], World]] = {
    "source resumes by itself": lambda rng: World(rng, source_type=ResumesByItself),
    "source says paused too early": lambda rng: World(rng, source_type=SaysPausedTooEarly),
    "source trusts the monitor after a restart": lambda rng: World(rng, source_type=TrustsTheMonitorAfterRestart),
    "source wipes when paused": lambda rng: World(rng, source_type=WipesWhenPaused),
    "source takes back before it is aborted": lambda rng: World(rng, source_type=TakesBackBeforeItIsAborted),
    "target runs when it holds all": lambda rng: World(rng, target_type=RunsWhenItHoldsAll),
    "target runs on its own word": lambda rng: World(rng, target_type=RunsOnItsOwnWord),
    "target attaches early": lambda rng: World(rng, target_type=AttachesEarly),
    "target forgets the guest": lambda rng: World(rng, target_type=ForgetsTheGuest),
    "abort wins after commit": lambda rng: World(rng, decide=lets_abort_win_after_commit),
    "commit from copying": lambda rng: World(rng, decide=commits_from_copying),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_caught(fault: str) -> None:
    with pytest.raises(Broken, match="seed"):
        tell_stories(PLANTED[fault])


def test_a_source_that_loses_its_patience_after_the_commit_is_caught() -> None:
    with pytest.raises(Broken, match=r"two copies run|committed away"):
        tell_silent_stories(PLANTED["source resumes by itself"])
