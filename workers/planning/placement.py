"""Placement: which runner a waiting job is to count on.

A runner is not bound to the job that it was made for. When GitHub gives it
another one, some runner is left over and some job is left waiting, and the two
are brought together before another microVM is started.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from workers.domain.job import Job, JobState
from workers.domain.names import HostId, JobId, RunnerId
from workers.domain.pools import Terms
from workers.domain.runner import Runner, RunnerState
from workers.planning.fleet import Fleet, is_open

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
        package=terms.package,
        shape=terms.shape,
        network=terms.network,
        state=RunnerState.REQUESTED,
        requested_at=now,
        host_id=host_id,
    )


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


def spare_runner(job: Job, fleet: Fleet, demands: Mapping[JobId, Job]) -> Runner | None:
    """Return a runner that could take this job and that no other job counts on, the furthest first.

    `demands` holds the open jobs.
    """
    spare = [
        runner
        for runner in fleet.runners
        if runner.state in UNTAKEN
        and (host := fleet.host(runner.host_id)) is not None
        and is_open(host)
        and (runner.installation_id, runner.repository) == (job.installation_id, job.repository)
        and _is_given(job, runner)
        and _is_spare(runner, job, demands)
    ]
    progress = [RunnerState.IDLE, RunnerState.BOOTING, RunnerState.REQUESTED]
    return min(spare, key=lambda runner: progress.index(runner.state), default=None)


def _is_given(job: Job, runner: Runner) -> bool:
    """Say whether GitHub would give it this job; it compares labels without case."""
    return {label.lower() for label in job.labels} <= {label.lower() for label in runner.labels}


def _is_spare(runner: Runner, job: Job, demands: Mapping[JobId, Job]) -> bool:
    if runner.job_id == job.id:
        return True
    demand = demands.get(runner.job_id)
    # A job that is queued again was placed on this runner a moment ago, or is about to look for one itself.
    return demand is None or (demand.runner_id != runner.id and demand.state is not JobState.QUEUED)
