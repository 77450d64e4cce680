"""Whose jobs the administrator does not want served: none of theirs runs, however it came to be known."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.fakes.world import World
from tests.simulation.test_labels import row_of, running
from workers.domain.events import JobAction
from workers.domain.installation import Guests
from workers.domain.job import JobState

MINUTE = timedelta(minutes=1)
LISTS = [Guests(denied=frozenset({"octo"})), Guests(denied=frozenset({"1"})), Guests(allowed=frozenset({"hexa"}))]


def start_with(world: World, served: Guests) -> None:
    """Let the administrator write the lists, and start the workers again."""
    world.served = served
    world.start_workers()


@pytest.mark.parametrize("served", LISTS)
def test_what_is_found_after_a_start_is_not_taken_in(served: Guests) -> None:
    world = World()
    start_with(world, served)
    world.github.missed = {JobAction.QUEUED}
    job = world.github.queue(1)
    for _ in range(10 * 60):
        world.tick()
    assert world.trouble.of("github", "repositories")
    assert not world.store.facts_of(job)
    assert not world.store.jobs.rows
    assert not world.trouble.of("github", "unfinished_runs"), "there is nothing to ask for"


@pytest.mark.parametrize("served", LISTS)
@pytest.mark.parametrize("is_waiting", [False, True])
def test_what_was_taken_in_before_is_not_run_and_says_why(served: Guests, *, is_waiting: bool) -> None:
    world = World()
    start_with(world, served)
    job = world.github.queue(1)
    if is_waiting:
        world.github.hold_back(job)
        world.tick()
        world.github.approve(job)
    for _ in range(5 * 60):
        world.tick()
    row = row_of(world, job)
    assert row.state is JobState.QUEUED
    assert "octo (installation 1) is" in str(row.unserved)
    assert not world.store.runners.rows
    assert not world.github.remarks, "whoever is not served is told nothing"
    world.github.missed = {JobAction.QUEUED, JobAction.COMPLETED}  # of theirs the receiver keeps no facts
    other = world.github.queue(2)
    world.github.cancel(job)
    world.until(lambda: row_of(world, job).end is not None, 10 * MINUTE)
    assert not world.store.facts_of(other), "it was listed beside the one that is known"


def test_what_runs_already_is_let_finish_and_lists_without_them_let_others_in() -> None:
    world = World()
    running(world, ("spot-runner",))
    start_with(world, LISTS[0])
    world.until(lambda: world.github.conclusions(1) == ["success"], 10 * MINUTE)
    late = world.github.queue(2)
    for _ in range(60):
        world.tick()
    assert row_of(world, late).state is JobState.QUEUED
    start_with(world, Guests(denied=frozenset({"hexa"})))
    world.until(world.is_quiet, 30 * MINUTE)
    world.check_nothing_is_left()
