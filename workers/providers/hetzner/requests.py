"""What Hetzner is asked for: which server type in which location, with which labels, firewall and user data. Pure.

locations, as the pool or the settings prefer them ──┐
server types that hold what is wanted ───────────────┴─▶ offers, the best first: by location, then by type or price
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from workers.domain.errors import Refused
from workers.domain.market import Sources, SpotPool
from workers.domain.names import HostId
from workers.domain.runner import Shape

DEPLOYMENT_LABEL: Final = "spot-runner/deployment"
HOST_LABEL: Final = "spot-runner/host"
# What the image's builder puts on the snapshots that hosts boot: Hetzner has no nested virtualization, so PVM it is.
IMAGE_LABEL: Final = "spot-runner/image=pvm"
ARCHITECTURE: Final = "x86"
EVERYWHERE: Final = ("0.0.0.0/0", "::/0")
# What the kernel, the daemon and each QEMU take beside the memory that guests see.
OWN_MEMORY_MIB: Final = 1024
# The image itself, logs, packages.
OWN_DISK_MIB: Final = 16 * 1024
MIB_PER_GB: Final = 10**9 / 2**20
"""Hetzner's disks are sold by the thousand."""
MIB_PER_GIB: Final = 1024
"""And its memory by 1,024."""


@dataclass(frozen=True)
class Rental:
    """What is rented, and as whose."""

    deployment: str
    """Marks what is ours in a project that others use, too."""
    overlay_port: int
    locations: tuple[str, ...] = ()
    """The best first; none: wherever it is cheapest."""
    server_types: tuple[str, ...] = ()
    """The best first; none: the cheapest that is large enough."""
    image: str = IMAGE_LABEL
    """The number of a snapshot, or the labels of those of which the latest is taken."""
    ssh_key: str | None = None
    """The name of a key in the project."""
    currency: str = "EUR"
    """In which the project is billed."""


@dataclass(frozen=True)
class Place:
    """A server type in one location."""

    location: str
    price: float
    """What an hour costs there, net."""
    is_available: bool


@dataclass(frozen=True)
class Kind:
    """A server type, where it is sold and not about to go."""

    name: str
    vcpus: int
    memory_mib: int
    disk_mib: int
    architecture: str
    places: tuple[Place, ...]
    unpriced: tuple[str, ...] = ()
    """Locations in which it is sold at a price that the API does not name."""

    def holds(self, spec: Shape) -> bool:
        """Say whether microVMs of this size in all go into one."""
        return (
            self.vcpus >= spec.vcpus
            and self.memory_mib >= spec.memory_mib + OWN_MEMORY_MIB
            and self.disk_mib >= spec.disk_mib + OWN_DISK_MIB
        )


@dataclass(frozen=True)
class Offer:
    """One server that could be asked for."""

    kind: Kind
    place: Place

    def is_pick(self, pick: SpotPool | None) -> bool:
        """Say whether this is the one that was chosen."""
        return pick is not None and (self.kind.name, self.place.location) == (pick.instance_type, pick.zone)

    def __str__(self) -> str:
        return f"{self.kind.name} in {self.place.location}"


@dataclass(frozen=True)
class Rule:
    """What a firewall lets in, from everywhere."""

    protocol: str
    port: str | None
    description: str


def offers_of(kinds: Sequence[Kind], rental: Rental, spec: Shape, sources: Sources) -> list[Offer]:
    """Return every server that would do, the best first, available or not. Raises `Refused` if there is none."""
    wanted = sources.zones or rental.locations
    fit = list(_fitting(kinds, rental, spec))
    found = [Offer(kind, place) for kind in fit for place in kind.places if not wanted or place.location in wanted]
    if not found:
        raise Refused(f"Hetzner: {_unfit(kinds, fit, rental, spec, wanted)}")

    def rank(offer: Offer) -> tuple[int, int, float, str]:
        by_place = wanted.index(offer.place.location) if wanted else 0
        by_type = rental.server_types.index(offer.kind.name) if rental.server_types else 0
        return by_place, by_type, offer.place.price, offer.kind.name

    picked = [one for one in found if one.is_pick(sources.pick)]
    return picked or sorted(found, key=rank)


def labels_of(rental: Rental, host_id: HostId) -> dict[str, str]:
    """Return what says whose a server is, and what for."""
    return {DEPLOYMENT_LABEL: rental.deployment, HOST_LABEL: host_id}


def owned_selector(rental: Rental) -> str:
    """Return what chooses every server that carries our name."""
    return f"{DEPLOYMENT_LABEL}={rental.deployment},{HOST_LABEL}"


def firewall_name(rental: Rental) -> str:
    """Name the firewall of a deployment's hosts."""
    return f"spot-runner-{rental.deployment}-hosts"


def rules_of(rental: Rental) -> tuple[Rule, ...]:
    """Return what hosts let in. Everything that is said to them, and moves too, comes through the overlay."""
    overlay = Rule("udp", str(rental.overlay_port), "the overlay, which knows its peers by their keys")
    return (overlay, Rule("icmp", None, "how long a packet may be on its way"))


def _fitting(kinds: Iterable[Kind], rental: Rental, spec: Shape) -> Iterator[Kind]:
    for kind in kinds:
        is_liked = not rental.server_types or kind.name in rental.server_types
        if is_liked and kind.architecture == ARCHITECTURE and kind.holds(spec):
            yield kind


def _unfit(kinds: Sequence[Kind], fit: Sequence[Kind], rental: Rental, spec: Shape, wanted: Sequence[str]) -> str:
    """Say what the settings, or a pool, have to say instead."""
    known = {kind.name: kind for kind in kinds}
    if unknown := [name for name in rental.server_types if name not in known]:
        return f"there is no server type {', '.join(unknown)} (any more); correct SPOT_RUNNER_HETZNER_SERVER_TYPES"
    if foreign := [name for name in rental.server_types if known[name].architecture != ARCHITECTURE]:
        return f"{', '.join(foreign)}: arm64 is not built yet; name x86 types in SPOT_RUNNER_HETZNER_SERVER_TYPES"
    if not fit:
        size = f"{spec.vcpus} vCPUs, {spec.memory_mib} MiB of memory and {spec.disk_mib} MiB of disk"
        return (
            f"{', '.join(rental.server_types) or 'no server type'} holds {size} beside what the host itself takes; "
            "name larger types in SPOT_RUNNER_HETZNER_SERVER_TYPES, or set SPOT_RUNNER_HOST_… lower"
        )
    sold = sorted({place.location for kind in fit for place in kind.places})
    return (
        f"{', '.join(kind.name for kind in fit)} is not sold in {', '.join(wanted)} but in {', '.join(sold)}; correct "
        "SPOT_RUNNER_HETZNER_LOCATIONS, or the pool's zones"
    )
