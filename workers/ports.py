"""What the reconcilers need of the world, as narrow promises; adapters keep them, fakes too."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum, auto
from typing import Protocol, TypeVar

from workers.domain.breaker import Breaker
from workers.domain.events import Delivery, Event, JobFact
from workers.domain.hold import Hold
from workers.domain.host import Host
from workers.domain.host_class import HostClass
from workers.domain.installation import Installation
from workers.domain.job import Job, JobSeen, RunJob, RunSeen
from workers.domain.listed import Scope
from workers.domain.market import ANYWHERE, Sources
from workers.domain.messages import BootOrder, MoveOrder, RunnerReport
from workers.domain.migration import LineSeen, Migration, Ports
from workers.domain.names import GuestAddress, HostId, JobId, MigrationId, RunnerId
from workers.domain.overlay import Station
from workers.domain.park import ObjectMethod
from workers.domain.remark import Remark
from workers.domain.runner import DEFAULT_GROUP, Quota, Runner, Shape
from workers.domain.whereabouts import Machine

Row = TypeVar("Row", Job, Runner, Host, Migration)
Key_contra = TypeVar("Key_contra", JobId, RunnerId, HostId, MigrationId, contravariant=True)


class Clock(Protocol):
    def now(self) -> datetime:
        """Return the present moment, aware and in UTC."""


# ---------------------------------------------------------------- the store


class Lease(Protocol[Row]):
    """The right to work on one row for at most ten seconds."""

    @property
    def row(self) -> Row:
        """The row as it was when the lease was taken, or as last written."""

    def write(self, row: Row, *also: Job | Runner | Host | Migration | Event | Quota) -> None:
        """Write the row and, in the same transaction, new rows and timeline entries.

        Only what differs from `row` is written. `also` inserts rows whose id is not known yet and updates none. Runners
        and migrations must find room on their hosts, and runners behind a Quota be within it. Raises `LeaseLost`, or
        `NoRoom` (also if a runner's number is taken or it is on its way already), and then nothing was written.
        """


class Shelf(Protocol[Key_contra, Row]):
    """All rows of one kind."""

    def get(self, key: Key_contra) -> Row | None:
        """Return one row."""

    def open(self) -> Sequence[Row]:
        """Return every row that is not at the end of its lifecycle, oldest first."""

    def add(self, row: Row, *events: Event) -> bool:
        """Insert; False, and nothing is written, if the id is known already."""

    def lease(self, key: Key_contra) -> AbstractContextManager[Lease[Row]]:
        """Lease one row; released at the end of the block. Raises `LeaseLost` if somebody else has it."""


class Store(Protocol):
    """The truth."""

    @property
    def jobs(self) -> Shelf[JobId, Job]: ...
    @property
    def runners(self) -> Shelf[RunnerId, Runner]: ...
    @property
    def hosts(self) -> Shelf[HostId, Host]: ...
    @property
    def migrations(self) -> Shelf[MigrationId, Migration]: ...

    def decide(self, before: Migration, after: Migration, *events: Event) -> Migration:
        """Compare-and-set on `before.phase`; return the row as it then stands, whoever won.

        Needs no lease: hosts and reconcilers compete here, and `domain.merge` says what comes of it: words that stay in
        the phase add up, the events of a loser are dropped. If `after` is COMMITTED then, in the same transaction, the
        runner's `host_id` becomes the target and its `epoch` the migration's, and if it is COMMITTED or ABORTED its
        `migration_id` is cleared; whoever holds the runner's lease meanwhile can write no more and hears `LeaseLost`.
        """

    def write_deliveries(self, rows: Sequence[Delivery]) -> None:
        """Write these down, all or none, durably; a GUID that is known already changes nothing."""

    def known_deliveries(self, guids: Collection[str]) -> Collection[str]:
        """Return which of these GUIDs have been written down."""

    def active_repositories(self, since: datetime) -> Sequence[Scope]:
        """Return where jobs were last heard of since then, the latest first; of the last facts only, for speed."""

    def installation(self, installation_id: int) -> Installation | None:
        """Return what GitHub has said of one installation, None if nothing."""

    def facts_of(self, job_id: JobId) -> Sequence[JobFact]:
        """Return every fact about one job, in the order in which they came."""

    def jobs_with_unseen_facts(self) -> Sequence[JobId]:
        """Return the jobs that have facts which `mark_seen` has not named."""

    def has_unseen_facts(self, job_id: JobId) -> bool:
        """Say whether this job is one of them."""

    def mark_seen(self, facts: Iterable[JobFact]) -> None:
        """Say that these facts are in the job's row now."""

    def runners_on(self, host_id: HostId) -> Sequence[Runner]:
        """Return the runners whose host this is and that are not GONE."""

    def untold(self, since: datetime) -> Sequence[Runner]:
        """Return the runners, asked for since then and GONE, that have run what nobody told us of."""

    def runner_named(self, name: str) -> Runner | None:
        """Return the runner that GitHub knows by this name."""

    def free_number(self) -> int:
        """Return the smallest runner number that no runner has which is not GONE."""

    def note_heartbeat(
        self, host_id: HostId, at: datetime, host_class: HostClass, reports: Sequence[RunnerReport]
    ) -> Host | None:
        """Note that a host was heard and what it said of its runners; return its row, None if it is not known.

        Needs no lease, changes nothing but `heartbeat_at`, `host_class` and the reports, and is not undone by whoever
        holds a lease on the row meanwhile: `Lease.write` leaves these fields as they are.
        """

    def report_of(self, runner_id: RunnerId) -> RunnerReport | None:
        """Return what its host last said of a runner; the load is its former host's until this one has measured it."""

    def reported(self, since: datetime) -> Mapping[HostId, Sequence[RunnerReport]]:
        """Return what each host that is READY or DRAINING has said of its microVMs in its last heartbeat.

        Hosts that were not heard since then are left out.
        """

    def lines_seen(self) -> Sequence[LineSeen]:
        """Return how fast the lines were in the last few migrations that have finished, the latest first."""

    def hold_of(self, runner_id: RunnerId) -> Hold | None:
        """Return what came of the last wish of this runner's job not to be moved, None if it had none."""

    def change_hold(self, before: Hold | None, after: Hold, *events: Event) -> bool:
        """Put `after` in the place of `before`; False, and nothing is written, if that is not there any more."""

    def held(self, now: datetime) -> Mapping[RunnerId, datetime]:
        """Return the runners that are not to be moved now, and until when."""

    def breaker(self, kind: str) -> Breaker | None:
        """Return what has become of the last runners of one kind of demand, None if none was ever in vain."""

    def tripped(self) -> Mapping[str, Breaker]:
        """Return the breakers that have tripped and have not closed, by their kind."""

    def change_breaker(self, before: Breaker | None, after: Breaker, *events: Event) -> bool:
        """Put `after` in the place of `before`; False, and nothing is written, if that is not there any more."""

    def issue_token(self, host_id: HostId, expires_at: datetime) -> str:
        """Make the one-time token with which a host registers; only its hash is kept."""

    def seat(self, host_id: HostId, key: str, endpoint: str | None) -> Station:
        """Give a host its place on the overlay: asked again, or at once with others, it has an address of its own.

        Raises `Refused` if the key is another machine's, `TryLater` if every address is in use.
        """

    def stations(self) -> Mapping[HostId, Station]:
        """Return every host that has a place and whose machine has not ended."""

    def note_hub(self, key: str, endpoint: str) -> Station:
        """Write down who the overlay's hub is."""

    def hub(self) -> Station | None:
        """Return the overlay's hub, None as long as it was not heard of."""

    def hosts_paid(self, since: datetime) -> Sequence[Host]:
        """Return the hosts whose price is known and that had not ended by then."""

    def jobs_of_run(self, repository: str, run_id: int) -> Sequence[Job]:
        """Return every job of a run that we know, of all its attempts, oldest first."""

    def owe(self, remark: Remark) -> None:
        """Keep a remark until it was made. The same words change nothing, others take their place."""

    def owed(self) -> Sequence[str]:
        """Return the keys of the remarks that are to be made now, the longest due first."""

    def take_remark(self, key: str, limit: timedelta) -> Remark | None:
        """Give a remark that is due to one worker: it is due again after so long. None if it is not due."""

    def settle_remark(self, remark: Remark) -> None:
        """Note that nothing is left to be done about a remark, unless it has other words by now."""

    def record(self, *events: Event) -> None:
        """Append to the timeline."""

    def timeline(self, after: int = 0) -> Sequence[tuple[int, Event]]:
        """Return the entries behind the entry with this number, each with its own number, oldest first."""


# ---------------------------------------------------------------- the clouds


class InstanceState(StrEnum):
    PENDING = auto()
    RUNNING = auto()
    STOPPED = auto()
    TERMINATED = auto()


@dataclass(frozen=True)
class Instance:
    """The cloud's view of a host. Where it is STOPPED nothing runs, and it is ours to end."""

    id: str
    host_id: HostId
    state: InstanceState
    machine: Machine | None = None
    """What the cloud tells of it; None: nothing."""


class Cloud(Protocol):
    """A place that rents machines."""

    @property
    def name(self) -> str:
        """The name under which hosts remember this cloud."""

    def launch(
        self, host_id: HostId, spec: Shape, user_data: Mapping[str, str], sources: Sources = ANYWHERE
    ) -> Instance:
        """Ask for one instance. Asking twice for one host gives the same instance.

        `sources` says where and on which terms; what a cloud has not is left out. `pick` is tried alone if it is sold.
        `user_data` is all that the machine is told: where the control plane is, what to trust, and its one-time token.
        Raises `NoCapacity`, `Throttled`, `Refused`, `Unreachable`.
        """

    def terminate(self, host_id: HostId) -> None:
        """End the instance of this host. Ending it twice, or one that never was, does no harm."""

    def describe(self, host_id: HostId) -> Instance | None:
        """Return the cloud's word on this host, None if it knows of none."""

    def owned(self) -> Iterable[Instance]:
        """List every instance that carries our name, known to us or leaked; stopped ones too, as long as they cost."""


class Interrupter(Protocol):
    """What takes a cloud's machines back on demand, for a drill. Raises `Refused`, `Throttled`, `Unreachable`."""

    def take_back(self, host: Host, notice: timedelta) -> None:
        """Let the cloud give this host notice now and end it so much later. `Refused`: it gives no such notice."""


# ---------------------------------------------------------------- the hosts


class HostApi(Protocol):
    """A host's daemon. Every call names an epoch and is harmless when repeated; a lower epoch than its own is refused.

    Raises `Unreachable` if there was no answer, `TryLater` if the host cannot now, `Refused` if it never will.
    """

    def boot(self, host: Host, order: BootOrder) -> None:
        """Restore the microVM; returns when its guest agent has answered and its link is up."""

    def start_runner(self, host: Host, runner_id: RunnerId, epoch: int, jit_config: str) -> None:
        """Hand over the just-in-time configuration; it goes to the guest agent and nowhere else."""

    def stop(self, host: Host, runner_id: RunnerId, epoch: int) -> None:
        """End the microVM and wipe everything it left; one that is not there is a success."""

    def receive(self, host: Host, order: MoveOrder) -> Ports | None:
        """Make ready to receive; returns when the target listens, None if it fetches the guest from the store."""

    def send(self, host: Host, order: MoveOrder) -> None:
        """Start to send; returns at once, and the row tells how it goes."""


@dataclass(frozen=True)
class Forwarding:
    """Where the relay finds one runner's guest; a lower epoch than the relay's own is ignored."""

    runner_id: RunnerId
    epoch: int
    address: GuestAddress
    host_address: str


class Relay(Protocol):
    def point(self, entry: Forwarding) -> None:
        """Send this runner's traffic there from now on; established connections live on."""

    def forget(self, runner_id: RunnerId, epoch: int) -> None:
        """Drop what this runner has, unless a higher epoch owns it."""

    def replace_all(self, entries: Iterable[Forwarding]) -> None:
        """Hold exactly these; used when the relay may have missed something."""

    def admit(self, stations: Iterable[Station]) -> str:
        """Let exactly these hosts into the overlay, and return the hub's own public key.

        Raises `Refused` if this relay is no hub.
        """


# ---------------------------------------------------------------- the object store


class ObjectStore(Protocol):
    """Keeps parked guests. Raises `Unreachable` or another `TryLater`, or `Refused`."""

    def url(self, method: ObjectMethod, name: str, limit: timedelta) -> str:
        """Return where whoever has this URL may reach this one object, by this one method, for so long.

        Asks nobody. A URL without a host is one of the control plane's own host listener.
        """

    def read(self, name: str) -> bytes | None:
        """Return one object, None if there is none."""

    def listed(self, prefix: str) -> Mapping[str, int]:
        """Return the name and the size in bytes of every object whose name begins so."""

    def delete(self, names: Iterable[str]) -> None:
        """Remove these objects; one that is not there is a success."""


# ---------------------------------------------------------------- GitHub


@dataclass(frozen=True)
class Registration:
    """A just-in-time runner that GitHub knows now."""

    github_id: int
    jit_config: str
    """A secret: never stored, logged or shown."""

    def __repr__(self) -> str:
        return f"Registration(github_id={self.github_id}, jit_config=…)"


class GitHub(Protocol):
    """Raises `Unreachable`, `Throttled` and `Refused`. A place is a repository, or an `owner`: a whole organization."""

    def register(
        self, installation_id: int, place: str, name: str, labels: Sequence[str], group_id: int = DEFAULT_GROUP
    ) -> Registration:
        """Register a just-in-time runner. A name that is taken by a registration of ours is freed and taken again."""

    def number_of(self, installation_id: int, place: str, name: str) -> int | None:
        """Return GitHub's number of the registration that has this name, None if there is none."""

    def group_of(self, installation_id: int, repository: str, name: str | None) -> int:
        """Return GitHub's number of a runner group of this repository's organization, None: of the default one.

        Raises `Refused`, in words for the user, if there is no such group or it does not admit this repository.
        """

    def deregister(self, installation_id: int, place: str, github_id: int) -> None:
        """Remove a registration; one that is gone is a success. Raises `RunnerBusy`."""

    def job(self, installation_id: int, repository: str, job_id: JobId) -> JobSeen | None:
        """Ask about one job; None if GitHub knows of none."""

    def run(self, installation_id: int, repository: str, run_id: int) -> RunSeen | None:
        """Ask where a run comes from; None if GitHub knows of none."""

    def rerun_failed(self, installation_id: int, repository: str, run_id: int) -> None:
        """Run the failed jobs of a run again. Raises `TryLater` while the attempt has not ended."""

    def rerun_job(self, installation_id: int, repository: str, job_id: JobId) -> None:
        """Run one job again, and what depends on it. Raises `TryLater` while the attempt has not ended."""

    def jobs_of(self, installation_id: int, repository: str, run_id: int) -> Sequence[RunJob]:
        """Return the jobs of a run's latest attempt; none if GitHub knows of no such run."""

    def remark(self, remark: Remark) -> None:
        """Put a check run beside a commit. Whatever stands there under its key gets its words instead."""


class Hints(Protocol):
    """Nudges that make things fast. They may be lost, so nothing may depend on one."""

    def look_at(self, kind: str, *ids: str) -> None:
        """Ask a worker to look at these rows soon: kind is `job`, `runner`, `host` or `migration`. Never raises."""
