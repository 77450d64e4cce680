"""Many organizations in one deployment: their jobs never meet on one registration, whatever one of them claims."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from itertools import count

import pytest

from tests.fakes.world import World
from tests.simulation.test_labels import row_of, runner_of, running
from workers.domain.events import Delivery, JobAction, JobFact
from workers.domain.job import JobState
from workers.domain.names import JobId

MINUTE = timedelta(minutes=1)


@dataclass
class Neighbour:
    """Another organization with jobs of the same labels; GitHub tells of them, and of nobody else's, in its name."""

    world: World
    installation: int = 2
    repository: str = "hexa/hello"

    def __post_init__(self) -> None:
        self._guids = count(1)

    def say(self, job: int, action: JobAction, runner: str | None = None, github_id: int | None = None) -> JobId:
        now = self.world.clock.now()
        fact = JobFact(
            delivery=f"neighbour-{next(self._guids)}",
            action=action,
            seen_at=now,
            job_id=JobId(job),
            installation_id=self.installation,
            repository=self.repository,
            run_id=job,
            run_attempt=1,
            name="theirs",
            labels=("spot-runner",),
            runner_id=github_id,
            runner_name=runner,
        )
        self.world.store.write_deliveries([Delivery(fact.delivery, "workflow_job", action, now, b"", fact)])
        self.world.hints.look_at("job", str(job))
        return fact.job_id


def check_all_are_among_themselves(world: World) -> None:
    """Every runner's job is of the runner's own installation and repository, and so are all that count on it."""
    runners = world.store.runners.rows
    for runner in runners.values():
        job = world.store.jobs.get(runner.job_id)
        assert job is not None
        assert (job.installation_id, job.repository) == (runner.installation_id, runner.repository)
    for job in world.store.jobs.rows.values():
        if job.runner_id in runners:
            assert runners[job.runner_id].installation_id == job.installation_id


@pytest.mark.parametrize("seed", range(3))
def test_jobs_of_two_organizations_get_runners_of_their_own(seed: int) -> None:
    world = World(seed)
    ours = [world.github.queue(number) for number in (1, 2, 3)]
    theirs = [world.github.queue(number, repository="hexa/hello") for number in (4, 5, 6)]

    def are_all_over() -> bool:
        check_all_are_among_themselves(world)
        return all(job in world.store.jobs.rows and row_of(world, job).end is not None for job in (*ours, *theirs))

    world.until(are_all_over, 20 * MINUTE)
    for jobs, place in ((ours, (1, "octo/hello")), (theirs, (2, "hexa/hello"))):
        taken = [runner_of(world, job) for job in jobs]
        assert {(runner.installation_id, runner.repository) for runner in taken} == {place}
    world.until(world.is_quiet, 5 * MINUTE)
    world.check_nothing_is_left()


@pytest.mark.parametrize("by_number", [True, False])
def test_nobody_gets_hold_of_anothers_runner_by_its_name_or_number(by_number: bool) -> None:  # noqa: FBT001 - a case
    """Anybody may register a runner of their own in their own organization under the name of one of ours."""
    world = World()
    job = running(world, ("spot-runner",))
    runner = runner_of(world, job)
    stolen = Neighbour(world).say(
        601, JobAction.IN_PROGRESS, None if by_number else runner.id, runner.github_id if by_number else 4242
    )
    for _ in range(20):
        world.tick()
    check_all_are_among_themselves(world)
    assert runner_of(world, job).job_id == job
    assert (row_of(world, stolen).state, row_of(world, stolen).runner_id) == (JobState.RUNNING, None)
    assert row_of(world, job).runner_id == runner.id
