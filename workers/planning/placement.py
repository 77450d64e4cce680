"""Placement: what is made for a waiting job, and whether it may still hope for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Final

from workers.domain.host import fits
from workers.domain.job import Job, JobState
from workers.domain.names import HostId, RunnerId
from workers.domain.pools import Terms
from workers.domain.runner import Level, Runner, RunnerEnd, RunnerState, Shape, place_of

# It has no job yet, and will ask GitHub for one or is asking.
UNTAKEN = frozenset({RunnerState.REQUESTED, RunnerState.BOOTING, RunnerState.IDLE})
# Of those who are told that there is room, so many may need it no more.
BESIDE_MAX: Final = 4


def runner_for(job: Job, terms: Terms, runner_id: RunnerId, number: int, host_id: HostId, now: datetime) -> Runner:
    """Return the runner that is to be made for a job, with exactly its labels: GitHub gives it no job with others."""
    return Runner(
        id=runner_id,
        number=number,
        job_id=job.id,
        installation_id=job.installation_id,
        repository=job.repository,
        labels=job.labels,
        pool=terms.pool,
        package=terms.package,
        shape=terms.shape,
        network=terms.network,
        state=RunnerState.REQUESTED,
        requested_at=now,
        host_id=host_id,
        level=terms.level,
        group_id=terms.group_id,
    )


def invited(left: Shape, waiting: Iterable[Job]) -> list[Job]:
    """Return the jobs that go into this room together, in their order, and a few that would go there alone."""
    found, beside, rest = list[Job](), 0, left
    for job in waiting:
        if job.terms is None or not fits(job.terms.shape, left):
            continue
        shape = job.terms.shape
        if fits(shape, rest):
            rest = Shape(rest.vcpus - shape.vcpus, rest.memory_mib - shape.memory_mib, rest.disk_mib - shape.disk_mib)
        elif beside < BESIDE_MAX:
            beside += 1
        else:
            continue
        found.append(job)
    return found


def made_for(runner: Runner, job: Job) -> Runner:
    """Return the runner as another job's: one of a whole organization may come to serve another repository of it."""
    repository = job.repository if runner.level is Level.ORGANIZATION else runner.repository
    end = RunnerEnd.JOB_COMPLETED if runner.end is RunnerEnd.UNTOLD else runner.end
    return replace(runner, job_id=job.id, repository=repository, end=end)


def may_be_given(job: Job, runner: Runner) -> bool:
    """Say whether GitHub could give it this job at all: it is of the place where the runner is registered.

    GitHub compares repositories and organizations without case, and does not mind which App registered it.
    """
    return place_of(job.repository, runner.level).lower() == runner.place.lower()


def counts_on(job: Job, runner: Runner | None) -> bool:
    """Say whether a placed job may still hope for its runner."""
    return (
        runner is not None
        and runner.job_id == job.id
        and runner.state
        in UNTAKEN
        | {
            RunnerState.RETIRING,
            RunnerState.BUSY,
        }
    )


def strays(job: Job, runner: Runner | None) -> bool:
    """Say whether GitHub has given a job that runs a runner of another pool than its own."""
    if runner is None or job.state is not JobState.RUNNING or job.unserved is not None or job.terms is None:
        return False
    return runner.pool not in {"", job.terms.pool}
