"""What GitHub lists when it is asked, whether or not it ever told us."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from workers.domain.names import JobId


@dataclass(frozen=True, order=True)
class Scope:
    """One repository, as one installation of our App reaches it."""

    installation_id: int
    repository: str
    """`owner/name`; runners may also be registered for a whole `owner`."""


@dataclass(frozen=True)
class InstallationListed:
    """One installation of an App of ours, as it stands now."""

    id: int
    account: str
    said_at: datetime
    """GitHub's own date of its last change, which not every change moves."""
    is_suspended: bool
    takes_all: bool


@dataclass(frozen=True)
class DeliveryTry:
    """One try to deliver one webhook."""

    id: int
    guid: str
    """`X-GitHub-Delivery`: the same in every try."""
    delivered_at: datetime
    is_ok: bool
    app: int
    """Whose webhook it went to."""


@dataclass(frozen=True)
class DeliveryPage:
    """Some tries, the newest first."""

    tries: tuple[DeliveryTry, ...]
    older: str | None
    """The cursor of the page with the next older ones; None: there are none."""


@dataclass(frozen=True)
class JobListed:
    """One attempt at one job."""

    id: JobId
    run_id: int
    run_attempt: int
    name: str
    labels: tuple[str, ...]
    status: str
    conclusion: str | None
    runner_id: int | None
    runner_name: str | None
    head_sha: str | None = None
    head_branch: str | None = None


@dataclass(frozen=True)
class RunnerListed:
    """One registration."""

    github_id: int
    name: str
    is_busy: bool
    """GitHub has given it a job."""
