"""The control plane as a whole, on a fake clock: production decisions and a production receiver, a world in memory."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.fakes.world import Faults, World
from workers.domain.events import Happening
from workers.domain.job import JobEnd, JobState, Rerun
from workers.domain.migration import MigrationPhase
from workers.domain.names import HostId, JobId
from workers.domain.runner import RunnerState

MINUTE = timedelta(minutes=1)


def started(world: World, jobs: int = 1) -> list[JobId]:
    """Queue jobs and let time pass until each of them runs."""
    ids = [world.github.queue(run_id) for run_id in range(1, jobs + 1)]
    world.until(lambda: all(_state(world, key) is JobState.RUNNING for key in ids), 2 * MINUTE)
    return ids


def _state(world: World, job_id: JobId) -> JobState | None:
    row = world.store.jobs.get(job_id)
    return row.state if row else None


def host_of(world: World, job_id: JobId) -> HostId:
    job = world.store.jobs.get(job_id)
    assert job is not None
    assert job.runner_id is not None
    runner = world.store.runners.get(job.runner_id)
    assert runner is not None
    return runner.host_id


def happened(world: World, happening: Happening) -> int:
    return sum(event.happening is happening for _, event in world.store.timeline())


def test_a_job_is_run_and_everything_is_put_away() -> None:
    world = World()
    started(world)
    world.until(world.is_quiet, 5 * MINUTE)
    world.check_nothing_is_left()
    assert world.github.conclusions(1) == ["success"]
    assert happened(world, Happening.JOB_LOST) == 0


def test_a_busy_runner_moves_before_its_host_is_taken_back() -> None:
    world = World()
    (job,) = started(world)
    source = host_of(world, job)
    world.cloud.take_back(source, 2 * MINUTE)
    world.until(world.is_quiet, 10 * MINUTE)
    world.check_nothing_is_left()
    assert [row.phase for row in world.store.migrations.rows.values()] == [MigrationPhase.FINISHED]
    assert host_of(world, job) != source
    assert len(world.github.jobs) == 1, "nothing was run twice"


def test_a_job_whose_host_dies_without_a_notice_is_run_again_after_its_lock() -> None:
    world = World()
    (job,) = started(world)
    died_at = world.clock.now()
    world.cloud.kill(host_of(world, job))
    world.until(lambda: _state(world, job) is JobState.LOST, MINUTE)
    world.until(lambda: len(world.github.jobs) == 2, 15 * MINUTE)
    assert world.clock.now() - died_at > 9 * MINUTE, "GitHub keeps the job until its lock has expired"
    world.until(world.is_quiet, 10 * MINUTE)
    world.check_nothing_is_left()
    row = world.store.jobs.get(job)
    assert row is not None
    assert (row.state, row.end, row.rerun) == (JobState.COMPLETED, JobEnd.LOST, Rerun.ASKED)
    assert world.github.conclusions(1) == ["success"]
    runner = world.store.runners.get(row.runner_id) if row.runner_id else None
    assert runner is not None
    assert runner.state is RunnerState.GONE


ROUGH = Faults(unreachable=0.05, death=0.01, hints=0.2, deliveries=0.1, hosts=0.05)
SEEDS = 20


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_goes_wrong_every_run_succeeds_in_the_end(seed: int) -> None:
    world = World(seed, ROUGH)
    for run_id in range(1, world.random.randint(2, 6)):
        world.github.queue(run_id)
    for _ in range(world.random.randint(3, 8)):
        span = world.random.randint(1, 60)
        for _ in range(span):
            world.tick()
        strike(world)
    world.until(world.is_quiet, timedelta(hours=1))
    world.calm_down()
    world.until(world.is_given_back, timedelta(hours=1))
    world.check_nothing_is_left()


def strike(world: World) -> None:
    """Take a host back, with or without a word."""
    alive = world.cloud.alive()
    if not alive:
        return
    victim = world.random.choice(alive)
    if world.random.random() < 0.3:
        world.cloud.kill(victim)
    else:
        world.cloud.take_back(victim, timedelta(seconds=world.random.choice([5, 30, 60, 120])))
