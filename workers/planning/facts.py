"""What GitHub's facts say about a job, in whatever order and however often they come.

    waiting ⇄ queued ──▶ in_progress ──▶ completed

A fact of a higher rank is never undone by one of a lower. Only the first two may follow each other in both
directions: `deployment.updated_at` says which came last, if it is there and differs; else GitHub is asked. Attempts
are jobs of their own, with numbers of their own, so what is told again of an earlier attempt is told of its own row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from workers.domain.events import JobAction, JobFact
from workers.domain.job import JOB, Job, JobEnd, JobState, Rerun, end_of, rerun_after
from workers.domain.names import RunnerId

_ACTIONS: Final = {
    "in_progress": JobAction.IN_PROGRESS,
    "completed": JobAction.COMPLETED,
    "waiting": JobAction.WAITING,
    "pending": JobAction.WAITING,  # until another run of its concurrency group is over
}
# The receiver's clock and the one of whoever asked may differ by so much.
SKEW_LIMIT: Final = timedelta(seconds=5)
# A runner that is named in `queued` says nothing: recorded deliveries name one that never ran the job.
_TAKEN: Final = frozenset({JobAction.IN_PROGRESS, JobAction.COMPLETED})
_NOT_TAKEN: Final = frozenset({JobState.WAITING, JobState.QUEUED, JobState.PLACED})


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
    taken = [fact for fact in facts if fact.action in _TAKEN and (fact.runner_id or fact.runner_name)]
    ended = [fact for fact in facts if fact.action is JobAction.COMPLETED]
    begun = [fact.seen_at for fact in facts if fact in taken or fact.action is JobAction.IN_PROGRESS]
    # A job that its runner did not start goes to another, whose registration is younger; its end names the last one.
    last = max(taken, key=lambda fact: (fact.action is JobAction.COMPLETED, fact.runner_id or 0), default=None)
    return Told(
        is_started=bool(begun),
        github_id=last.runner_id if last else None,
        runner_name=last.runner_name if last else None,
        conclusion=next((fact.conclusion or "failure" for fact in ended), None),
        started_at=min(begun, default=None),
    )


def is_waiting(facts: Sequence[JobFact]) -> bool | None:
    """Say whether the last of `waiting` and `queued` was `waiting`; None: that cannot be told from these."""
    waiting = [fact.deployment_at for fact in facts if fact.action is JobAction.WAITING]
    queued = [fact.deployment_at for fact in facts if fact.action is JobAction.QUEUED]
    if not waiting or not queued:
        return bool(waiting)
    if _is_after(queued, waiting):
        return False
    return True if _is_after(waiting, queued) else None


def _is_after(these: Sequence[datetime | None], those: Sequence[datetime | None]) -> bool:
    """Say whether one of these certainly came after all of those; equal moments decide nothing."""
    known, before = [at for at in these if at], [at for at in those if at]
    return bool(known) and len(before) == len(those) and max(known) > max(before)


def waits(job: Job, facts: Sequence[JobFact]) -> bool | None:
    """Say whether a job that nobody has taken waits for its environment; None: GitHub is to be asked.

    What GitHub answered stands until a later fact says otherwise; such a fact may be older than the answer, though.
    """
    if job.state not in _NOT_TAKEN:
        return False
    if job.asked_at is None:
        return is_waiting(facts)
    was = job.state is JobState.WAITING
    asked_at = job.asked_at - SKEW_LIMIT
    later = [fact for fact in facts if fact.action not in _TAKEN and fact.seen_at >= asked_at]
    return was if all((fact.action is JobAction.WAITING) is was for fact in later) else None


def stood(job: Job, facts: Sequence[JobFact], answer: JobFact | None) -> Job:
    """Return the job as one that waits, or does not; `answer` is what GitHub said when it was asked, if it was."""
    if job.state not in _NOT_TAKEN:
        return job
    told = waits(job, facts)
    if answer is not None and answer.action not in _TAKEN:
        is_held = answer.action is JobAction.WAITING
        if told is not is_held or job.asked_at is not None:
            job = replace(job, asked_at=answer.seen_at)
        told = is_held
    if told is True and job.state in {JobState.QUEUED, JobState.PLACED}:
        return replace(job, state=JOB.move(job.state, JobState.WAITING), runner_id=None)
    if told is False and job.state is JobState.WAITING:
        return replace(job, state=JOB.move(job.state, JobState.QUEUED))
    return job


def first_row(facts: Sequence[JobFact]) -> Job:
    """Return the row of a job of which we hear for the first time; as long as it may be waiting it gets no runner."""
    fact = facts[0]
    is_queued = is_waiting(facts) is False
    job = Job(
        id=fact.job_id,
        installation_id=fact.installation_id,
        repository=fact.repository,
        run_id=fact.run_id,
        run_attempt=fact.run_attempt,
        name=fact.name,
        labels=fact.labels,
        state=JobState.QUEUED if is_queued else JobState.WAITING,
        queued_at=min(fact.seen_at for fact in facts),
    )
    return described(job, facts)


def described(job: Job, facts: Sequence[JobFact]) -> Job:
    """Note what any of the facts says of the job itself; not all of them say it."""
    return replace(
        job,
        head_sha=job.head_sha or next((fact.head_sha for fact in facts if fact.head_sha), None),
        head_branch=job.head_branch or next((fact.head_branch for fact in facts if fact.head_branch), None),
        has_deployment=_has_deployment(job, facts),
    )


def _has_deployment(job: Job, facts: Sequence[JobFact]) -> bool | None:
    """Add up who has said so and who has denied it: once said, it stays so."""
    said = {job.has_deployment, *(fact.has_deployment for fact in facts)} - {None}
    return any(said) if said else None


def action_of(status: str) -> JobAction:
    """Return which delivery tells of this status of a job."""
    return _ACTIONS.get(status, JobAction.QUEUED)


def polled_fact(
    job: Job, status: str, conclusion: str | None, taker: tuple[int | None, str | None], now: datetime
) -> JobFact:
    """Return what GitHub's API said as if a webhook had said it; it is not stored."""
    return JobFact(
        delivery="poll",
        action=action_of(status),
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
    """Note who runs it, None if it is none of our runners; a job that is over stays so.

    If another runner turns out to have it, because the first one did not start it in time, that one is named.
    """
    if job.state is JobState.RUNNING and job.end is None and runner_id is not None:
        return replace(job, runner_id=runner_id)
    state = JOB.heard(job.state, JobState.RUNNING)
    if state is not JobState.RUNNING:
        return job
    return replace(job, state=state, runner_id=runner_id, started_at=at, deferred=None)


def completed(job: Job, conclusion: str, *, with_its_host: bool) -> Job:
    """Note how it ended. `with_its_host`: its host was gone by then and had not said that the runner ended.

    A lost job stays open until its rerun has been asked for.
    """
    if job.end is not None:
        return job
    if with_its_host and job.state is JobState.RUNNING:
        job = lost(job)
    end = end_of(job, conclusion)
    job = replace(job, conclusion=conclusion, end=end, rerun=rerun_after(end), unserved=None, deferred=None)
    if job.rerun is Rerun.WANTED:
        return job
    return replace(
        job, state=JOB.heard(job.state, JobState.CANCELLED if end is JobEnd.CANCELLED else JobState.COMPLETED)
    )


def lost(job: Job) -> Job:
    """Note that the machine under a running job is no more."""
    return replace(job, state=JOB.move(job.state, JobState.LOST))


def rerun_refused(job: Job) -> Job:
    """Close a lost job that nothing takes the place of."""
    return replace(job, rerun=Rerun.REFUSED, state=JOB.move(job.state, JobState.COMPLETED))


def rerun_asked(job: Job) -> Job:
    """Close a lost job: another attempt takes its place."""
    return replace(job, rerun=Rerun.ASKED, state=JOB.move(job.state, JobState.COMPLETED))
