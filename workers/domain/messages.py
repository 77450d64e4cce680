"""What the control plane and its hosts say to each other; docs/protocols.md shows it on the wire.

All spans are in seconds and all sizes in MiB. Clocks are never compared across
machines: a deadline travels as the seconds that are left of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum, auto

from workers.domain.hold import HoldWish
from workers.domain.host_class import HostClass
from workers.domain.migration import MigrationPhase, Ports
from workers.domain.names import GuestAddress, HostId, MigrationId, PackageDigest, RunnerId
from workers.domain.overlay import GUEST_MTU, GuestNetwork, Overlay, Peer
from workers.domain.runner import Shape
from workers.domain.whereabouts import Whereabouts

# ---------------------------------------------------------------- to a host


@dataclass(frozen=True)
class BootOrder:
    """Start one microVM from a package."""

    runner_id: RunnerId
    epoch: int
    number: int
    package: PackageDigest
    shape: Shape
    address: GuestAddress
    network: GuestNetwork = GuestNetwork.RELAY
    hold_limit_s: int = 0
    """How long its job may ask not to be moved, in all."""
    whereabouts: Whereabouts = field(default_factory=Whereabouts)
    """Where it will run, for the job's own information; nothing is decided by it."""


@dataclass(frozen=True)
class StartOrder:
    """Hand the just-in-time configuration to the guest's runner."""

    epoch: int
    jit_config: str = field(repr=False)
    """A secret: it goes to the guest agent and nowhere else."""


@dataclass(frozen=True)
class ParkOrder:
    """What a host needs to put one guest into the object store, or to take it out."""

    park_id: MigrationId
    key: str = field(repr=False)
    """64 hex digits, of this park alone; a secret that is written to no file of the host."""
    manifest: str | None = None
    """SHA-256 of the list of all parts: for whoever takes the guest out."""


@dataclass(frozen=True)
class MoveOrder:
    """One host's part in a migration; the peer is the only one that it speaks to."""

    migration_id: MigrationId
    runner: BootOrder
    """As the runner will be at the commit; its epoch is the migration's."""
    peer: HostId | None
    """None: the store."""
    peer_address: str
    seconds_left: float
    """Until the source is taken away, anchored at the control plane's receipt of the notice."""
    moves: int
    """How often this runner has been moved, this time included."""
    ports: Ports | None = None
    """Where the target listens: the target answers it, the source is told it."""
    share_mib_s: float | None = None
    """What it may take of the source's line while other moves share it; None: whatever it gets."""
    park: ParkOrder | None = None
    """The peer is the store, and this is how the guest lies there."""
    stood_s: float | None = None
    """How long a guest that comes from the store has stood still already; None: it does not, or that is not known."""


# ---------------------------------------------------------------- from a host


class MonitorState(StrEnum):
    """What a host's monitor says of one microVM."""

    RUNNING = auto()
    PAUSED = auto()
    INCOMING = auto()
    GONE = auto()


class GuestRunnerState(StrEnum):
    """What the guest agent says of the runner program inside."""

    UNKNOWN = auto()
    WAITING = auto()
    RUNNING = auto()
    ENDED = auto()


@dataclass(frozen=True)
class Load:
    """What a move of one microVM would have to carry, as its host measured it."""

    memory_mib: float
    """In use, so that it has to be sent: less than the microVM's memory, of which much was never touched."""
    disk_mib: float
    """What the overlay holds."""
    dirty_mib_s: float | None = None
    """How much different memory the guest writes in a second; None: not measured yet."""


@dataclass(frozen=True)
class RunnerReport:
    """One microVM on a host."""

    runner_id: RunnerId
    epoch: int
    monitor: MonitorState
    guest: GuestRunnerState = GuestRunnerState.UNKNOWN
    exit_code: int | None = None
    load: Load | None = None
    hold: HoldWish | None = None
    """What its job asks for; None: nothing that this host knows of."""


@dataclass(frozen=True)
class Heartbeat:
    """What a host says of itself every few seconds."""

    boot_id: str
    """Changes when the daemon starts anew, so that a restart is seen."""
    ready: bool
    """The host has proved itself: class measured, packages verified, self-test passed."""
    not_ready_because: str | None
    host_class: HostClass
    packages: tuple[PackageDigest, ...]
    runners: tuple[RunnerReport, ...]
    peers: str | None = None
    """Stamp of the tunnels that it has; None: it is on no overlay."""
    trouble: str | None = None
    """What went wrong on the way to being ready, if anything did; waiting is none."""
    stages_s: Mapping[str, float] = field(default_factory=dict)
    """How long each stage took on the way to being ready."""


@dataclass(frozen=True)
class HeartbeatAnswer:
    """What the control plane wants of a host that is well."""

    packages: tuple[PackageDigest, ...]
    """To be fetched and verified."""
    peers: tuple[Peer, ...] | None = None
    """All whom it speaks to from now on; None: the same as before."""


class NoticeKind(StrEnum):
    """What the cloud has announced."""

    INTERRUPTION = auto()
    REBALANCE = auto()


@dataclass(frozen=True)
class Notice:
    """The cloud takes the machine back."""

    kind: NoticeKind
    seconds_left: float


@dataclass(frozen=True)
class RowView:
    """What a host is told of its migration's row; every read and every word is answered with one."""

    phase: MigrationPhase
    epoch: int
    may_pause: bool
    """Both sides have reached the row within the last second."""
    seconds_left: float
    stood_ms: float | None = None
    """How long the guest had stood still at the source, by its clock, when all of it had been sent."""


@dataclass(frozen=True)
class Word:
    """The body of a host's word about a migration."""

    epoch: int
    figures: Mapping[str, float] = field(default_factory=dict)
    reason: str | None = None
    manifest: str | None = None
    """With PAUSED of a park: SHA-256 of the list of all its parts."""


@dataclass(frozen=True)
class ObjectsAsked:
    """Which objects of its park, or of a package, a host wants to reach."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class ObjectUrls:
    """Where each of these objects is reached, for some minutes and by one method.

    A URL without a host is one of the control plane's own host listener.
    """

    urls: Mapping[str, str]


# ---------------------------------------------------------------- registration


@dataclass(frozen=True)
class RegistrationRequest:
    """How a machine that has only a one-time token becomes a host."""

    host_id: HostId
    token: str = field(repr=False)
    csr: str
    """PEM; only its key is used, the control plane writes the names."""
    address: str
    wireguard_key: str | None = None
    """Its public key, base64, used if the deployment has an overlay; the private one never leaves the machine."""
    endpoint: str | None = None
    """`address:port` at which others can dial it; None: it is behind a NAT and dials them."""
    up_s: tuple[float, ...] = ()
    """How long it has run: its kernel, and its daemon, since the kernel may be that of a larger machine."""


@dataclass(frozen=True)
class OverlayPlace:
    """Where a host sits on the overlay, and whom it speaks to there."""

    address: str
    peers: tuple[Peer, ...]


@dataclass(frozen=True)
class Surroundings:
    """What a host has to know of its deployment, for as long as it lives."""

    relay_address: str | None = None
    """Where its guests' frames go; None: they leave through the host itself."""
    guest_mtu: int = GUEST_MTU
    overlay: Overlay = Overlay.PLAIN


@dataclass(frozen=True)
class RegistrationAnswer:
    """The host's identity."""

    certificate: str
    """PEM, for `host_id` and the address at which its daemon is to answer, 24 hours."""
    control_ca: str
    """PEM: whoever shows a certificate of this issuer is the control plane."""
    hosts_ca: str
    """PEM: whoever shows a certificate of this issuer is a host of this deployment."""
    place: OverlayPlace | None = None
    """With the first certificate, if the deployment has an overlay."""
    surroundings: Surroundings | None = None
    """With the first certificate."""


@dataclass(frozen=True)
class RenewalRequest:
    """How a host gets its next certificate, or one for its part in a move; answered with a `RegistrationAnswer`."""

    csr: str
    """PEM; only its key is used."""
