"""What the engine needs of the rest of the daemon, as narrow promises."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from workers.domain.messages import RegistrationAnswer, RenewalRequest, RowView, Word
from workers.domain.migration import Said
from workers.domain.names import GuestAddress, HostId, MigrationId, PackageDigest
from workers.domain.overlay import GuestNetwork
from workers.host.disks import Unpacked
from workers.host.guest import Connect


class Network(Protocol):
    """The guests' side of this host's network. Every call is idempotent and blocks for some milliseconds."""

    @property
    def mtu(self) -> int:
        """How long a guest's packet may be, in octets; the same wherever it moves."""

    def open_tap(self, number: int, address: GuestAddress, user: int, way_out: GuestNetwork) -> int:
        """Return an open tap with its filter in place, not on its bridge yet."""

    def attach(self, number: int) -> None:
        """Put the tap on the bridge: the guest can be heard from now on."""

    def close(self, number: int) -> None:
        """Remove the tap and its filter; one that is not there is a success."""

    def admit(self, port: int, peer_address: str) -> None:
        """Let this peer, and nobody else, reach a migration port."""

    def dismiss(self, port: int) -> None:
        """Close a migration port again."""

    def approach(self, number: int, peer_address: str, ports: Iterable[int]) -> None:
        """Let the monitor of the guest with this number call these ports of its peer, and nobody else."""

    def withdraw(self, number: int) -> None:
        """Let that monitor call nobody any more."""


class Shelf(Protocol):
    """The packages that this host holds."""

    def unpacked(self, digest: PackageDigest) -> Unpacked:
        """Verify and unpack a package, once; blocks. Raises `BadPackage` or `GiveUp` if it is not here."""


class ControlPlane(Protocol):
    """The row of a migration. Raises `Unreachable`, and then it is not known whether a word was heard, or `Refused`."""

    async def row(self, migration_id: MigrationId) -> RowView:
        """Read it."""

    async def move_certificate(self, migration_id: MigrationId, request: RenewalRequest) -> RegistrationAnswer:
        """Get the certificate of our part in it, for the key of this request."""

    async def say(self, migration_id: MigrationId, said: Said, word: Word) -> RowView:
        """Say a fact about ourselves and read the row as it then stands."""

    async def object_urls(self, migration_id: MigrationId, names: tuple[str, ...]) -> Mapping[str, str]:
        """Return where these objects of the migration's park are reached: to be written or to be read."""


class Objects(Protocol):
    """The object store behind URLs; safe for threads, blocking. Raises `TryLater` or `Refused`."""

    def put(self, url: str, content: bytes) -> None:
        """Write one object."""

    def get(self, url: str, limit_bytes: int) -> bytes:
        """Read one object of at most so many bytes."""


# A restored guest answers within a third of a second; a busy machine with software emulation may take its time.
WAKE_LIMIT_S: Final = 30.0

Bring = Callable[[PackageDigest], Awaitable[None]]
"""Let a package lie on the shelf if it does not. Raises `TryLater` or `GiveUp`, with a sentence."""


async def brought_along(_: PackageDigest) -> None:
    """Fetch nothing: the machine's image has the packages."""


@dataclass(frozen=True)
class EngineParts:
    """All that an engine is made of."""

    host_id: HostId
    address: str
    """On the overlay: moves listen here."""
    home: Path
    """Journal, runners' directories, overlays; nothing else lies here."""
    make_csr: Callable[[HostId], tuple[str, str]]
    """Make a key and the request for its certificate; both PEM."""
    shelf: Shelf
    network: Network
    control: ControlPlane
    objects: Objects
    connect_guest: Connect
    """Open the guest channel at this socket within so many seconds."""
    bring: Bring = brought_along
    wake_limit_s: float = WAKE_LIMIT_S
    """How long a restored guest may take to answer."""
