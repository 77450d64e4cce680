"""Host class: what a guest may notice of the machine that it runs on.

A package or a running guest fits a host only if nothing that it has already
seen changes under it. The refusal names the property.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, auto


class Acceleration(StrEnum):
    """Who executes the guest's instructions."""

    KVM = auto()
    PVM = auto()
    TCG = auto()


@dataclass(frozen=True)
class HostClass:
    """The properties of a host that decide which guests it can run."""

    acceleration: Acceleration
    architecture: str
    vendor: str
    """The CPU's vendor as the guest sees it; software emulation shows the same on every machine."""
    monitor: str
    monitor_version: str
    """Major and minor number: device state is not promised to load into an older monitor."""
    machine: str
    """The versioned machine type, for example `pc-q35-7.2`."""


def mismatch(needed: HostClass, offered: HostClass) -> str | None:
    """Name the first property in which `offered` cannot run what was made for `needed`, or None."""
    for name in ("architecture", "acceleration", "vendor", "monitor", "machine"):
        need, have = getattr(needed, name), getattr(offered, name)
        if need != have:
            return f"{name}: needs {need}, this host has {have}"
    if _numbers(offered.monitor_version) < _numbers(needed.monitor_version):
        return f"monitor_version: needs {needed.monitor_version} or newer, this host has {offered.monitor_version}"
    return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
