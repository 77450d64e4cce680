"""What GitHub's facts say about a job, in whatever order and however often they come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from workers.domain.events import JobAction, JobFact
from workers.domain.job import JOB, Job, JobEnd, JobState, Rerun, end_of, rerun_after
from workers.domain.names import RunnerId

_ACTIONS = {"in_progress": JobAction.IN_PROGRESS, "completed": JobAction.COMPLETED, "waiting": JobAction.WAITING}


@dataclass(frozen=True)
class Told:
    """The sum of all facts about one job."""

    is_started: bool
    github_id: int | None
    """GitHub's number of the registration that took it."""
    runner_name: str | None
    conclusion: str | None
    started_at: datetime | None = None
    """When it was first heard of as started."""


def sum_of(facts: Sequence[JobFact]) -> Told:
    """Add the facts up; order and doubles make no difference."""
    taken = [fact for fact in facts if fact.runner_id or fact.runner_name]
    ended = [fact for fact in facts if fact.action is JobAction.COMPLETED]
    begun = [fact.seen_at for fact in facts if fact in taken or fact.action is JobAction.IN_PROGRESS]
    return Told(
        is_started=bool(begun),
        github_id=next((fact.runner_id for fact in taken if fact.runner_id), None),
        runner_name=next((fact.runner_name for fact in taken if fact.runner_name), None),
        conclusion=next((fact.conclusion or "failure" for fact in ended), None),
        started_at=min(begun, default=None),
    )


def is_wanted(facts: Sequence[JobFact]) -> bool:
    """Say whether it is a job yet: one that waits for somebody's approval may wait for days, and needs nothing."""
    return any(fact.action is not JobAction.WAITING for fact in facts)


def first_row(facts: Sequence[JobFact]) -> Job:
    """Return the row of a job of which we hear for the first time."""
    fact = facts[0]
    return Job(
        id=fact.job_id,
        installation_id=fact.installation_id,
        repository=fact.repository,
        run_id=fact.run_id,
        run_attempt=fact.run_attempt,
        name=fact.name,
        labels=fact.labels,
        state=JobState.QUEUED,
        queued_at=min(fact.seen_at for fact in facts),
    )


def polled_fact(
    job: Job, status: str, conclusion: str | None, taker: tuple[int | None, str | None], now: datetime
) -> JobFact:
    """Return what GitHub's API said as if a webhook had said it; it is not stored."""
    return JobFact(
        delivery="poll",
        action=_ACTIONS.get(status, JobAction.QUEUED),
        seen_at=now,
        job_id=job.id,
        installation_id=job.installation_id,
        repository=job.repository,
        run_id=job.run_id,
        run_attempt=job.run_attempt,
        name=job.name,
        labels=job.labels,
        runner_id=taker[0],
        runner_name=taker[1],
        conclusion=conclusion,
    )


def started(job: Job, runner_id: RunnerId | None, at: datetime | None = None) -> Job:
    """Note who runs it, None if it is none of our runners; a job that is over stays so."""
    state = JOB.heard(job.state, JobState.RUNNING)
    if state is not JobState.RUNNING:
        return job
    return replace(job, state=state, runner_id=runner_id, started_at=at)


def completed(job: Job, conclusion: str, *, with_its_host: bool) -> Job:
    """Note how it ended. `with_its_host`: its host was gone by then and had not said that the runner ended.

    A lost job stays open until its rerun has been asked for.
    """
    if job.end is not None:
        return job
    if with_its_host and job.state is JobState.RUNNING:
        job = lost(job)
    end = end_of(job, conclusion)
    job = replace(job, conclusion=conclusion, end=end, rerun=rerun_after(end), unserved=None)
    if job.rerun is Rerun.WANTED:
        return job
    return replace(
        job, state=JOB.heard(job.state, JobState.CANCELLED if end is JobEnd.CANCELLED else JobState.COMPLETED)
    )


def lost(job: Job) -> Job:
    """Note that the machine under a running job is no more."""
    return replace(job, state=JOB.move(job.state, JobState.LOST))


def rerun_asked(job: Job) -> Job:
    """Close a lost job: another attempt takes its place."""
    return replace(job, rerun=Rerun.ASKED, state=JOB.move(job.state, JobState.COMPLETED))
