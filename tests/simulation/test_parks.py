"""Guests that no host can take in time lie in the object store and go on later, or are given up, on a fake clock."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.fakes.world import Faults, World
from tests.simulation.test_control_plane import MINUTE, happened, host_of, started, strike
from workers.domain.events import Happening
from workers.domain.host import HostState
from workers.domain.job import JobState
from workers.domain.migration import Migration, MigrationPhase, Said
from workers.domain.names import JobId
from workers.domain.runner import Runner, RunnerEnd, RunnerState

NOTICE = timedelta(seconds=30)


def runner_of(world: World, job_id: JobId) -> Runner:
    job = world.store.jobs.get(job_id)
    assert job is not None
    assert job.runner_id is not None
    runner = world.store.runners.get(job.runner_id)
    assert runner is not None
    return runner


def parked(world: World) -> JobId:
    """Let a job run, take its host away while nothing can be bought, and wait until its guest lies in the store."""
    (job,) = started(world)
    source = host_of(world, job)
    world.cloud.is_sold_out = True
    world.cloud.take_back(source, NOTICE)
    world.until(lambda: runner_of(world, job).is_parked, MINUTE)
    return job


def rows(world: World) -> list[Migration]:
    return sorted(world.store.migrations.rows.values(), key=lambda row: row.epoch)


def test_without_a_target_a_guest_is_parked_and_goes_on_when_there_is_room_again() -> None:
    world = World()
    job = parked(world)
    runner = runner_of(world, job)
    assert (runner.state, runner.host_id) == (RunnerState.BUSY, None), "its job is alive as far as GitHub knows"
    assert runner.parked_at is not None
    assert not world.hosts.running()
    world.until(lambda: not world.cloud.alive(), MINUTE)
    world.until(lambda: world.clock.now() - runner.parked_at > 4 * MINUTE, 5 * MINUTE)  # type: ignore[operator]
    assert world.store.jobs.rows[job].state is JobState.RUNNING
    world.cloud.is_sold_out = False
    world.until(lambda: happened(world, Happening.PARK_ENDED) == 1, 5 * MINUTE)
    assert not world.objects.contents, "the sweep has nothing to find"
    world.until(world.is_quiet, 10 * MINUTE)
    world.check_nothing_is_left()
    assert len(world.github.jobs) == 1, "nothing was run twice"
    park, resume = rows(world)
    assert (park.is_park, park.phase, park.key) == (True, MigrationPhase.FINISHED, None)
    assert (resume.is_resume, resume.phase, resume.park_id) == (True, MigrationPhase.FINISHED, park.id)
    assert happened(world, Happening.PARK_ENDED) == 1


def test_a_guest_that_finds_no_host_before_its_lock_ends_is_given_up_and_its_job_run_again() -> None:
    world = World()
    job = parked(world)
    world.until(lambda: runner_of(world, job).end is RunnerEnd.PARKED_TOO_LONG, 9 * MINUTE)
    world.until(lambda: not world.objects.contents, MINUTE)
    (park,) = rows(world)
    assert (park.phase, park.key) == (MigrationPhase.FINISHED, None)
    world.until(lambda: world.store.jobs.rows[job].state is JobState.LOST, MINUTE)
    world.cloud.is_sold_out = False
    world.until(world.is_quiet, 20 * MINUTE)
    world.check_nothing_is_left()
    assert len(world.github.jobs) == 2
    assert world.github.conclusions(1) == ["success"]


def test_a_job_that_is_cancelled_while_it_lies_in_the_store_leaves_nothing_there() -> None:
    world = World()
    job = parked(world)
    world.github.cancel(job)
    world.until(lambda: not world.objects.contents, MINUTE)
    world.cloud.is_sold_out = False
    world.until(world.is_quiet, 15 * MINUTE)
    world.check_nothing_is_left()
    assert len(world.github.jobs) == 1


def test_a_job_that_had_failed_by_itself_before_it_was_parked_is_not_run_again() -> None:
    """GitHub's word came late; no lock expires so soon."""
    world = World()
    job = parked(world)
    remote = world.github.jobs[job].runner
    assert remote is not None
    world.github.report(remote.github_id, "failure")
    world.until(lambda: not world.store.runners.open() and not world.store.jobs.open(), 3 * MINUTE)
    world.until(lambda: not world.objects.contents, MINUTE)
    assert happened(world, Happening.RERUN_ASKED) == 0
    assert len(world.github.jobs) == 1


def test_a_host_that_dies_while_it_takes_the_guest_out_costs_one_attempt() -> None:
    world = World()
    parked(world)
    world.cloud.is_sold_out = False
    world.until(lambda: any(row.is_resume for row in rows(world)), 5 * MINUTE)
    world.hosts.lost_words.add(Said.COMMITTED)
    target = next(row.target_id for row in rows(world) if row.is_resume)
    assert target is not None
    world.cloud.kill(target)
    world.hosts.lost_words.clear()
    world.until(world.is_quiet, 15 * MINUTE)
    world.check_nothing_is_left()
    assert len(world.github.jobs) == 1
    assert [row.phase for row in rows(world) if row.is_resume].count(MigrationPhase.FINISHED) == 1


def test_a_source_that_dies_once_all_is_stored_loses_nothing() -> None:
    world = World()
    (job,) = started(world)
    source = host_of(world, job)
    world.cloud.is_sold_out = True
    world.trouble.away = {"objects"}
    world.cloud.take_back(source, NOTICE)
    world.until(lambda: any(row.phase is MigrationPhase.PAUSED for row in rows(world)), MINUTE)
    world.cloud.kill(source)
    world.until(lambda: world.store.hosts.rows[source].state is HostState.TERMINATED, 2 * MINUTE)
    assert rows(world)[0].phase is MigrationPhase.PAUSED, "nobody knows yet whether it is whole"
    world.trouble.away = set()
    world.until(lambda: runner_of(world, job).is_parked, MINUTE)
    world.cloud.is_sold_out = False
    world.until(world.is_quiet, 10 * MINUTE)
    assert len(world.github.jobs) == 1


def test_what_is_not_whole_is_not_committed_and_the_guest_goes_on() -> None:
    world = World()
    (job,) = started(world)
    source = host_of(world, job)
    world.cloud.is_sold_out = True
    world.trouble.away = {"objects"}
    world.hosts.copy_takes = timedelta(seconds=2)  # it is begun late, and only if it is quick there is time to go on
    world.cloud.take_back(source, NOTICE)
    world.until(lambda: any(row.phase is MigrationPhase.PAUSED for row in rows(world)), MINUTE)
    name = next(name for name in world.objects.contents if "/memory" in name)
    world.objects.contents[name] += b"!"
    world.trouble.away = set()
    world.until(lambda: rows(world)[0].phase is MigrationPhase.ABORTED, MINUTE)
    assert "memory-000000" in str(rows(world)[0].reason)
    assert runner_of(world, job).host_id == source
    world.until(lambda: bool(world.hosts.running()) or len(rows(world)) > 1, MINUTE)


def test_what_has_leaked_in_the_store_is_found_and_deleted() -> None:
    world = World()
    world.objects.contents["parks/spot-move-0/memory-000000"] = b"nobody's"
    world.objects.contents["elsewhere/x"] = b"not ours"
    world.until(lambda: set(world.objects.contents) == {"elsewhere/x"}, MINUTE)


ROUGH = Faults(unreachable=0.05, death=0.01, hints=0.2, deliveries=0.1, hosts=0.05)
SEEDS = 20


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_goes_wrong_with_parks_every_run_succeeds_in_the_end(seed: int) -> None:
    """The cloud sells nothing for minutes at a time, so that hosts which leave must park."""
    world = World(seed, ROUGH)
    for run_id in range(1, world.random.randint(2, 5)):
        world.github.queue(run_id)
    for _ in range(world.random.randint(3, 8)):
        world.cloud.is_sold_out = world.random.random() < 0.6
        for _ in range(world.random.randint(20, 120)):
            world.tick()
        strike(world)
    world.cloud.is_sold_out = False
    world.until(world.is_quiet, timedelta(hours=2))
    world.calm_down()
    world.until(world.is_given_back, timedelta(hours=1))
    world.until(lambda: not world.objects.contents, MINUTE)
    world.check_nothing_is_left()
