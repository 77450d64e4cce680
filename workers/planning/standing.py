"""What becomes of a job that is served no more: its installation has ended, or GitHub says nothing of it any more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, assert_never

from workers.domain.events import JobFact
from workers.domain.job import JOB, Job, JobEnd, JobState, Rerun

# What GitHub gives a job that waits for a runner, runs on one of ours, or waits to be approved, until it ends it
# (https://docs.github.com/en/enterprise-server@3.14/actions/reference/usage-limits-for-self-hosted-runners and
# https://docs.github.com/en/actions/managing-workflow-runs/reviewing-deployments).
QUEUE_LIMIT: Final = timedelta(hours=24)
RUN_LIMIT: Final = timedelta(days=5)
APPROVAL_LIMIT: Final = timedelta(days=30)
# It does so by and by.
SLACK_LIMIT: Final = timedelta(hours=1)


def stopped(job: Job) -> Job:
    """End a job for good: it is not waited for and not run again, and its runner has nothing left to do."""
    state = JOB.move(job.state, JobState.CANCELLED)
    return replace(job, state=state, end=job.end or JobEnd.CANCELLED, rerun=Rerun.NONE, unserved=None)


def is_overdue(job: Job, facts: Sequence[JobFact], answered_at: datetime | None, now: datetime) -> bool:
    """Say whether an open job has had all the time that GitHub gives one since GitHub last said anything of it.

    `answered_at` is when it last answered what it was asked about the job, None if that is not known.
    """
    told = (job.queued_at, job.started_at, job.asked_at, job.lost_at, answered_at, *(fact.seen_at for fact in facts))
    return now - max(at for at in told if at is not None) > _limit(job.state) + SLACK_LIMIT


def _limit(state: JobState) -> timedelta:
    match state:
        case JobState.WAITING:
            return APPROVAL_LIMIT
        case JobState.QUEUED | JobState.PLACED:
            return QUEUE_LIMIT
        case JobState.RUNNING:
            return RUN_LIMIT
        case JobState.LOST:  # its lock has expired long before
            return QUEUE_LIMIT
        case JobState.COMPLETED | JobState.CANCELLED:
            return timedelta.max - SLACK_LIMIT
        case _:
            assert_never(state)
