"""What has happened, in the order in which we came to know it: facts from outside and the timeline that people read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum, auto
from typing import Final

from workers.domain.installation import InstallationFact
from workers.domain.names import HostId, JobId, MigrationId, RunnerId

# The GUIDs of what was found by asking begin so, and GitHub's are hexadecimal.
SWEPT: Final = "sweep-"


class JobAction(StrEnum):
    """The actions of GitHub's `workflow_job` event."""

    QUEUED = auto()
    WAITING = auto()
    IN_PROGRESS = auto()
    COMPLETED = auto()


@dataclass(frozen=True)
class JobFact:
    """What one delivery said about one job."""

    delivery: str
    """`X-GitHub-Delivery`: a redelivery carries the same one."""
    action: JobAction
    seen_at: datetime
    job_id: JobId
    installation_id: int
    repository: str
    run_id: int
    run_attempt: int
    name: str
    labels: tuple[str, ...]
    runner_id: int | None = None
    runner_name: str | None = None
    conclusion: str | None = None
    is_public: bool | None = None
    """Anybody can see its repository; None: not said."""
    head_sha: str | None = None
    """The commit that it runs."""
    head_branch: str | None = None
    deployment_at: datetime | None = None
    """`deployment.updated_at`, the only moment of GitHub's that orders `waiting` and `queued`; None: not said."""

    @property
    def has_deployment(self) -> bool | None:
        """It deploys to an environment; None: it was found in a list of jobs, and those do not say."""
        if self.deployment_at is not None:
            return True
        return None if self.delivery.startswith(SWEPT) else False


@dataclass(frozen=True)
class Delivery:
    """One webhook delivery as it came."""

    guid: str
    """`X-GitHub-Delivery`: counted once, however often it comes."""
    event: str
    action: str | None
    received_at: datetime
    body: bytes
    """The raw body, compressed with zstd."""
    fact: JobFact | None = None
    """What it said about a job, if it did."""
    installation: InstallationFact | None = None
    """What it said about an installation, if it did."""
    refused: str | None = None
    """Why nothing comes of it, in words for the administrator."""


class Happening(StrEnum):
    """Entries of the timeline."""

    JOB_QUEUED = auto()
    JOB_WAITING = auto()
    """The rules of its environment hold it back."""
    JOB_UNSERVED = auto()
    JOB_DEFERRED = auto()
    """It is served, but not now: a limit of its pool, or its budget."""
    JOB_PLACED = auto()
    JOB_REQUEUED = auto()
    """The runner on which it counted will not run it, so it gets another one."""
    JOB_STARTED = auto()
    JOB_COMPLETED = auto()
    JOB_LOST = auto()
    JOB_STOPPED = auto()
    """Nothing is done any more for the installation, or the repository, that it belongs to, or GitHub has ended it."""
    INSTALLATION_CHANGED = auto()
    """Our App was installed, suspended or removed somewhere, or may work in other repositories."""
    RERUN_ASKED = auto()
    RERUN_REFUSED = auto()
    """By its labels, its deployment, our own bound, or GitHub."""
    RUNNER_REQUESTED = auto()
    RUNNER_RESTORED = auto()
    RUNNER_REGISTERED = auto()
    RUNNER_STARTED = auto()
    RUNNER_TAKEN = auto()
    """GitHub gave it to another job than the one that counted on it."""
    RUNNER_STOPPED = auto()
    RUNNER_GONE = auto()
    REGISTRATION_LEFT = auto()
    """GitHub does not let us take it away: our App is not installed there any more, or may not do so."""
    REAPED = auto()
    """Something was left over, or had vanished, on one of three sides: our rows, GitHub, the hosts."""
    BREAKER_TRIPPED = auto()
    """Runner after runner got no job although jobs wait: no more of their kind is made for a while."""
    BREAKER_CLOSED = auto()
    HOLD_BEGAN = auto()
    HOLD_ENDED = auto()
    """Let go by the job before its time."""
    HOLD_BROKEN = auto()
    """By the deadline of its host."""
    HOST_REQUESTED = auto()
    LAUNCH_REFUSED = auto()
    """The cloud will never carry it out; `because` says where, what and what to do."""
    HOST_LAUNCHED = auto()
    HOST_RUNNING = auto()
    """Its machine has begun to run, as it says itself when it registers."""
    HOST_REGISTERED = auto()
    REGISTRATION_REFUSED = auto()
    """Somebody came with its token, and `because` says why he is not let in."""
    HOST_TROUBLED = auto()
    """It is PREPARING and says itself why it is not ready."""
    HOST_READY = auto()
    HOST_NOTICE = auto()
    HOST_DRAINING = auto()
    HOST_LOST = auto()
    HOST_TERMINATED = auto()
    EVACUATION_DECIDED = auto()
    MIGRATION_PLANNED = auto()
    MIGRATION_RECEIVING = auto()
    MIGRATION_COPYING = auto()
    MIGRATION_PAUSED = auto()
    MIGRATION_COMMITTED = auto()
    MIGRATION_RUNNING = auto()
    MIGRATION_FINISHED = auto()
    MIGRATION_ABORTED = auto()
    PARK_ENDED = auto()
    """Its key and its objects are destroyed."""
    RELAY_POINTED = auto()
    POLICY_READ = auto()
    """The pools file was changed."""
    POLICY_REFUSED = auto()
    """It was changed into something that is not right, so the former one holds."""


@dataclass(frozen=True)
class Event:
    """One entry of the timeline."""

    happening: Happening
    at: datetime
    job_id: JobId | None = None
    runner_id: RunnerId | None = None
    host_id: HostId | None = None
    migration_id: MigrationId | None = None
    detail: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)
