"""What the lists of a repository's runs and jobs say that no delivery has told us: pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from workers.domain.events import SWEPT, Delivery, JobAction, JobFact
from workers.domain.job import Job, JobState
from workers.domain.labels import reading
from workers.domain.listed import JobListed, Scope
from workers.domain.names import JobId
from workers.planning.facts import action_of

_J = JobState


def runs_to_ask(listed: Iterable[int], rows: Iterable[Job]) -> list[int]:
    """Return the runs to look into: what GitHub calls unfinished, and what we believe to be."""
    return list(dict.fromkeys((*listed, *(row.run_id for row in rows if row.end is None))))


def news(
    jobs: Sequence[JobListed],
    rows: Mapping[JobId, Job],
    scope: Scope,
    now: datetime,
    untold: Collection[str] = (),
) -> Iterator[Delivery]:
    """Yield what is not in the rows, as if it had been delivered.

    `untold` names the runners of ours that have run what nobody told us of.

    Its GUID follows from what it says, so that the store keeps it once, whoever finds it how often. Only that a job
    waits no more may be said of it several times.
    """
    for job in jobs:
        action, row = action_of(job.status), rows.get(job.id)
        if _is_news(action, row, was_ours=_was_ours(job, untold)):
            guid = f"{SWEPT}{job.id}-{action.value}"
            if row is not None and action is JobAction.QUEUED:
                guid += f"-{now.isoformat()}"
            yield Delivery(guid, "workflow_job", action.value, now, b"", _fact(guid, action, job, scope, now))


def _was_ours(job: JobListed, untold: Collection[str]) -> bool:
    """Say whether we have run it, or it was waiting for us when it ended."""
    return reading(job.labels).is_ours if job.runner_name is None else job.runner_name in untold


def _is_news(action: JobAction, row: Job | None, *, was_ours: bool) -> bool:
    """Say whether this goes beyond the row; what ended before we knew of it is of interest if it was ours."""
    if row is None:
        return action is not JobAction.COMPLETED or was_ours
    match action:
        case JobAction.QUEUED:
            return row.state is _J.WAITING
        case JobAction.WAITING:
            return False
        case JobAction.IN_PROGRESS:
            return row.state in {_J.WAITING, _J.QUEUED, _J.PLACED}
        case JobAction.COMPLETED:
            return row.end is None


def _fact(guid: str, action: JobAction, job: JobListed, scope: Scope, now: datetime) -> JobFact:
    return JobFact(
        delivery=guid,
        action=action,
        seen_at=now,
        job_id=job.id,
        installation_id=scope.installation_id,
        repository=scope.repository,
        run_id=job.run_id,
        run_attempt=job.run_attempt,
        name=job.name,
        labels=job.labels,
        runner_id=job.runner_id,
        runner_name=job.runner_name,
        conclusion=job.conclusion,
        head_sha=job.head_sha,
        head_branch=job.head_branch,
    )
