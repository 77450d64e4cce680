"""Placement: what is made for a waiting job, and whether it may still hope for it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from workers.domain.job import Job
from workers.domain.names import HostId, RunnerId
from workers.domain.pools import Terms
from workers.domain.runner import Level, Runner, RunnerState, place_of

# It has no job yet, and will ask GitHub for one or is asking.
UNTAKEN = frozenset({RunnerState.REQUESTED, RunnerState.BOOTING, RunnerState.IDLE})


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


def made_for(runner: Runner, job: Job) -> Runner:
    """Return the runner as another job's: one of a whole organization may come to serve another repository of it."""
    repository = job.repository if runner.level is Level.ORGANIZATION else runner.repository
    return replace(runner, job_id=job.id, repository=repository)


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
