"""Where a guest runs and at what price, as far as it is known: what a job may learn of itself (docs/action.md)."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Machine:
    """What a cloud says of the machine that it has given us; None: it does not say."""

    region: str | None = None
    zone: str | None = None
    instance_type: str | None = None
    lifecycle: str | None = None
    """`spot` or `on-demand`."""
    usd_per_hour: float | None = None
    """Of the whole machine."""
    addresses: tuple[str, ...] | None = None
    """Of the machine itself, as far as the cloud knows them by now; no guest is told."""


@dataclass(frozen=True)
class Whereabouts:
    """One guest's place in the world."""

    provider: str | None = None
    machine: Machine = field(default_factory=Machine)
    usd_per_hour: float | None = None
    """Of the guest's part of the machine."""
