"""A job: GitHub's, and GitHub is the authority on it.

    QUEUED ──▶ PLACED ──▶ RUNNING ──▶ COMPLETED
      ▲          │           │
      └──────────┘           └──────▶ LOST ──▶ COMPLETED   (GitHub fails it when its lock expires)
    anything before COMPLETED ──▶ CANCELLED

A lost job stays LOST, although GitHub has failed it, until its rerun has been
asked for, so that nobody forgets to ask.

A placement is demand, not identity: a runner was made because this job waits,
but only GitHub's `in_progress` says which runner took it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum, auto
from typing import Final, assert_never

from workers.domain.labels import Interrupt
from workers.domain.lifecycle import Lifecycle
from workers.domain.names import JobId, RunnerId
from workers.domain.pools import Terms


class JobState(StrEnum):
    QUEUED = auto()
    PLACED = auto()
    RUNNING = auto()
    LOST = auto()
    COMPLETED = auto()
    CANCELLED = auto()


_J = JobState
JOB: Final = Lifecycle(
    first=_J.QUEUED,
    moves={
        _J.QUEUED: frozenset({_J.PLACED, _J.RUNNING, _J.COMPLETED, _J.CANCELLED}),
        _J.PLACED: frozenset({_J.QUEUED, _J.RUNNING, _J.COMPLETED, _J.CANCELLED}),
        _J.RUNNING: frozenset({_J.LOST, _J.COMPLETED, _J.CANCELLED}),
        _J.LOST: frozenset({_J.COMPLETED, _J.CANCELLED}),
        _J.COMPLETED: frozenset(),
        _J.CANCELLED: frozenset(),
    },
)


class Rerun(StrEnum):
    """What has become of the rerun that a lost job needs."""

    NONE = auto()
    WANTED = auto()
    ASKED = auto()


class JobEnd(StrEnum):
    """Why a job is over."""

    SUCCEEDED = auto()
    FAILED = auto()
    CANCELLED = auto()
    LOST = auto()


@dataclass(frozen=True)
class Job:
    """One attempt at one job of a workflow."""

    id: JobId
    installation_id: int
    repository: str
    run_id: int
    run_attempt: int
    name: str
    labels: tuple[str, ...]
    state: JobState
    queued_at: datetime
    """When the webhook's fact reached us."""
    runner_id: RunnerId | None = None
    """The runner that was made for it, then the one that GitHub says runs it."""
    conclusion: str | None = None
    """GitHub's word, once completed."""
    end: JobEnd | None = None
    rerun: Rerun = Rerun.NONE
    unserved: str | None = None
    """Why nobody serves its labels, in words for the user."""
    terms: Terms | None = None
    """What it gets for its labels; None: not judged yet, or nobody serves them."""
    started_at: datetime | None = None
    """When we heard that it runs."""

    @property
    def must_end_at(self) -> datetime | None:
        """When it has had the time that its labels, or its pool, give it."""
        if self.started_at is None or self.terms is None or self.terms.max_minutes is None:
            return None
        return self.started_at + timedelta(minutes=self.terms.max_minutes)

    @property
    def may_rerun(self) -> bool:
        """Its labels, or its pool, say that it may be stopped and run again instead of being moved."""
        return self.terms is not None and self.terms.interrupt is Interrupt.RERUN


def end_of(job: Job, conclusion: str) -> JobEnd:
    """Say why a job that GitHub calls completed is over; a lost one that has failed was failed by its lock."""
    if conclusion in {"success", "neutral", "skipped"}:
        return JobEnd.SUCCEEDED
    if conclusion == "cancelled":
        return JobEnd.CANCELLED
    return JobEnd.LOST if job.state is JobState.LOST else JobEnd.FAILED


def rerun_after(end: JobEnd) -> Rerun:
    """Say whether a job that ended like this is to be run again."""
    match end:
        case JobEnd.LOST:
            return Rerun.WANTED
        case JobEnd.SUCCEEDED | JobEnd.FAILED | JobEnd.CANCELLED:
            return Rerun.NONE
        case _:
            assert_never(end)
