"""Two Apps of ours in one account: GitHub tells each of them everything, and what they are told is of the same jobs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from random import Random

import pytest

from tests.fakes.world import World
from tests.simulation.test_control_plane import MINUTE, happened
from workers.domain.events import Delivery, Happening, JobFact
from workers.domain.installation import InstallationAction, InstallationFact
from workers.domain.job import JobState
from workers.domain.names import JobId

FIRST, SECOND = 1, 3


@dataclass
class BothTold:
    """Carries each delivery to either App, in no order."""

    random: Random

    def __post_init__(self) -> None:
        self._on_the_way: list[JobFact] = []

    def send(self, fact: JobFact) -> None:
        other = replace(fact, delivery=f"{fact.delivery}-other", installation_id=SECOND)
        self._on_the_way += [fact, other]

    def arrived(self, now: datetime) -> list[Delivery]:
        here, self._on_the_way = self._on_the_way, []
        self.random.shuffle(here)
        return [Delivery(one.delivery, "workflow_job", one.action.value, now, b"", one) for one in here]


def world_of(seed: int) -> World:
    world = World(seed)
    world.github.carrier = BothTold(world.random)
    return world


def removed(world: World, installation: int) -> None:
    """Let the account take one of the Apps away."""
    now, guid = world.clock.now(), f"removed-{installation}"
    fact = InstallationFact(
        guid, InstallationAction.DELETED, now, installation, "octo", now, is_suspended=False, takes_all=True
    )
    world.store.write_deliveries([Delivery(guid, "installation", "deleted", now, b"", installation=fact)])
    world.hints.look_at("installation", str(installation))


def homes(world: World) -> set[int]:
    return {job.installation_id for job in world.store.jobs.rows.values()}


@pytest.mark.parametrize("seed", range(3))
def test_each_job_is_run_once_by_a_runner_whichever_app_it_was_made_for(seed: int) -> None:
    world = world_of(seed)
    runs = range(1, 9)
    for run in runs:
        world.github.queue(run)
    world.until(world.is_quiet, 20 * MINUTE)
    assert [world.github.conclusions(run) for run in runs] == [["success"]] * len(runs)
    assert homes(world) == {FIRST, SECOND}, "whoever told of a job first"
    assert len(world.store.runners.rows) == len(runs)
    assert all(job.runner_id is not None for job in world.store.jobs.rows.values())


@pytest.mark.parametrize("gone", [FIRST, SECOND])
def test_when_one_app_is_removed_the_other_one_goes_on(gone: int) -> None:
    world = world_of(0)
    world.hosts.job_takes = 5 * MINUTE
    jobs = [world.github.queue(run) for run in range(1, 7)]
    world.until(lambda: any(is_running(world, job) for job in jobs), 5 * MINUTE)
    assert homes(world) == {FIRST, SECOND}
    removed(world, gone)
    world.until(world.is_quiet, 60 * MINUTE)
    assert [world.github.conclusions(run) for run in range(1, 7)] == [["success"]] * 6
    assert happened(world, Happening.JOB_STOPPED) == 0


def test_when_both_are_removed_the_jobs_are_stopped() -> None:
    world = world_of(0)
    world.hosts.job_takes = 5 * MINUTE
    jobs = [world.github.queue(run) for run in range(1, 7)]
    world.until(lambda: any(is_running(world, job) for job in jobs), 5 * MINUTE)
    for one in (FIRST, SECOND):
        removed(world, one)
    world.github.is_installed = False
    world.until(lambda: not world.store.jobs.open() and not world.store.runners.open(), 5 * MINUTE)
    assert happened(world, Happening.JOB_STOPPED) == 6


def is_running(world: World, job: JobId) -> bool:
    row = world.store.jobs.get(job)
    return row is not None and row.state is JobState.RUNNING
