"""`spot-runner host --class`: what guests notice of this machine, as the control plane hears it with each heartbeat."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.console import Console

from workers.domain.host_class import HostClass, Processor, TscSource, package_mismatch
from workers.host.acceleration import choose_acceleration
from workers.host.measuring import measure_host_class
from workers.settings import HostSettings

console: Final = Console()


def run_show(settings: HostSettings) -> None:
    """Measure this machine and show its class; raises `Unfit` with one sentence if it cannot be a host."""
    choice = choose_acceleration(settings.accel, has_pvm_kernel=settings.is_pvm)
    measured = measure_host_class(choice.acceleration)
    console.print(f"{choice.acceleration}: {choice.reason}")
    for line in class_lines(measured):
        console.print(line, soft_wrap=True)
    if measured.pinned:
        console.print(f"shows at most: {_processor(measured.processor)}", soft_wrap=True)
    if lacking := package_mismatch(measured, measured):
        console.print(f"of no use: {lacking}", soft_wrap=True)


def class_lines(one: HostClass) -> Iterator[str]:
    """Yield what a guest of a package that was made on such a host has seen."""
    yield f"monitor: {one.monitor} {one.monitor_version}, {one.acceleration}, {one.architecture}, kernel {one.kernel}"
    yield f"machines: {', '.join(one.machines)}"
    yield f"guests see: {_processor(one.guest)}{'' if one.pinned else ', whatever there is'}"
    scaled = "scaled to the guest's rate" if one.tsc_source is TscSource.SCALED else "at the host's rate"
    yield f"time stamp counter: {one.tsc_khz / 1000:.3f} MHz, {scaled}"


def _processor(one: Processor) -> str:
    xsave = f"XSAVE {' '.join(one.xsave)}" if one.xsave else "no XSAVE"
    return f"{one.vendor}, {one.paging_levels}-level paging, {xsave}, {len(one.flags)} flags ({' '.join(one.flags)})"
