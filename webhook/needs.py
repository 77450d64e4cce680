"""What the receiver needs of the world; it is handed all of it and knows no implementation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Protocol

from workers.domain.events import Delivery, Event
from workers.domain.hold import Hold
from workers.domain.host import Host
from workers.domain.host_class import HostClass
from workers.domain.messages import RunnerReport
from workers.domain.migration import Migration, Role
from workers.domain.names import HostId, MigrationId, RunnerId
from workers.domain.overlay import Station
from workers.domain.park import ObjectMethod
from workers.domain.registration import Token
from workers.domain.runner import Runner


class Clock(Protocol):
    def now(self) -> datetime:
        """Return the present moment, aware and in UTC."""


class Hints(Protocol):
    def look_at(self, kind: str, *ids: str, urgent: bool = False) -> None:
        """Ask a worker to look at these rows soon; returns at once, may be lost, never raises.

        An urgent hint goes to the queue that waits for no cloud.
        """


class DeliveryStore(Protocol):
    """Raises `TryLater` when it cannot be reached, and then nothing was written."""

    def write_deliveries(self, rows: Sequence[Delivery]) -> None:
        """Write these down, all or none, durably; a GUID that is known already changes nothing."""


class HostLease(Protocol):
    @property
    def row(self) -> Host: ...

    def write(self, row: Host, *also: Event) -> None:
        """Write the row and timeline entries together. Raises `LeaseLost`, and then nothing was written."""


class HostShelf(Protocol):
    def get(self, key: HostId) -> Host | None: ...

    def lease(self, key: HostId) -> AbstractContextManager[HostLease]:
        """Lease the row, after some waiting if somebody else has it; raises `LeaseLost` if that took too long."""


class MigrationShelf(Protocol):
    def get(self, key: MigrationId) -> Migration | None: ...


class RunnerShelf(Protocol):
    def get(self, key: RunnerId) -> Runner | None: ...


class HostStore(Protocol):
    """Raises `TryLater` when it cannot be reached."""

    @property
    def hosts(self) -> HostShelf: ...
    @property
    def migrations(self) -> MigrationShelf: ...
    @property
    def runners(self) -> RunnerShelf: ...

    def decide(self, before: Migration, after: Migration, *events: Event) -> Migration:
        """Compare-and-set on `before.phase`; return the row as it then stands, whoever won."""

    def note_seen(self, migration_id: MigrationId, role: Role, now: datetime) -> Migration | None:
        """Note that this side has reached the row, and return it."""

    def note_heartbeat(
        self, host_id: HostId, at: datetime, host_class: HostClass, reports: Sequence[RunnerReport]
    ) -> Host | None:
        """Note that a host was heard; return its row, None if it is not known."""

    def hold_of(self, runner_id: RunnerId) -> Hold | None:
        """Return what came of the last wish of this runner's job not to be moved, None if it had none."""

    def change_hold(self, before: Hold | None, after: Hold, *events: Event) -> bool:
        """Put `after` in the place of `before`; False, and nothing is written, if that is not there any more."""

    def token(self, token: str) -> Token | None:
        """Return what is kept of a token, None if it never was."""

    def burn_token(self, token: str, address: str) -> HostId | None:
        """Use up a one-time token; return the host that it was made for, None if it is unknown, used or too old."""

    def seat(self, host_id: HostId, key: str, endpoint: str | None) -> Station:
        """Give a host its place on the overlay. Raises `Refused` if the key is another machine's."""

    def stations(self) -> Mapping[HostId, Station]:
        """Return every host that has a place and whose machine has not ended."""

    def hub(self) -> Station | None:
        """Return the overlay's hub, None as long as it was not heard of."""

    def record(self, *events: Event) -> None:
        """Append to the timeline."""


class Follower(Protocol):
    """Takes a decision further, beside the answer to the host; returns at once and never raises."""

    def expect(self, row: Migration) -> None:
        """Hear that this migration's guest is on its way."""

    def follow(self, row: Migration) -> None:
        """Hear that this migration is committed."""


class Objects(Protocol):
    """Where parked guests lie."""

    def url(self, method: ObjectMethod, name: str, limit: timedelta) -> str:
        """Return where this one object may be reached, by this one method, for so long; asks nobody."""


class ServedObjects(Protocol):
    """A store that hosts reach through our own listener. Raises `Refused`, `BadInput` or `TryLater`."""

    def admit(self, method: str, name: str, expires: str, signature: str) -> None:
        """Raise `Refused` unless this method on this object was allowed, and still is."""

    def read(self, name: str) -> bytes | None:
        """Return one object, None if there is none."""

    def write(self, name: str, content: bytes) -> None:
        """Put one object in its place, as a whole."""


class Authority(Protocol):
    """The deployment's certificate authority."""

    @property
    def control_ca(self) -> str: ...
    @property
    def hosts_ca(self) -> str: ...

    def host_certificate(self, csr_pem: str, host_id: HostId, address: str) -> str:
        """Sign a host's key for exactly this name and address. Raises `BadInput`."""

    def move_certificate(self, csr_pem: str, host_id: HostId, migration_id: MigrationId) -> str:
        """Sign the key of one host's part in one migration. Raises `BadInput`."""
