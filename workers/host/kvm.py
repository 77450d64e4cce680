"""What `/dev/kvm` says of itself, KVM's or PVM's: two facts that decide over moves and that QEMU does not tell."""

from __future__ import annotations

import fcntl
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from workers.domain.errors import Unfit

# <linux/kvm.h>
CREATE_VM: Final = 0xAE01
CHECK_EXTENSION: Final = 0xAE03
GET_SUPPORTED_CPUID: Final = 0xC008AE05
CREATE_VCPU: Final = 0xAE41
GET_TSC_KHZ: Final = 0xAEA3
CAP_TSC_CONTROL: Final = 60
# KVM has about 60 entries; it refuses a table that is too small.
ENTRIES_MAX: Final = 256
HEAD: Final = struct.Struct("II")
# function, index, flags, eax, ebx, ecx, edx, padding
ENTRY: Final = struct.Struct("7I12x")
XSAVE_LEAF: Final = 0xD


@dataclass(frozen=True)
class Kvm:
    """What this host's KVM can do for a guest."""

    xcr0: int
    """The state components that a guest may switch on, as bits."""
    tsc_khz: int
    """The rate at which a guest's time stamp counter begins, refined over the first second after the host's boot."""
    can_scale_tsc: bool


def ask_kvm(device: Path) -> Kvm:
    """Ask; a virtual machine with one processor and no memory is made for it. Raises `Unfit` if KVM refuses."""
    try:
        kvm = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise Unfit(f"{device} does not open ({error.strerror}); see why in the kernel's log") from error
    try:
        return Kvm(_xcr0(kvm), _tsc_khz(kvm), fcntl.ioctl(kvm, CHECK_EXTENSION, CAP_TSC_CONTROL) > 0)
    except OSError as error:
        raise Unfit(f"{device} does not say what it can do ({error.strerror}); see the kernel's log") from error
    finally:
        os.close(kvm)


def _xcr0(kvm: int) -> int:
    table = bytearray(HEAD.pack(ENTRIES_MAX, 0) + bytes(ENTRY.size * ENTRIES_MAX))
    fcntl.ioctl(kvm, GET_SUPPORTED_CPUID, table, True)
    count, _ = HEAD.unpack_from(table)
    for function, index, _, eax, _, _, edx in ENTRY.iter_unpack(table[HEAD.size : HEAD.size + ENTRY.size * count]):
        if (function, index) == (XSAVE_LEAF, 0):
            return int(eax | edx << 32)
    return 0


def _tsc_khz(kvm: int) -> int:
    vm = fcntl.ioctl(kvm, CREATE_VM, 0)
    try:
        vcpu = fcntl.ioctl(vm, CREATE_VCPU, 0)
        try:
            return fcntl.ioctl(vcpu, GET_TSC_KHZ)
        finally:
            os.close(vcpu)
    finally:
        os.close(vm)
