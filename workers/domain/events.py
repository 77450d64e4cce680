"""What has happened, in the order in which we came to know it: facts from outside and the timeline that people read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum, auto

from workers.domain.names import HostId, JobId, MigrationId, RunnerId


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


class Happening(StrEnum):
    """Entries of the timeline."""

    JOB_QUEUED = auto()
    JOB_UNSERVED = auto()
    JOB_PLACED = auto()
    JOB_STARTED = auto()
    JOB_COMPLETED = auto()
    JOB_LOST = auto()
    RERUN_ASKED = auto()
    RUNNER_REQUESTED = auto()
    RUNNER_RESTORED = auto()
    RUNNER_REGISTERED = auto()
    RUNNER_STARTED = auto()
    RUNNER_STOPPED = auto()
    RUNNER_GONE = auto()
    REGISTRATION_LEFT = auto()
    """GitHub does not let us take it away: our App is not installed there any more, or may not do so."""
    HOLD_BEGAN = auto()
    HOLD_ENDED = auto()
    """Let go by the job before its time."""
    HOLD_BROKEN = auto()
    """By the deadline of its host."""
    HOST_REQUESTED = auto()
    HOST_LAUNCHED = auto()
    HOST_REGISTERED = auto()
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
