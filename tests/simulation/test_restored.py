"""The store is put back to what it was some minutes ago, while hosts, guests and GitHub have gone on.

What the rows say then is what was true once. Every job must come to what GitHub says of it, and none may run twice.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest

from tests.fakes.world import World
from workers.domain.job import JobEnd, JobState
from workers.domain.names import JobId

MINUTE = timedelta(minutes=1)


class RestoredWorld(World):
    """One whose store can be put back."""

    is_restored = False

    def backed_up(self) -> Mapping[str, Any]:
        """Return what a backup holds: every row, and nobody's lease."""
        held = {
            name: copy.copy(value) for name, value in vars(self.store).items() if isinstance(value, dict | list | set)
        }
        return held | {name: dict(getattr(self.store, name).rows) for name in SHELVES}

    def restore(self, backup: Mapping[str, Any]) -> None:
        """Put it back, and start the workers."""
        for name, value in backup.items():
            if name in SHELVES:
                shelf = getattr(self.store, name)
                shelf.rows, shelf._leases = dict(value), {}
            else:
                setattr(self.store, name, copy.copy(value))
        self.is_restored = True
        self.start_workers()

    def check_relay(self) -> None:
        """After a restore the relay may know an epoch that the rows have not heard of yet."""
        if not self.is_restored:
            super().check_relay()


SHELVES = ("jobs", "runners", "hosts", "migrations")


def state(world: World, job: JobId) -> JobState | None:
    row = world.store.jobs.get(job)
    return row.state if row else None


def world_with_a_job() -> tuple[RestoredWorld, JobId]:
    world = RestoredWorld(ready_hosts=1)
    world.hosts.job_takes = 4 * MINUTE
    job = world.github.queue(1)
    return world, job


def run(world: World, span: timedelta) -> None:
    for _ in range(int(span.total_seconds())):
        world.tick()


def finish(world: World, jobs: int, lost: int = 0) -> None:
    """Let everything come to its end, and check that it is the truth, and that only what was lost ran again."""
    world.until(world.is_quiet, 60 * MINUTE)
    failed = [one for one in world.github.jobs.values() if one.conclusion != "success"]
    assert len(failed) <= lost
    assert len(world.github.jobs) == jobs + len(failed), "nothing was run again that had not failed"
    for key, remote in world.github.jobs.items():
        row = world.store.jobs.get(key)
        assert row is not None, "a job was never heard of again"
        assert row.state is JobState.COMPLETED
        assert row.end is (JobEnd.LOST if remote in failed else JobEnd.SUCCEEDED)
    run(world, 3 * MINUTE)
    world.check_nothing_is_left()


def is_known(world: World, job: JobId) -> bool:
    return state(world, job) is not None


def is_placed(world: World, job: JobId) -> bool:
    return state(world, job) is JobState.PLACED


def is_running(world: World, job: JobId) -> bool:
    return state(world, job) is JobState.RUNNING


def is_done(world: World, job: JobId) -> bool:
    return state(world, job) is JobState.COMPLETED and world.is_quiet()


@pytest.mark.parametrize("later", [timedelta(seconds=20), 2 * MINUTE, 10 * MINUTE])
@pytest.mark.parametrize("when", [is_placed, is_running, is_done])
def test_a_job_comes_to_its_truth_and_runs_once(when: Callable[[World, JobId], bool], later: timedelta) -> None:
    world, job = world_with_a_job()
    world.until(lambda: when(world, job), 10 * MINUTE)
    backup = world.backed_up()
    run(world, later)
    world.restore(backup)
    finish(world, 1)


@pytest.mark.parametrize("later", [timedelta(seconds=20), 2 * MINUTE, 10 * MINUTE])
def test_a_job_whose_runner_the_backup_does_not_know_is_run_again_if_it_was_cut_off(later: timedelta) -> None:
    world, job = world_with_a_job()
    world.until(lambda: is_known(world, job), 10 * MINUTE)
    assert not world.store.runners.rows
    backup = world.backed_up()
    run(world, later)
    world.restore(backup)
    finish(world, 1, lost=1)


def test_a_job_that_came_and_went_after_the_backup_is_known_again_and_one_that_waits_runs() -> None:
    world, _ = world_with_a_job()
    world.until(world.is_quiet, 10 * MINUTE)
    backup = world.backed_up()
    world.github.queue(2)
    world.until(world.is_quiet, 10 * MINUTE)
    waiting = world.github.queue(3)
    world.receive()
    world.restore(backup)
    assert state(world, waiting) is None
    world.until(lambda: state(world, waiting) is JobState.COMPLETED, 20 * MINUTE)
    assert {one.status for one in world.github.jobs.values()} == {"completed"}
    assert len(world.github.jobs) == 3


def test_a_guest_that_moved_after_the_backup_lives_on_where_it_is() -> None:
    world, job = world_with_a_job()
    world.hosts.job_takes = 15 * MINUTE
    world.until(lambda: state(world, job) is JobState.RUNNING, 5 * MINUTE)
    backup = world.backed_up()
    row = world.store.jobs.get(job)
    assert row is not None
    assert row.runner_id is not None
    runner = world.store.runners.get(row.runner_id)
    assert runner is not None
    assert runner.host_id is not None
    world.cloud.take_back(runner.host_id, 2 * MINUTE)

    def has_moved() -> bool:
        now = world.store.runners.get(runner.id)
        return now is not None and now.epoch > runner.epoch and now.migration_id is None

    world.until(has_moved, 3 * MINUTE)
    world.restore(backup)
    finish(world, 1)
