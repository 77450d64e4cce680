"""What guests would notice of this machine, asked of those who know it.

QEMU says what its accelerator shows a guest: KVM hides what it cannot virtualize and adds what it can, so
/proc/cpuinfo shows neither (on one PVM host KVM hid SSE3 to AES, and showed five-level paging that the host itself
did not use). KVM says which XSAVE components it allows and whether it scales the time stamp counter.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from workers.domain.errors import Unfit
from workers.domain.host_class import MONITOR_MIN, Acceleration, HostClass, Processor, TscSource
from workers.host.acceleration import EMULATED_MODEL, KVM, PINNED_FLAGS, PINNED_MODEL
from workers.host.cpuinfo import CPUINFO, Cpu, first_cpu
from workers.host.kvm import Kvm, ask_kvm

MONITOR: Final = "qemu-system-x86_64"
MONITOR_LIMIT_S: Final = 20
NEWER: Final = "install qemu-system-x86 8.2 or newer (Debian 12 has it in its backports)"
EXPANSION: Final = "query-cpu-model-expansion"
MACHINE: Final = re.compile(r"pc-q35-(\d+(?:\.\d+)+)")
# Linux up to 5.16 saves XSAVE state that the guest was never shown, which another host refuses; QEMU then goes on with
# a half-loaded guest (Linux ad856280ddea, "Limit guest user_xfeatures to supported bits of XCR0").
KERNEL_MIN: Final = (5, 17)

# What QEMU calls a feature of a processor but a guest does not see as one.
SWITCHES: Final = frozenset(
    {
        *("check", "enforce", "kvm", "migratable", "tcg_cpuid", "cpuid_0xb", "vmware_cpuid_freq"),
        *("fill_mtrr_mask", "full_cpuid_auto_level", "host_phys_bits", "l3_cache", "legacy_cache"),
    }
)
# QEMU's own switches, and the particulars of nested virtualization, which our guests are never shown.
NO_FLAGS: Final = ("x-", "vmx-")
# QEMU's second names for one flag, and the name in /proc/cpuinfo.
SPELLINGS: Final = {
    "i64": "lm",
    "xd": "nx",
    "sse3": "pni",
    "pclmuldq": "pclmulqdq",
    "ffxsr": "fxsr_opt",
    "tsc_deadline": "tsc_deadline_timer",
    "cr8legacy": "cr8_legacy",
    "pause_filter": "pausefilter",
    "tsx_ldtrk": "tsxldtrk",
    "avx512vnni": "avx512_vnni",
    "avx512vbmi2": "avx512_vbmi2",
    "avx512bitalg": "avx512_bitalg",
}
# Bit and name of each part of XSAVE's state, and the flag with which QEMU switches it on (its x86_ext_save_areas).
XSAVE: Final = (
    (0, "x87", "xsave"),
    (1, "sse", "xsave"),
    (2, "avx", "avx"),
    (3, "bndregs", "mpx"),
    (4, "bndcsr", "mpx"),
    (5, "opmask", "avx512f"),
    (6, "zmm_hi256", "avx512f"),
    (7, "hi16_zmm", "avx512f"),
    (9, "pkru", "pku"),
    (17, "xtilecfg", "amx_tile"),
    (18, "xtiledata", "amx_tile"),
)
ALL_COMPONENTS: Final = -1


@dataclass(frozen=True)
class Monitor:
    """What QEMU says of itself under one acceleration."""

    version: str
    machines: tuple[str, ...]
    processor: Processor
    pinned: Processor


def measure_host_class(accel: Acceleration) -> HostClass:
    """Measure what a guest would notice of this machine. Raises `Unfit` if it cannot be, or should not be, a host."""
    kernel = os.uname().release
    cpu = first_cpu(CPUINFO.read_text())
    monitor = read_monitor(_asked(accel))
    if accel is Acceleration.TCG:
        return emulating(monitor, cpu, kernel, platform.machine())
    check_kernel(kernel)
    return virtualizing(accel, monitor, ask_kvm(KVM), cpu, kernel)


def emulating(monitor: Monitor, cpu: Cpu, kernel: str, architecture: str) -> HostClass:
    """Return the class of a host whose QEMU executes the guest: of the machine only its time stamp counter is seen."""
    return HostClass(
        acceleration=Acceleration.TCG,
        architecture=architecture,
        kernel=kernel,
        monitor="qemu",
        monitor_version=monitor.version,
        machines=monitor.machines,
        processor=monitor.processor,
        pinned=None,
        tsc_khz=cpu.tsc_khz,
        tsc_source=TscSource.HOST,
    )


def virtualizing(accel: Acceleration, monitor: Monitor, kvm: Kvm, cpu: Cpu, kernel: str) -> HostClass:
    """Return the class of a host whose processor executes the guest, under KVM or PVM."""
    levels = cpu.paging_levels if accel is Acceleration.PVM else monitor.processor.paging_levels
    xsave = xsave_of(monitor.processor.flags, kvm.xcr0)
    return HostClass(
        acceleration=accel,
        architecture="x86_64",
        kernel=kernel,
        monitor="qemu",
        monitor_version=monitor.version,
        machines=monitor.machines,
        processor=replace(monitor.processor, xsave=xsave, paging_levels=levels),
        pinned=monitor.pinned,
        tsc_khz=kvm.tsc_khz,
        tsc_source=TscSource.SCALED if kvm.can_scale_tsc else TscSource.HOST,
    )


def check_kernel(release: str) -> None:
    """Raise `Unfit` for a kernel whose KVM lets guests break when they move."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", release)[:2])
    if numbers < KERNEL_MIN:
        raise Unfit(f"the host's kernel is {release}, whose KVM breaks guests that move; use Linux 5.17 or newer")


def check_monitor(major: int, minor: int) -> None:
    """Raise `Unfit` for a QEMU that cannot start a guest from a file that is open for reading only."""
    if (major, minor) < MONITOR_MIN:
        raise Unfit(f"{MONITOR} is {major}.{minor}; {NEWER}")


def read_monitor(answers: str) -> Monitor:
    """Read QEMU's answers, a JSON document a line. Raises `Unfit` with what QEMU did not answer."""
    said = {answer["id"]: answer for line in answers.splitlines() if "id" in (answer := json.loads(line))}
    version = _returned(said, "version")["qemu"]
    check_monitor(version["major"], version["minor"])
    return Monitor(
        version=f"{version['major']}.{version['minor']}",
        machines=_machines(_returned(said, "machines")),
        processor=_processor(_returned(said, "shown")["model"]["props"]),
        pinned=_processor(_returned(said, "pinned")["model"]["props"]),
    )


def xsave_of(flags: tuple[str, ...], xcr0: int = ALL_COMPONENTS) -> tuple[str, ...]:
    """Return the parts of XSAVE's state that a guest with these flags has where these bits are allowed."""
    if "xsave" not in flags:
        return ()
    return tuple(name for bit, name, flag in XSAVE if flag in flags and xcr0 >> bit & 1)


def spelled(name: str) -> str:
    """Return QEMU's name of a flag (`sse4.1`) as /proc/cpuinfo spells it (`sse4_1`)."""
    name = name.replace("-", "_").replace(".", "_")
    return SPELLINGS.get(name, name)


def _machines(said: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the versioned machine types, oldest first, without those that QEMU is about to drop."""
    kept = (MACHINE.fullmatch(machine["name"]) for machine in said if not machine.get("deprecated"))
    names = sorted(filter(None, kept), key=lambda found: [int(part) for part in found[1].split(".")])
    if not names:
        raise Unfit(f"{MONITOR} knows no machine q35; {NEWER}")
    return tuple(found[0] for found in names)


def _processor(props: Mapping[str, object]) -> Processor:
    names = {spelled(name) for name, value in props.items() if value is True and not name.startswith(NO_FLAGS)}
    flags = tuple(sorted(names - SWITCHES))
    return Processor(str(props["vendor"]), flags, xsave_of(flags), 5 if "la57" in flags else 4)


def _asked(accel: Acceleration) -> str:
    """Start QEMU without a machine, ask, and end it: 90 ms."""
    shown = {"name": EMULATED_MODEL if accel is Acceleration.TCG else "host"}
    pinned = {"name": PINNED_MODEL, "props": dict.fromkeys(PINNED_FLAGS, True)}
    commands = (
        {"execute": "qmp_capabilities"},
        {"execute": "query-version", "id": "version"},
        {"execute": "query-machines", "id": "machines"},
        {"execute": EXPANSION, "id": "shown", "arguments": {"type": "full", "model": shown}},
        {"execute": EXPANSION, "id": "pinned", "arguments": {"type": "full", "model": pinned}},
        {"execute": "quit"},
    )
    alone = ("-nodefaults", "-no-user-config", "-display", "none", "-machine", "none")
    accelerator = "tcg" if accel is Acceleration.TCG else "kvm"
    try:
        done = subprocess.run(
            [MONITOR, *alone, "-accel", accelerator, "-qmp", "stdio"],
            input="\n".join(map(json.dumps, commands)),
            check=True,
            capture_output=True,
            text=True,
            timeout=MONITOR_LIMIT_S,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Unfit(f"{MONITOR} does not run ({error}); install qemu-system-x86") from error
    return done.stdout


def _returned(said: Mapping[str, Mapping[str, Any]], name: str) -> Any:  # noqa: ANN401 - as QEMU's schema says
    answer = said.get(name, {"error": {"desc": f"no answer about its {name}"}})
    if "error" in answer:
        raise Unfit(f"{MONITOR} does not say what it can do ({answer['error']['desc']}); {NEWER}")
    return answer["return"]
