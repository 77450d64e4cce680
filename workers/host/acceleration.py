"""Who executes the guests' instructions on this machine: found out honestly, chosen with a reason in words.

`/dev/kvm` that opens proves nothing: under a PVM hypervisor it opens and then
interprets a stock guest kernel instruction by instruction.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, assert_never

from workers.domain.errors import BadInput, Unfit
from workers.domain.host_class import Acceleration

KVM: Final = Path("/dev/kvm")
# <linux/kvm.h>: the only version there has ever been.
KVM_GET_API_VERSION: Final = 0xAE00
KVM_API_VERSION: Final = 12
# What every x86-64 server since 2009 has, so that a guest may move between processors of different years.
PINNED_MODEL: Final = "qemu64"
PINNED_FLAGS: Final = ("cx16", "lahf-lm", "popcnt", "sse4.1", "sse4.2", "ssse3", "aes")
# Emulation shows all that it can on every machine. It is not pinned, so another QEMU may show another processor.
EMULATED_MODEL: Final = "max"


@dataclass(frozen=True)
class Probe:
    """What this machine says about itself."""

    kvm_trouble: str | None
    """Why /dev/kvm is of no use, None if it opens and speaks our version."""
    has_extension: bool
    """The processor, or a loaded module, offers hardware virtualization."""
    is_pvm: bool
    """/dev/kvm is PVM's."""


@dataclass(frozen=True)
class Choice:
    """What guests are run by, and why."""

    acceleration: Acceleration
    reason: str


def probe(root: Path = Path("/")) -> Probe:
    """Look at this machine."""
    modules = root / "sys/module"
    cpuinfo = root / "proc/cpuinfo"
    flags = cpuinfo.read_text().split() if cpuinfo.exists() else []
    loaded = any((modules / name).exists() for name in ("kvm_intel", "kvm_amd"))
    return Probe(
        kvm_trouble=_kvm_trouble(root / KVM.relative_to("/")),
        has_extension=loaded or "vmx" in flags or "svm" in flags,
        is_pvm=(modules / "kvm_pvm").exists(),
    )


def choose_acceleration(override: str | None, *, has_pvm_kernel: bool = False) -> Choice:
    """Choose the best that works here for a guest whose kernel is, or is not, made for PVM.

    Raises `BadInput` if the override names nothing we know, `Unfit` if this machine cannot do what it names.
    """
    return choose(probe(), override, has_pvm_kernel=has_pvm_kernel)


def choose(seen: Probe, override: str | None, *, has_pvm_kernel: bool) -> Choice:
    """Decide; `choose_acceleration` says how."""
    if not override:
        return _best(seen, has_pvm_kernel=has_pvm_kernel)
    try:
        wanted = Acceleration(override.lower())
    except ValueError as error:
        raise BadInput(f"SPOT_RUNNER_ACCEL is {override!r}; write kvm, pvm or tcg, or leave it empty") from error
    if trouble := _trouble(wanted, seen, has_pvm_kernel=has_pvm_kernel):
        raise Unfit(f"SPOT_RUNNER_ACCEL asks for {wanted}, but {trouble}; write tcg or leave it empty")
    return Choice(wanted, "SPOT_RUNNER_ACCEL asks for it")


def cpu_model(accel: Acceleration) -> str:
    """Return the processor that a package made under this acceleration shows its guests, as QEMU is told it."""
    if accel is Acceleration.TCG:
        return EMULATED_MODEL
    # Without `enforce` QEMU only warns of what the host lacks, and starts the guest without it.
    return ",".join((PINNED_MODEL, *(f"+{flag}" for flag in PINNED_FLAGS), "enforce"))


def _best(seen: Probe, *, has_pvm_kernel: bool) -> Choice:
    troubles = []
    for accel in (Acceleration.KVM, Acceleration.PVM):
        trouble = _trouble(accel, seen, has_pvm_kernel=has_pvm_kernel)
        if trouble is None:
            return Choice(accel, _praise(accel))
        troubles.append(trouble)
    return Choice(Acceleration.TCG, f"software emulation, because {' and '.join(dict.fromkeys(troubles))}")


def _praise(accel: Acceleration) -> str:
    match accel:
        case Acceleration.KVM:
            return "hardware virtualization works here"
        case Acceleration.PVM:
            return "the host kernel is PVM and the guest's kernel is made for it"
        case Acceleration.TCG:
            return "software emulation"
        case _:
            assert_never(accel)


def _trouble(accel: Acceleration, seen: Probe, *, has_pvm_kernel: bool) -> str | None:
    """Say why this machine cannot, None if it can."""
    match accel:
        case Acceleration.TCG:
            return None
        case Acceleration.KVM if seen.is_pvm:
            return "/dev/kvm here is PVM's, not the hardware's"
        case Acceleration.KVM if not seen.has_extension:
            return seen.kvm_trouble or "the processor offers no hardware virtualization"
        case Acceleration.PVM if not seen.is_pvm:
            return seen.kvm_trouble or "the host kernel is no PVM kernel"
        case Acceleration.PVM if not has_pvm_kernel:
            return "the guest's kernel is not made for PVM"
        case _:
            return seen.kvm_trouble


def _kvm_trouble(device: Path) -> str | None:
    try:
        kvm = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return f"/dev/kvm does not open ({error.strerror})"
    try:
        version = fcntl.ioctl(kvm, KVM_GET_API_VERSION)
    except OSError as error:
        return f"/dev/kvm is no KVM ({error.strerror})"
    finally:
        os.close(kvm)
    return None if version == KVM_API_VERSION else f"/dev/kvm speaks version {version}, not {KVM_API_VERSION}"
