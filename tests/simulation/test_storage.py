"""A guest goes into the store and comes out of it, on an unreliable wire, with crashes at every step: who has it?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

import pytest

from tests.simulation.handover import Message, P
from tests.simulation.monitors import Broken
from tests.simulation.storage import Storage, live
from tests.simulation.test_migration import (
    ResumesByItself,
    RunsWhenItHoldsAll,
    TakesBackBeforeItIsAborted,
    WipesWhenPaused,
)
from workers.domain.migration import Role, Said
from workers.domain.runner import RunnerState
from workers.host import source as src
from workers.host.source import Source, SourceCommand
from workers.planning import parking
from workers.planning.parking import ParkSeen, ParkStep

STORIES = 500
STEPS = 240


def tell_stories(make: Callable[[Random], Storage], stories: int = STORIES) -> Counter[str]:
    seen: Counter[str] = Counter()
    for seed in range(stories):
        storage = make(Random(seed))
        try:
            seen += live(storage, STEPS)
        except Broken as error:
            raise Broken(f"seed {seed}: {error}") from error
        seen[f"park:{storage.park.row.phase}"] += 1
        seen[f"resumes:{len(storage.resumes)}"] += 1
        seen["cancelled"] += storage.runner.state is RunnerState.STOPPING
    return seen


def test_a_guest_is_in_one_place_whatever_breaks() -> None:
    """Never do two copies run, never is a guest destroyed that somebody needs, never does one lie there for ever."""
    seen = tell_stories(Storage)
    for what in ("park:finished", "park:aborted", "resumes:0", "resumes:1", "resumes:2", "cancelled"):
        assert seen[what], f"no story came to {what}"
    for phase in P:
        assert seen[f"row:{phase}"], f"no story visited a row in {phase}"


def test_without_faults_every_guest_is_parked_and_goes_on() -> None:
    for seed in range(100):
        storage = Storage(Random(seed))
        for leg in storage.legs:
            leg.healed = True
        live(storage, 0, cancels=False)
        assert storage.park.row.phase is P.FINISHED
        assert [leg.row.phase for leg in storage.resumes] == [P.FINISHED]
        assert storage.resumes[0].at_target.guest_runs
        assert storage.park.row.key is None


# ---------------------------------------------------------------- planted faults: each must be caught


class SaysPausedBeforeAllIsStored(Source):
    """Says PAUSED when the monitor has completed, and does not wait for the parts."""

    def receive(self, event: src.SourceEvent) -> tuple[SourceCommand, ...]:
        commands = super().receive(event)
        return (*commands, SourceCommand.SAY_PAUSED) if SourceCommand.SWITCH_OVER in commands else commands


def ends_too_early(seen: ParkSeen) -> ParkStep:
    """Destroys the objects while somebody is taking the guest out."""
    step = parking.next_step(seen)
    is_wanted = seen.runner is not None and seen.runner.migration_id is not None
    return ParkStep.END if step is ParkStep.WAIT and seen.row.phase is P.COMMITTED and is_wanted else step


def plans_twice(seen: ParkSeen) -> ParkStep:
    """Plans another resume while one is not decided."""
    step = parking.next_step(seen)
    return ParkStep.RESUME if step is ParkStep.WAIT and seen.row.phase is P.COMMITTED else step


PLANTED: dict[str, Callable[[Random], Storage]] = {
    "committed without a look at what is there": lambda rng: Storage(
        rng, source_type=SaysPausedBeforeAllIsStored, looks=False
    ),
    "destroyed while it is taken out": lambda rng: Storage(rng, next_step=ends_too_early),
    "two hosts are asked at once": lambda rng: Storage(rng, next_step=plans_twice),
    "source resumes by itself": lambda rng: Storage(rng, source_type=ResumesByItself),
    "source wipes when paused": lambda rng: Storage(rng, source_type=WipesWhenPaused),
    "target runs when it holds all": lambda rng: Storage(rng, target_type=RunsWhenItHoldsAll),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_caught(fault: str) -> None:
    with pytest.raises(Broken, match="seed"):
        tell_stories(PLANTED[fault])


def tell_of_a_late_word(source_type: type[Source]) -> Storage:
    """The source's daemon ends with PAUSED on the wire and begins again; its word arrives after that, and counts."""
    storage = Storage(Random(0), source_type=source_type)
    park, side = storage.park, storage.park.sides[Role.SOURCE]
    park.healed = True
    word = Message(Role.SOURCE, side.incarnation, Said.PAUSED)
    while word not in park.wire:
        for action in list(park.actions()):
            if word not in park.wire:
                action()
    park.wire.clear()
    park.crash(side)
    park.restart(side)
    question = Message(Role.SOURCE, side.incarnation)
    park.send(question)
    park.deliver(question)
    park.deliver(park.wire[0])
    while side.events:
        park.hand_over(side)
    park.wire.append(word)
    park.deliver(word)
    storage.control()
    storage.check()
    return storage


def test_a_park_whose_word_comes_late_goes_on() -> None:
    storage = tell_of_a_late_word(Source)
    assert storage.park.row.phase is P.COMMITTED
    live(storage, 0, cancels=False)
    assert [leg.at_target.guest_runs for leg in storage.resumes] == [True]


def test_a_source_that_takes_back_what_it_has_said_is_caught() -> None:
    """By chance this hardly ever happens, so it is written down."""
    with pytest.raises(Broken, match=r"two copies run|committed away"):
        tell_of_a_late_word(TakesBackBeforeItIsAborted)
