"""What the simulated GitHub knows; plain records, changed only by `world` and `broker`, under the world's lock."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum, auto
from typing import Any

Json = dict[str, Any]
Tree = Any  # any part of a JSON document


class ApiError(Exception):
    """An answer other than 2XX, in GitHub's own words where they are known."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class JobStatus(StrEnum):
    """The part of GitHub's job states that a self-hosted job goes through."""

    WAITING = auto()
    """The rules of its environment hold it back."""
    QUEUED = auto()
    IN_PROGRESS = auto()
    COMPLETED = auto()


@dataclass(frozen=True)
class App:
    """One GitHub App."""

    id: int
    name: str
    owner: str
    public_key: str
    """PEM."""
    permissions: dict[str, str]
    events: tuple[str, ...]
    hook_url: str
    hook_secret: str = field(repr=False)
    setup_url: str | None = None
    is_public: bool = True

    @property
    def slug(self) -> str:
        return self.name.lower().replace(" ", "-")


@dataclass(frozen=True)
class Installation:
    """An App, installed in one account."""

    id: int
    account: str
    created_at: datetime
    app: App
    permissions: dict[str, str]
    """What the account's owner has accepted."""
    updated_at: datetime | None = None
    suspended_at: datetime | None = None
    left: frozenset[str] = frozenset()
    """Repositories that were taken out of it, in lower case."""


@dataclass(frozen=True)
class Token:
    """An installation's access token."""

    text: str = field(repr=False)
    installation: Installation
    expires_at: datetime


@dataclass(frozen=True)
class Group:
    """A runner group; a repository's own runners are in one that admits it."""

    id: int
    name: str
    repositories: frozenset[str] | None = None
    """Those that it admits, in lower case; None: all of its organization."""

    def admits(self, repository: str) -> bool:
        """Say whether jobs of this repository may run here."""
        return self.repositories is None or repository.lower() in self.repositories


# Every repository and every organization has it.
DEFAULT_GROUP = Group(1, "Default")


@dataclass
class Runner:
    """One registration, good for one job."""

    id: int
    name: str
    labels: tuple[str, ...]
    scope: str
    """`owner/repository`, or `owner` for a runner of the whole organization."""
    secret: str = field(repr=False)
    registered_at: datetime
    session: str | None = None
    version: str = ""
    """Of its program, as it said when it opened its session."""
    connected_at: datetime | None = None
    seen_at: datetime | None = None
    job: Job | None = None
    """Offered or taken."""
    gone_because: str | None = None
    group: Group = DEFAULT_GROUP


@dataclass
class Step:
    """One `run:` step in one attempt."""

    number: int
    name: str
    run: str
    starts: int = 0
    started_at: datetime | None = None
    completed_at: datetime | None = None
    conclusion: str | None = None


@dataclass(frozen=True)
class Line:
    """One line of a job's log."""

    at: datetime
    """When it came here."""
    written_at: float
    """When the runner read it, Unix time by the runner's clock."""
    step: int
    text: str


@dataclass
class Job:
    """One attempt at one job."""

    id: int
    run: Run
    slot: int
    """Which job of the run this is; the same in every attempt."""
    attempt: int
    name: str
    labels: tuple[str, ...]
    steps: list[Step]
    created_at: datetime
    status: JobStatus = JobStatus.QUEUED
    conclusion: str | None = None
    runner: Runner | None = None
    """Who was offered it, then who took it."""
    offered_until: datetime | None = None
    lock_until: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    log: list[Line] = field(default_factory=list)
    environment: str | None = None
    """Where it deploys to."""
    deployed_at: datetime | None = None
    """When it was held back or approved last."""
    digests: list[str] = field(default_factory=list)
    """One for each event that the runner has sent, so that a doubled one is known and a forged double is seen."""

    @property
    def is_over(self) -> bool:
        return self.status is JobStatus.COMPLETED


@dataclass
class Run:
    """One workflow run with all its attempts."""

    id: int
    repository: str
    created_at: datetime
    attempt: int = 1
    jobs: list[Job] = field(default_factory=list)
    """Of every attempt, oldest first."""
    is_of_fork: bool = False
    """What it runs is the code of a fork."""
    branch: str = "main"
    is_private: bool = False
    """Not everybody can see its repository."""

    @property
    def head_sha(self) -> str:
        """The commit that it runs: one of its own, as every push makes one."""
        return hashlib.sha1(f"{self.repository} {self.id}".encode(), usedforsecurity=False).hexdigest()

    def of_attempt(self, attempt: int | None = None) -> list[Job]:
        """Return the jobs of one attempt, the latest by default."""
        return [job for job in self.jobs if job.attempt == (attempt or self.attempt)]

    @property
    def is_over(self) -> bool:
        return all(job.is_over for job in self.of_attempt())

    @property
    def conclusion(self) -> str | None:
        """Summarise as GitHub does: one failure fails the run."""
        if not self.is_over:
            return None
        conclusions = [job.conclusion or "neutral" for job in self.of_attempt()]
        return next((word for word in ("failure", "cancelled") if word in conclusions), "success")


@dataclass(frozen=True)
class Violation:
    """Something that the published contract, or plain sense, does not allow."""

    at: datetime
    where: str
    what: str


@dataclass
class Delivery:
    """One try to deliver one webhook."""

    id: int
    guid: str
    event: str
    action: str | None
    installation_id: int | None
    payload: dict[str, Any] = field(repr=False)
    app: App
    """Whose webhook it is."""
    redelivery: bool = False
    delivered_at: datetime | None = None
    """None while it waits."""
    status_code: int = 0
    status: str = "pending"
    duration: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    answer: str = ""
