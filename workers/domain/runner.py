"""A runner: one registration with GitHub = one microVM = one job.

    REQUESTED ──▶ BOOTING ──▶ IDLE ──▶ BUSY ──▶ STOPPING ──▶ GONE
        │            │         │ ▲      ▲          ▲
        │            │         ▼ │      │          │
        │            │      RETIRING ───┘──────────┤     (back to BUSY: a job slipped in)
        └────────────┴─────────────────────────────┘

There is no state for moving: a runner may have a `migration_id`, its `host_id`
changes once per migration, at its commit, and every change of ownership
increments `epoch`. Teardown is deregister, stop, wipe. The runner of a LOST
host is GONE only when the cloud says that the instance is terminated or GitHub
says that the job is completed: a host cut off from us may still be running it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum, auto
from typing import Final

from workers.domain.lifecycle import Lifecycle
from workers.domain.names import GuestAddress, HostId, JobId, MigrationId, PackageDigest, RunnerId, guest_address
from workers.domain.overlay import GuestNetwork


class RunnerState(StrEnum):
    REQUESTED = auto()
    BOOTING = auto()
    IDLE = auto()
    BUSY = auto()
    RETIRING = auto()
    STOPPING = auto()
    GONE = auto()


_R = RunnerState
RUNNER: Final = Lifecycle(
    first=_R.REQUESTED,
    moves={
        _R.REQUESTED: frozenset({_R.BOOTING, _R.STOPPING, _R.GONE}),
        _R.BOOTING: frozenset({_R.IDLE, _R.BUSY, _R.STOPPING, _R.GONE}),
        _R.IDLE: frozenset({_R.BUSY, _R.RETIRING, _R.STOPPING, _R.GONE}),
        _R.RETIRING: frozenset({_R.BUSY, _R.STOPPING, _R.GONE}),
        _R.BUSY: frozenset({_R.STOPPING, _R.GONE}),
        _R.STOPPING: frozenset({_R.GONE}),
        _R.GONE: frozenset(),
    },
)


class RunnerEnd(StrEnum):
    """Why a runner is being ended."""

    JOB_COMPLETED = auto()
    UNUSED = auto()
    UNTOLD = auto()
    """Its program has ended, and nobody has told us of a job that it ran."""
    BOOT_FAILED = auto()
    HOST_LEAVING = auto()
    HOST_LOST = auto()
    PARKED_TOO_LONG = auto()
    """No host could take it out of the store before GitHub gave its job up."""
    REQUEUED = auto()
    """Running its job again costs less than moving it."""
    JOB_TOO_LONG = auto()
    """Its job has had all the time that it may have."""
    JOB_REFUSED = auto()
    """GitHub gave it a job that no pool takes."""
    VANISHED = auto()
    """Its host is well and does not have its microVM any more."""


class Level(StrEnum):
    """Whose runner it is at GitHub."""

    REPOSITORY = auto()
    ORGANIZATION = auto()
    """GitHub may give it a job of any repository that its runner group admits."""


# GitHub's default runner group, which every repository and organization has.
DEFAULT_GROUP: Final = 1
# The job runs when these begin, and is to end with its guest.
ENDS_ITS_JOB: Final = frozenset({RunnerEnd.REQUEUED, RunnerEnd.JOB_TOO_LONG, RunnerEnd.JOB_REFUSED, RunnerEnd.VANISHED})


@dataclass(frozen=True)
class Shape:
    """What a runner's microVM takes of its host."""

    vcpus: int
    memory_mib: int
    disk_mib: int


@dataclass(frozen=True)
class Runner:
    """One microVM and its registration."""

    id: RunnerId
    number: int
    """Its place in the guest network; not given to another while this runner is not GONE."""
    job_id: JobId
    """The demand that it was made for, then the job that it took."""
    installation_id: int
    repository: str
    """Of that job."""
    labels: tuple[str, ...]
    package: PackageDigest
    shape: Shape
    state: RunnerState
    requested_at: datetime
    host_id: HostId | None
    """None: its guest lies in the object store."""
    epoch: int = 1
    migration_id: MigrationId | None = None
    github_id: int | None = None
    """GitHub's number of the registration."""
    idle_at: datetime | None = None
    end: RunnerEnd | None = None
    parked_at: datetime | None = None
    """Since when it lies in the store."""
    hold_limit_s: int = 0
    """How long its job may ask not to be moved, in all."""
    network: GuestNetwork = GuestNetwork.RELAY
    """How its guest leaves into the internet, wherever it is moved."""
    pool: str = ""
    """Whose demand it was made for; empty: by an older program, which did not write it down."""
    level: Level = Level.REPOSITORY
    group_id: int = DEFAULT_GROUP
    """GitHub's number of the runner group that it is registered in."""

    @property
    def place(self) -> str:
        """Where it is registered: `owner/name`, or `owner` for the whole organization."""
        return place_of(self.repository, self.level)

    @property
    def is_parked(self) -> bool:
        """Its guest lies in the object store and runs nowhere."""
        return self.host_id is None

    @property
    def address(self) -> GuestAddress:
        """Where the guest is found, on whichever host it runs."""
        return guest_address(self.number)

    @property
    def is_movable(self) -> bool:
        """Only a runner that has, or may have, a job is worth a migration; the others are stopped and placed again."""
        return self.state in {RunnerState.IDLE, RunnerState.BUSY, RunnerState.RETIRING}


def place_of(repository: str, level: Level) -> str:
    """Return where runners for this repository are registered: `owner/name`, or `owner` for the organization."""
    return repository if level is Level.REPOSITORY else repository.partition("/")[0]


@dataclass(frozen=True)
class Quota:
    """How many runners one repository may have in a pool; counted where a runner is written down."""

    pool: str
    repository: str
    runners_max: int

    def counts(self, pool: str, repository: str) -> bool:
        """Say whether a runner is one of those; repositories are compared without case."""
        return (pool, repository.lower()) == (self.pool, self.repository.lower())
