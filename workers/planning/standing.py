"""What becomes of a job whose installation is served no more."""

from __future__ import annotations

from dataclasses import replace

from workers.domain.job import JOB, Job, JobEnd, JobState, Rerun


def stopped(job: Job) -> Job:
    """End a job for good: it is not waited for and not run again, and its runner has nothing left to do."""
    state = JOB.move(job.state, JobState.CANCELLED)
    return replace(job, state=state, end=job.end or JobEnd.CANCELLED, rerun=Rerun.NONE, unserved=None)
