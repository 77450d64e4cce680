"""An offer: one kind of machine that a cloud would rent to us now, where, on which terms and at what price."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from workers.domain.architecture import Architecture
from workers.domain.host_class import Acceleration, HostClass
from workers.domain.market import Lot, SpotPool
from workers.domain.runner import Shape


@dataclass(frozen=True)
class Likeness:
    """What is known of a host class before the machine is there; None: not known, or anything will do.

    Guests do not move between machines that differ in one of these (`host_class.mismatch` compares the rest).
    """

    architecture: Architecture | None = None
    acceleration: Acceleration | None = None
    vendor: str | None = None
    """As CPUID spells it: `GenuineIntel`, `AuthenticAMD`."""

    def admits(self, other: Likeness) -> bool:
        """Say whether a machine like the other one will do where one like this is wanted."""
        pairs = (
            (self.architecture, other.architecture),
            (self.acceleration, other.acceleration),
            (self.vendor, other.vendor),
        )
        return all(wanted is None or there is None or wanted == there for wanted, there in pairs)


ANY: Final = Likeness()


def likeness_of(host_class: HostClass | None) -> Likeness:
    """Return what a measured class has of it."""
    if host_class is None:
        return ANY
    known = {"x86_64": Architecture.X86_64, "aarch64": Architecture.ARM64, "arm64": Architecture.ARM64}
    # Under software emulation every guest sees QEMU's own processor, whoever made the real one.
    vendor = None if host_class.acceleration is Acceleration.TCG else host_class.processor.vendor
    return Likeness(known.get(host_class.architecture), host_class.acceleration, vendor)


@dataclass(frozen=True)
class Offer:
    """One machine that could be asked for."""

    cloud: str
    region: str
    zone: str
    instance_type: str
    room: Shape
    """Cores, memory and disk for microVMs: what the host itself takes is taken off."""
    usd_per_hour: float
    """Whoever offers it turns its own currency into this one."""
    is_spot: bool
    """It may be taken back, with all others of its type and zone."""
    likeness: Likeness = field(default=ANY)
    """KVM where the cloud hands hardware virtualization through, PVM elsewhere."""
    interruptions_per_hour: float = 0.0
    """How often one such machine is taken back."""
    network_mbit: int | None = None
    """None: not told."""

    @property
    def lot(self) -> Lot:
        """What is taken back together with it."""
        return Lot(self.cloud, SpotPool(self.instance_type, self.zone))

    @property
    def cost(self) -> float:
        """What an hour of such room costs, in US dollars: for each interruption another machine is begun."""
        return self.usd_per_hour * (1 + self.interruptions_per_hour)

    def __str__(self) -> str:
        terms = "spot" if self.is_spot else "on-demand"
        return f"{self.instance_type} in {self.zone} of {self.cloud}, {terms}"


@dataclass(frozen=True)
class Catalogue:
    """What one cloud has told of what it would rent, and when it was asked."""

    cloud: str
    tried_at: datetime
    """When it was asked last."""
    told_at: datetime | None = None
    """When it answered last; None: it never has."""
    offers: tuple[Offer, ...] = ()
    remarks: tuple[str, ...] = ()
    """What is not offered although it is sold, or not known of what is, each with its reason and the remedy."""
    problem: str | None = None
    """Why it did not answer when it was asked last; None: it did."""


@dataclass(frozen=True)
class Assortment:
    """What there is to be had now, of all clouds."""

    offers: tuple[Offer, ...] = ()
    remarks: tuple[str, ...] = ()
    """In words for the administrator: what is not offered, and why."""
    is_told: bool = False
    """Some cloud has told what it has, were it nothing: then nothing else is bought."""
