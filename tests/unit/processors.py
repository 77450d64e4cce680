"""Hosts with real processors: `/proc/cpuinfo` as it was published, and what a recorded QEMU knows of it."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

from workers.domain.host_class import Acceleration, HostClass, Processor
from workers.host.cpuinfo import Cpu, first_cpu
from workers.host.kvm import Kvm
from workers.host.measuring import ALL_COMPONENTS, Monitor, emulating, read_monitor, spelled, virtualizing, xsave_of

FIXTURES = Path(__file__).parent / "fixtures"
KERNEL = "6.1.0-41-amd64"
INTEL = (
    "westmere",
    "haswell",
    "broadwell",
    "skylake",
    "ice_lake",
    "azure_ice_lake",
    "sapphire_rapids",
    "granite_rapids",
)
AMD = ("naples", "rome", "milan", "bergamo")
FAMILIES = INTEL + AMD


def answers(name: str) -> str:
    """Return what QEMU 10.0.2 answered under `tcg`, or under `kvm` on a PVM host whose KVM hides much."""
    return (FIXTURES / f"qemu-10.0.2-{name}.jsonl").read_text()


@cache
def features() -> frozenset[str]:
    """Return every flag that QEMU 10.0.2 knows."""
    documents = map(json.loads, answers("pvm").splitlines())
    (props,) = [one["return"]["model"]["props"] for one in documents if one.get("id") == "shown"]
    return frozenset(map(spelled, props))


def cpuinfo(family: str) -> str:
    return (FIXTURES / "cpuinfo" / f"{family}.txt").read_text()


@cache
def host(family: str) -> HostClass:
    """Return the class of a host with this processor, whose KVM hides nothing that QEMU knows of it."""
    text = cpuinfo(family)
    cpu = first_cpu(text)
    recorded = read_monitor(answers("pvm"))
    flags = shown(cpu, recorded)
    processor = Processor(cpu.vendor, flags, xsave_of(flags), 5 if "la57" in flags else 4)
    pinned = replace(recorded.pinned, vendor=cpu.vendor)
    can_scale = "tsc_scale" in cpu.flags or "tsc_scaling" in text
    monitor = replace(recorded, processor=processor, pinned=pinned)
    return virtualizing(Acceleration.KVM, monitor, Kvm(ALL_COMPONENTS, cpu.tsc_khz, can_scale), cpu, KERNEL)


def shown(cpu: Cpu, recorded: Monitor) -> tuple[str, ...]:
    """KVM adds its own flags, and emulates some on every processor."""
    own = {flag for flag in recorded.processor.flags if flag.startswith("kvm")}
    emulated_anyway = {"hypervisor", "tsc_adjust", "tsc_deadline_timer", "x2apic"}
    return tuple(sorted((cpu.flags & features()) | own | emulated_anyway))


def unpinned(family: str) -> HostClass:
    """Return the same host, if it showed its guests all that it has (`-cpu host`)."""
    return replace(host(family), pinned=None)


def emulated(family: str) -> HostClass:
    """Return the same machine when QEMU executes the guests."""
    return emulating(read_monitor(answers("tcg")), first_cpu(cpuinfo(family)), KERNEL, "x86_64")
