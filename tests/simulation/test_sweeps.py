"""A sweep leaves out only what a look would leave as it is: each row that it passes over is looked at, and compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest

from tests.fakes.world import Faults, World
from tests.simulation.test_installations import tell
from workers.domain.installation import InstallationAction
from workers.domain.job import Job, JobState
from workers.domain.runner import RunnerState

MINUTE = timedelta(minutes=1)
ROUGH = Faults(unreachable=0.05, death=0.01, hints=0.3, deliveries=0.1, hosts=0.05)


class SilentWorld(World):
    """GitHub is hardly ever asked."""

    poll_interval = timedelta(hours=1)


class Compared(World):
    """Before each sweep, what it is about to leave out is looked at."""

    left_out = 0
    seen_in_all = 0

    def _work(self, *, sweeps: bool) -> None:
        if sweeps:
            self._compare("job", self.reconcilers.jobs.due, self.store.jobs)
            self._compare("runner", self.reconcilers.runners.due, self.store.runners)
        super()._work(sweeps=sweeps)

    def _compare(self, kind: str, due: Any, shelf: Any) -> None:  # noqa: ANN401 of one of two kinds
        rows: Sequence[Any] = shelf.open()
        self.seen_in_all += len(rows)
        to_be_looked_at = set(due())
        for row in rows:
            if row.id not in to_be_looked_at and not shelf.is_leased(row.id):
                self.left_out += 1
                before = self._sight()
                self.look_at(kind, str(row.id))
                assert self._sight() == before, f"the sweep would have left {kind} {row.id} out"

    def _sight(self) -> tuple[Mapping[Any, Any], Mapping[Any, Any], int, int]:
        told = len(self.store.timeline())
        return dict(self.store.jobs.rows), dict(self.store.runners.rows), told, len(self.trouble.log)


@pytest.mark.parametrize("seed", range(12))
def test_what_a_sweep_leaves_out_needs_nothing(seed: int) -> None:
    world = Compared(seed, ROUGH if seed % 2 else None, ready_hosts=2)
    world.hosts.job_takes = 4 * MINUTE
    dice = world.random
    for run_id in range(1, 9):
        world.github.queue(run_id)
        for _ in range(dice.randrange(40)):
            world.tick()
        alive = world.cloud.alive()
        what = dice.randrange(5)
        if what == 0 and alive:
            world.cloud.take_back(dice.choice(alive), 2 * MINUTE)
        elif what == 1 and alive:
            world.cloud.kill(dice.choice(alive))
        elif what == 2:
            world.github.cancel(dice.choice(list(world.github.jobs)))
    world.calm_down()
    world.until(world.is_quiet, 60 * MINUTE)
    world.check_nothing_is_left()
    assert world.left_out > 0.1 * world.seen_in_all, "so there was something to compare"


def resting(world: World) -> set[Job]:
    return {job for job in world.store.jobs.open() if job.id not in world.reconcilers.jobs.due()}


def test_a_job_of_which_github_is_to_be_asked_is_looked_at() -> None:
    world = World(ready_hosts=1)
    world.hosts.job_takes = 30 * MINUTE
    job_id = world.github.queue(1)
    world.until(lambda: {job.state for job in resting(world)} == {JobState.RUNNING}, 2 * MINUTE)
    asked = len(world.trouble.of("github", "job"))
    world.until(lambda: job_id in world.reconcilers.jobs.due(), world.poll_interval + timedelta(seconds=2))
    world.until(lambda: not world.reconcilers.jobs.due(), timedelta(seconds=20))
    assert len(world.trouble.of("github", "job")) == asked + 1


def test_a_runner_of_which_its_host_has_said_nothing_is_looked_at() -> None:
    world = World(ready_hosts=1)
    world.hosts.job_takes = 30 * MINUTE
    world.github.queue(1)
    world.until(lambda: not world.reconcilers.runners.due() and bool(world.store.runners.open()), 2 * MINUTE)
    (runner,) = world.store.runners.open()
    world.clock.move(2 * MINUTE)
    assert world.reconcilers.runners.due() == [runner.id], "its host is silent"


def test_who_starts_anew_looks_at_every_job_once() -> None:
    world = World(ready_hosts=1)
    world.hosts.job_takes = 30 * MINUTE
    job_id = world.github.queue(1)
    world.until(lambda: bool(resting(world)), 2 * MINUTE)
    world.start_workers()
    assert job_id in world.reconcilers.jobs.due()


def test_a_job_whose_runner_may_have_been_given_to_another_is_looked_at() -> None:
    world = SilentWorld(ready_hosts=1)
    world.github.queue(1)
    world.until(world.is_quiet, 10 * MINUTE)  # so everything was listed once, as it is after each start
    world.hosts.job_takes = 30 * MINUTE
    job_id = world.github.queue(2)
    world.until(lambda: world.store.jobs.get(job_id) is not None, MINUTE)
    world.github.loss = world.hints.loss = 1.0
    world.lists.requests_left = 0.0  # so that nobody lists what runs
    world.until(lambda: {runner.state for runner in world.store.runners.open()} == {RunnerState.BUSY}, 5 * MINUTE)
    job = world.store.jobs.get(job_id)
    assert job is not None
    assert job.state is JobState.PLACED, "nobody has said which job that runner has"
    assert job_id in world.reconcilers.jobs.due()


def test_jobs_of_an_installation_that_has_ended_are_looked_at() -> None:
    world = World(ready_hosts=1)
    world.hosts.job_takes = 30 * MINUTE
    world.github.queue(1)
    world.until(lambda: bool(resting(world)), 2 * MINUTE)
    tell(world, InstallationAction.SUSPEND)
    assert not resting(world)
