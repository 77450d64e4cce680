"""Runners that are registered with a whole organization: on a fake clock, in a world in memory."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.fakes.github import RemoteGroup
from tests.fakes.world import MARK, POLICY, Faults, World
from tests.simulation.test_demand import is_in_progress, settle, told
from tests.simulation.test_labels import row_of, runner_of
from tests.simulation.test_organizations import Neighbour
from workers.domain.events import Happening, JobAction
from workers.domain.job import JobState
from workers.domain.names import runner_id
from workers.domain.pools import Pool
from workers.domain.runner import Level, RunnerState

MINUTE = timedelta(minutes=1)
HELLO, OTHER, THIRD = "octo/hello", "octo/other", "octo/third"
SHARED = replace(POLICY, pools=(Pool("default", forks=True, level=Level.ORGANIZATION, runner_group="builders"),))


def shared_world(seed: int = 0, faults: Faults | None = None, hosts: int = 1) -> World:
    world = World(seed, faults, ready_hosts=hosts, hosts_max=4, policy=SHARED)
    world.github.groups.append(RemoteGroup(7, "builders", {HELLO, OTHER}))
    return world


def test_a_runner_that_is_given_to_another_repository_is_bound_there_and_its_own_job_gets_the_other_one() -> None:
    world = shared_world(hosts=2)
    first = world.github.queue(1, repository=HELLO)
    world.until(lambda: bool(world.store.runners.open()), 2 * MINUTE)
    second = world.github.chosen = world.github.queue(2, repository=OTHER)
    world.until(lambda: is_in_progress(world, second), MINUTE)
    world.until(lambda: is_in_progress(world, first) and row_of(world, first).state is JobState.RUNNING, MINUTE)
    world.until(lambda: row_of(world, second).state is JobState.RUNNING, MINUTE)
    for job, repository in ((first, HELLO), (second, OTHER)):
        runner = runner_of(world, job)
        assert (runner.repository, runner.place, runner.group_id) == (repository, "octo", 7)
    assert [event.job_id for event in told(world, Happening.RUNNER_TAKEN)] == [second]
    settle(world)
    assert len(world.trouble.of("github", "register")) == 2, "one for each of them and none too many"


@pytest.mark.parametrize("seed", range(4))
def test_jobs_of_several_repositories_are_all_served_and_nothing_is_left(seed: int) -> None:
    world = shared_world(seed, Faults(hints=0.2, deliveries=0.2))
    for run_id in range(1, 9):
        world.github.queue(run_id, repository=world.random.choice([HELLO, OTHER]))
        for _ in range(world.random.randint(0, 15)):
            world.tick()
    settle(world)
    assert {world.github.conclusions(run_id)[0] for run_id in range(1, 9)} == {"success"}


def test_a_job_whose_repository_the_group_does_not_admit_is_told_so_and_costs_no_runner() -> None:
    world = shared_world()
    job = world.github.queue(1, repository=THIRD)
    world.until(lambda: (row := world.store.jobs.get(job)) is not None and row.unserved is not None, MINUTE)
    assert row_of(world, job).unserved == f"pool default: builders does not admit {THIRD}"
    for _ in range(10 * 60):
        world.tick()
    assert not world.store.runners.rows
    assert len(world.trouble.of("github", "group_of")) <= 11, "it is asked again, once a minute at most"
    (remark,) = world.github.beside.values()
    assert "does not admit" in remark.summary
    world.github.groups[0].repositories.add(THIRD)
    world.until(lambda: is_in_progress(world, job), 3 * MINUTE)
    settle(world)


def test_a_group_is_asked_for_once_for_many_jobs_and_while_github_cannot_say_they_wait() -> None:
    world = shared_world()
    world.trouble.away.add("github")
    jobs = [world.github.queue(number, repository=HELLO) for number in range(1, 6)]
    for _ in range(60):
        world.tick()
    assert {row_of(world, job).state for job in jobs} == {JobState.QUEUED}
    assert {row_of(world, job).unserved for job in jobs} == {None}
    because = f"GitHub does not answer: the number of the runner group for {HELLO} is asked again soon"
    assert {row_of(world, job).deferred for job in jobs} == {because}
    world.trouble.away.clear()
    world.trouble.log.clear()
    settle(world)
    assert len(world.trouble.of("github", "group_of")) <= 2


def test_what_nobody_stands_for_is_taken_away_from_the_organization_too() -> None:
    world = shared_world()
    world.github.queue(1, repository=HELLO)
    settle(world)
    ours, theirs = runner_id(f"{MARK}feedbeef00"), runner_id("ffffff-feedbeef00")
    for name in (ours, theirs):
        world.github.register(1, "octo", name, ("spot-runner", "never"))
    world.until(lambda: len(world.github.runners) == 1, 3 * MINUTE)
    assert [one.name for one in world.github.runners.values()] == [theirs]


def test_an_idle_runner_whose_registration_the_organization_has_lost_is_put_away() -> None:
    world = shared_world()
    job = world.github.queue(2, repository=HELLO)
    world.github.jobs[job].status = "paused"  # so that nobody takes it
    world.until(lambda: any(one.state is RunnerState.IDLE for one in world.store.runners.open()), MINUTE)
    (runner,) = world.store.runners.open()
    assert runner.github_id is not None
    for _ in range(70):  # while it is listed it stays
        world.tick()
    assert world.store.runners.rows[runner.id].state is RunnerState.IDLE
    del world.github.runners[runner.github_id]
    # Before it would have been put away because nobody uses it.
    world.until(lambda: world.store.runners.rows[runner.id].state is not RunnerState.IDLE, timedelta(seconds=48))


@pytest.mark.parametrize("by_number", [True, False])
def test_no_other_organization_gets_hold_of_it(by_number: bool) -> None:  # noqa: FBT001 - a case
    """Neither by its name nor by its number. Whoever tells of the same repository is another App of its own account."""
    world = shared_world()
    job = world.github.queue(1, repository=HELLO)
    world.until(lambda: is_in_progress(world, job) and row_of(world, job).state is JobState.RUNNING, 2 * MINUTE)
    runner = runner_of(world, job)
    neighbour = Neighbour(world, 2)
    stolen = neighbour.say(
        601, JobAction.IN_PROGRESS, None if by_number else runner.id, runner.github_id if by_number else 4242
    )
    for _ in range(20):
        world.tick()
    assert runner_of(world, job).job_id == job
    assert row_of(world, stolen).runner_id is None


def test_a_job_whose_end_nobody_told_us_is_asked_for_in_its_own_repository() -> None:
    """Its registration is gone from the organization, where GitHub knows of no runs."""
    world = shared_world()
    job = world.github.queue(1, repository=HELLO)
    world.until(lambda: is_in_progress(world, job) and row_of(world, job).state is JobState.RUNNING, 2 * MINUTE)
    world.github.missed = {JobAction.COMPLETED}
    world.github.cancel(job)
    recovery = world.reconcilers.recovery
    assert recovery is not None
    for _ in range(3):  # nobody but the reaper looks, so nobody else finds out
        world.clock.move(MINUTE)
        recovery.reaper.look()
    assert JobAction.COMPLETED in {fact.action for fact in world.store.facts_of(job)}
