"""A job: GitHub's, and GitHub is the authority on it.

    QUEUED ──▶ PLACED ──▶ RUNNING ──▶ COMPLETED
     ▲ ▲ │       │ │         │
     │ └─┼───────┘ │         └──────▶ LOST ──▶ COMPLETED   (GitHub fails it when its lock expires)
     ▼   ▼         ▼
    WAITING ◀──────┘         (the rules of its environment hold it back; it gets no runner, and RUNNING is heard of it)
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

from workers.domain.labels import Again, Interrupt
from workers.domain.lifecycle import Lifecycle
from workers.domain.names import JobId, RunnerId
from workers.domain.pools import Terms

# A job that was lost so often is lost by something that a rerun does not mend.
RERUNS_MAX: Final = 2
# GitHub names the branches of its merge queues so.
MERGE_QUEUE: Final = "gh-readonly-queue/"


class JobState(StrEnum):
    WAITING = auto()
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
        _J.WAITING: frozenset({_J.QUEUED, _J.RUNNING, _J.COMPLETED, _J.CANCELLED}),
        _J.QUEUED: frozenset({_J.WAITING, _J.PLACED, _J.RUNNING, _J.COMPLETED, _J.CANCELLED}),
        _J.PLACED: frozenset({_J.WAITING, _J.QUEUED, _J.RUNNING, _J.COMPLETED, _J.CANCELLED}),
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
    REFUSED = auto()
    """It is not run again; beside its commit it says why."""


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
    asked_at: datetime | None = None
    """When GitHub was last asked whether it waits, because what it had told us did not say."""
    head_sha: str | None = None
    """The commit that it runs; None: heard of by a program that did not ask."""
    head_branch: str | None = None
    has_deployment: bool | None = None
    """It deploys to an environment, so that running it again may do something twice; None: nobody has said."""
    lost_at: datetime | None = None
    """When we noticed that its machine is no more."""
    deferred: str | None = None
    """Why it gets no runner now although its labels are served, in words for the user."""

    @property
    def must_end_at(self) -> datetime | None:
        """When it has had the time that its labels, or its pool, give it."""
        if self.started_at is None or self.terms is None or self.terms.max_minutes is None:
            return None
        return self.started_at + timedelta(minutes=self.terms.max_minutes)

    @property
    def may_rerun(self) -> bool:
        """Its labels, or its pool, say that it may be stopped and run again instead of being moved."""
        asks = self.terms is not None and self.terms.interrupt is Interrupt.RERUN
        return asks and self.is_rerun_allowed and self.run_attempt <= RERUNS_MAX

    @property
    def is_rerun_allowed(self) -> bool:
        """It may be run again if it is lost, as far as its labels, its pool and its deployment have a say."""
        rule = self.terms.rerun if self.terms is not None else Again.AUTO
        return rule is Again.ALWAYS or (rule is Again.AUTO and self.has_deployment is False)

    @property
    def is_of_merge_queue(self) -> bool:
        """A merge queue waits for it."""
        return self.head_branch is not None and self.head_branch.startswith(MERGE_QUEUE)


@dataclass(frozen=True)
class RunJob:
    """One job in the latest attempt of its run, as GitHub's API has it."""

    id: JobId
    name: str
    status: str
    conclusion: str | None
    completed_at: datetime | None = None


@dataclass(frozen=True)
class JobSeen:
    """What GitHub's API says about a job."""

    status: str
    conclusion: str | None
    runner_id: int | None
    runner_name: str | None
    run_attempt: int


@dataclass(frozen=True)
class RunSeen:
    """What GitHub's API says about the run of a job."""

    is_public: bool
    """Anybody can see its repository."""
    is_fork: bool
    """The code that it runs is not of its repository."""


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
