"""What becomes of a job that was lost after all: run again, by which of GitHub's two ways, or not, and why.

lost ─▶ refused? ─▶ answered by a later attempt? ─▶ attempt ended? ─▶ together, if nobody failed by itself ─▶ or alone

A run can be run again only once its attempt has ended. GitHub's `rerun-failed-jobs` takes everything that failed or was
cancelled into one next attempt; it is used if all that failed was lost by us, and brings back what GitHub cancelled
because of that. If some other job has failed by itself, it would be run again too, and hide what is wrong with it: then
each lost job is asked for alone, one attempt after the other.

Attempts at one job are told by its name: a rerun has another number, `check_run_url` and `node_id` follow from it, and
neither deliveries nor the API say which job of the workflow, or which cell of its matrix, one is. Labels may name the
attempt, so they tell nothing apart either, or reruns might have no end. Several jobs of one run may have one name,
though (`name:` without the matrix in it). Such namesakes are counted: each has one row in an attempt, so none was run
again more often than in as many attempts as any of them was, and each rerun that one was given is nobody else's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Final

from workers.domain.job import JOB, RERUNS_MAX, Job, JobState, Rerun, RunJob
from workers.domain.labels import Again
from workers.domain.names import JobId

# What GitHub says of a job that has not failed by itself.
BLAMELESS = frozenset({"success", "skipped", "neutral", "cancelled"})
# That a job has ended is told at once, or found within five minutes by asking for it, unless there is little budget.
UNHEARD_LIMIT: Final = timedelta(minutes=10)


class Way(Enum):
    WAIT = auto()
    """The attempt has not ended, or we do not know yet why some job of it has failed."""
    TOGETHER = auto()
    ALONE = auto()
    NEEDLESS = auto()
    """It was run again, and succeeded, and we have not heard of it."""


def refusal(job: Job, attempts: Sequence[Job], unsaid: str = "GitHub was not asked yet") -> str | None:
    """Say why a lost job is not run again, in words for the user; None if it is. `attempts`: all jobs of its run.

    `unsaid`: why it is not known whether it holds a deployment, if that is not known.
    """
    if job.terms is not None and job.terms.rerun is Again.NEVER:
        return "its labels, or its pool, say rerun=never"
    if not job.is_rerun_allowed and job.has_deployment:
        return (
            "it holds a deployment, of which some may have happened; look at it and run it again by hand, or let its "
            "labels say rerun=always"
        )
    if reruns_of(job, attempts) >= RERUNS_MAX:
        return f"it was lost and run again {RERUNS_MAX} times before; run it again by hand"
    if not job.is_rerun_allowed:
        return (
            f"it may hold a deployment, of which some may have happened, and whether it does is not known: {unsaid}; "
            "look at it and run it again by hand, or let its labels say rerun=always"
        )
    return None


def hangs_on_its_deployment(job: Job, attempts: Sequence[Job]) -> bool:
    """Say whether it is run again only if it holds no deployment, and that is not known."""
    if job.has_deployment is not None or job.is_rerun_allowed:
        return False
    return refusal(replace(job, has_deployment=False), attempts) is None


def reruns_of(job: Job, attempts: Sequence[Job]) -> int:
    """Return how often this job was lost and run again before this attempt."""
    asked = [one for one in _attempts_at(job, attempts) if one.rerun is Rerun.ASKED]
    return len({one.run_attempt for one in asked if one.run_attempt < job.run_attempt})


def is_answered(job: Job, attempts: Sequence[Job]) -> bool:
    """Say whether a later attempt at this job is known: whoever asked for it, and unless it is a namesake's."""
    later = [one for one in _attempts_at(job, attempts) if one.run_attempt > job.run_attempt]
    return len(later) > len([one for one in _run_again(job, attempts) if one.run_attempt >= job.run_attempt])


def has_ended(attempts: Sequence[Job]) -> bool:
    """Say whether the run has ended as far as we know."""
    return not any(one.state in JOB.open and one.end is None for one in attempts)


def way(job: Job, attempts: Sequence[Job], latest: Sequence[RunJob], now: datetime) -> Way:
    """Say how to ask for a rerun; `latest` is what GitHub says of the run's latest attempt."""
    if any(one.status != "completed" for one in latest):
        return Way.WAIT
    if _has_succeeded_since(job, attempts, latest):
        return Way.NEEDLESS
    wanted = {one.id for one in attempts if is_wanted(one, attempts)}
    failed = {one.id for one in latest if one.conclusion not in BLAMELESS}
    if job.id in failed and failed <= wanted:
        return Way.TOGETHER
    return Way.WAIT if _is_unheard(attempts, latest, now) else Way.ALONE


def target(job: Job, latest: Sequence[RunJob]) -> JobId:
    """Return the number by which the latest attempt has this job, if it has it and it has not succeeded there."""
    if any(one.id == job.id for one in latest):
        return job.id
    return next((one.id for one in latest if one.name == job.name and one.conclusion != "success"), job.id)


def is_wanted(job: Job, attempts: Sequence[Job]) -> bool:
    """Say whether this job was lost and is to be run again, also if we have not heard yet that GitHub has failed it."""
    return job.state is JobState.LOST and job.rerun in {Rerun.NONE, Rerun.WANTED} and refusal(job, attempts) is None


def _is_unheard(attempts: Sequence[Job], latest: Sequence[RunJob], now: datetime) -> bool:
    """Say whether some job failed of which we have not heard how it ended: it may have been lost, too.

    For so long only as it may take to hear of it, so a row that nothing reaches any more holds nothing up.
    """
    open_ids = {one.id for one in attempts if one.state is not JobState.LOST and one.end is None}
    return any(
        one.id in open_ids and one.completed_at is not None and now - one.completed_at < UNHEARD_LIMIT
        for one in latest
        if one.conclusion not in BLAMELESS
    )


def _has_succeeded_since(job: Job, attempts: Sequence[Job], latest: Sequence[RunJob]) -> bool:
    """Say whether GitHub has a later success of this job.

    GitHub has listed both, all jobs of the latest attempt and only those that ran in it (r-universe-org/help #607). So
    a success is a namesake's as long as there are no more of them than namesakes that we had run again.
    """
    later = [one for one in latest if one.name == job.name]
    if any(one.id == job.id or one.conclusion != "success" for one in later):
        return False
    return len(later) > len([one for one in _run_again(job, attempts) if one.run_attempt == job.run_attempt])


def _run_again(job: Job, attempts: Sequence[Job]) -> list[Job]:
    """Return what was run again under this job's name, without itself."""
    return [one for one in _attempts_at(job, attempts) if one.rerun is Rerun.ASKED and one.id != job.id]


def _attempts_at(job: Job, attempts: Sequence[Job]) -> list[Job]:
    """Return the attempts at one job and at its namesakes."""
    return [one for one in attempts if one.name == job.name]
