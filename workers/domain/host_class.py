"""Host class: what a guest may notice of the machine that it runs on, and which guests a machine can take.

A guest chooses its code by what it finds when it boots, so nothing that it has seen may be taken away under it: by the
package that it is restored from, nor by a move. QEMU refuses a wrong machine type. It does not refuse a processor
that lacks what the guest has seen (without `enforce` it warns), it goes on after KVM has refused the guest's XSAVE
state, and it only warns of a time stamp counter that runs at another rate: the guest breaks afterwards. So these are
compared before. What decides depends on who executes the guest:

| | KVM | PVM | TCG (`-cpu max`) |
|---|---|---|---|
| flags, XSAVE set | of the pinned processor, if there is one | the same | QEMU's own |
| paging levels | the same | the host kernel's | QEMU's own |
| vendor | the host's shows through | the same | always the same |
| kernel | not compared: KVM promises to keep guests across kernels | equal: its ABI is not upstream | not seen |
| time stamp counter | scaled, or the host's | the host's | the host's |

A processor that is pinned (a named model, `enforce`) looks the same on every host that has at least its flags, so more
flags do no harm. One that is not pinned (`max`, `host`) shows whatever there is, so it must be equal: QEMU calls these
models unsafe to migrate, since programs ask CPUID again and a new flag is as wrong to a running kernel as a lost one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Final

# What KVM and QEMU take for the same rate (`tsc_tolerance_ppm`); NTP corrects it. Where KVM is not asked, the rate is
# of Linux's first calibration, which may err by 500 ppm either way.
TSC_TOLERANCE_PPM: Final = 250
TSC_TOLERANCE_EMULATED_PPM: Final = 1000
NAMED_MAX: Final = 4
# The oldest QEMU of a host. Before, it opened a guest's memory for writing even if it mapped it privately (`rom=off` is
# new in 8.2).
MONITOR_MIN: Final = (8, 2)


class Acceleration(StrEnum):
    """Who executes the guest's instructions."""

    KVM = auto()
    PVM = auto()
    TCG = auto()


class TscSource(StrEnum):
    """What a guest's time stamp counter is."""

    HOST = auto()
    """The host's own, at the host's rate: under software emulation, under PVM, and on processors without scaling."""
    SCALED = auto()
    """The processor brings it to the rate that the guest began with."""


@dataclass(frozen=True)
class Processor:
    """A processor as a guest can see it."""

    vendor: str
    flags: tuple[str, ...]
    """Sorted, spelled as /proc/cpuinfo does where it has a word for them."""
    xsave: tuple[str, ...]
    """The parts of its state that XSAVE keeps, in the order of their bits."""
    paging_levels: int


@dataclass(frozen=True)
class HostClass:
    """The properties of a host that decide which guests it can run."""

    acceleration: Acceleration
    architecture: str
    kernel: str
    """The host kernel's release."""
    monitor: str
    monitor_version: str
    """Major and minor number: device state is not promised to load into an older monitor."""
    machines: tuple[str, ...]
    """The versioned machine types that the monitor keeps up, oldest first (`pc-q35-7.2`); a guest keeps its own."""
    processor: Processor
    """The most that a guest can be shown here."""
    pinned: Processor | None
    """What guests of packages made here are shown on every host; None: all of the above, whatever it is."""
    tsc_khz: int
    tsc_source: TscSource

    @property
    def machine(self) -> str:
        """The machine type of packages made here."""
        return self.machines[-1] if self.machines else "none"

    @property
    def guest(self) -> Processor:
        """The processor that guests of packages made here see."""
        return self.pinned or self.processor


def mismatch(source: HostClass, target: HostClass) -> str | None:
    """Name the first property in which `target` cannot go on with a guest of `source`, or None.

    The guest's package may be older than both hosts. That it can be shown on `target` is what `target` proves with
    `package_mismatch` before it is ready, and again before it receives; this says what lies between the two hosts.
    """
    parts = (_of_the_machine, _of_the_processor, _scaling, _rate)
    return next((difference for part in parts for difference in part(source, target)), None)


def package_mismatch(made_on: HostClass, host: HostClass) -> str | None:
    """Name the first property in which `host` cannot start a guest whose package was made on `made_on`, or None.

    A snapshot is a guest that has run already, at the rate of the host that it booted on.
    """
    parts = (_of_the_machine, _of_the_processor, _rate)
    return next((difference for part in parts for difference in part(made_on, host)), None)


def _of_the_machine(needed: HostClass, offered: HostClass) -> Iterator[str]:
    for name in ("architecture", "acceleration", "monitor"):
        need, have = getattr(needed, name), getattr(offered, name)
        if need != have:
            yield f"{name}: needs {need}, this host has {have}"
    if _numbers(offered.monitor_version) < _numbers(needed.monitor_version):
        yield f"monitor_version: needs {needed.monitor_version} or newer, this host has {offered.monitor_version}"
    if needed.machine not in offered.machines:
        yield f"machine: needs {needed.machine}, this host has {_span(offered.machines)}"
    if Acceleration.PVM in {needed.acceleration, offered.acceleration} and needed.kernel != offered.kernel:
        yield f"kernel: needs {needed.kernel}, this host has {offered.kernel}"


def _of_the_processor(needed: HostClass, offered: HostClass) -> Iterator[str]:
    seen, shown = needed.guest, offered.processor
    may_have_more = needed.pinned is not None
    if seen.vendor != shown.vendor:
        yield f"vendor: needs {seen.vendor}, this host has {shown.vendor}"
    yield from _set("flags", seen.flags, shown.flags, may_have_more=may_have_more)
    yield from _set("xsave", seen.xsave, shown.xsave, may_have_more=may_have_more)
    # PVM lays its guest's page tables over the host's own, so there the guest has no choice.
    is_exact = not may_have_more or needed.acceleration is Acceleration.PVM
    need = needed.processor.paging_levels if needed.acceleration is Acceleration.PVM else seen.paging_levels
    if need > shown.paging_levels or (is_exact and need != shown.paging_levels):
        yield f"paging_levels: needs {need}, this host has {shown.paging_levels}"


def _scaling(source: HostClass, target: HostClass) -> Iterator[str]:
    """A host that can scale may be doing it already, for a guest that began elsewhere."""
    if source.tsc_source is TscSource.SCALED and target.tsc_source is not TscSource.SCALED:
        yield f"tsc_source: needs {source.tsc_source}, this host has {target.tsc_source}"


def _rate(needed: HostClass, offered: HostClass) -> Iterator[str]:
    is_emulated = offered.acceleration is Acceleration.TCG
    tolerance = TSC_TOLERANCE_EMULATED_PPM if is_emulated else TSC_TOLERANCE_PPM
    drift = abs(offered.tsc_khz - needed.tsc_khz) * 1_000_000
    if offered.tsc_source is TscSource.HOST and drift > tolerance * max(needed.tsc_khz, offered.tsc_khz):
        yield f"tsc_khz: needs {needed.tsc_khz}, this host has {offered.tsc_khz} and cannot scale it"


def _set(name: str, seen: Iterable[str], shown: Iterable[str], *, may_have_more: bool) -> Iterator[str]:
    seen, shown = frozenset(seen), frozenset(shown)
    if missing := seen - shown:
        yield f"{name}: needs {_few(missing)}, which this host lacks"
    if not may_have_more and (more := shown - seen):
        yield f"{name}: this host shows {_few(more)} too, which the guest has never seen"


def _few(names: Iterable[str]) -> str:
    """`aes, avx, avx2, bmi1 and 7 more`."""
    ordered = sorted(names)
    rest = len(ordered) - NAMED_MAX
    return ", ".join(ordered[:NAMED_MAX]) + (f" and {rest} more" if rest > 0 else "")


def _span(machines: tuple[str, ...]) -> str:
    return f"{len(machines)} from {machines[0]} to {machines[-1]}" if len(machines) > 1 else "".join(machines) or "none"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isascii() and part.isdigit())
