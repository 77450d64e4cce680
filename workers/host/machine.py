"""The machine that a guest runs on, and what connects it to this host.

`machine_arguments` is the only place that describes the machine, since a template, a restored guest and the target
of a migration must be the same machine; `Wiring` says what differs between them, and the guest notices none of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from workers.domain.host_class import Acceleration

# The translation cache of software emulation; without a limit a 1 GiB guest's QEMU grew to 1.8 GB.
TRANSLATION_CACHE_MIB: Final = 128
SANDBOX: Final = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
# What a guest prints is hostile and endless, so only the last of it is kept, in memory.
CONSOLE_BYTES: Final = 65_536
TEMPLATE_MAC: Final = "52:54:00:77:00:00"
# The first QEMU that migrates software-emulated guests rightly (its commit "physmem: Fix migration dirty bitmap
# coherency with TCG memory access").
LOSES_NO_WRITES: Final = 9


@dataclass(frozen=True)
class Machine:
    """All that a guest may notice of its machine; fixed when its package is made."""

    type: str
    """The versioned machine type, for example `pc-q35-7.2`."""
    acceleration: Acceleration
    cpu: str
    vcpus: int
    memory_mib: int
    memory_short_kib: int = 0
    """By how much the guest has less than that, see `memory_short_kib`; the package's memory file is whole."""

    @property
    def memory_kib(self) -> int:
        """What the guest has."""
        return self.memory_mib * 1024 - self.memory_short_kib


def memory_short_kib(acceleration: Acceleration, monitor_version: str) -> int:
    """Return by how much a machine made by this monitor (`7.2`) should have less memory than it is said to have.

    QEMU before 9.0 loses writes of a software-emulated guest while it migrates: after a round of copying it forgets to
    reset what its translation remembers of dirty pages, unless the memory is no whole multiple of 64 pages and each
    page is looked at by itself. Without this, 71 to 4,347 pages differed after a move, and guests crashed.
    """
    major = int(monitor_version.partition(".")[0])
    return 8 if acceleration is Acceleration.TCG and major < LOSES_NO_WRITES else 0


@dataclass(frozen=True)
class TemplateMemory:
    """Guest memory is this file; what the guest writes is in it."""

    path: Path


@dataclass(frozen=True)
class PackageMemory:
    """Guest memory begins as the contents of this file, open for reading; what the guest writes stays private."""

    fd: int


@dataclass(frozen=True)
class FreshMemory:
    """Guest memory begins as zeros."""


@dataclass(frozen=True)
class RawDisk:
    """The disk is this raw file, written in place."""

    path: Path


@dataclass(frozen=True)
class Overlay:
    """The disk is an open qcow2 file over an open read-only raw file."""

    file: int
    base: int


@dataclass(frozen=True)
class LinuxBoot:
    """The kernel that QEMU loads; a restored guest has it already, but the machine must be the same."""

    kernel: Path
    initrd: Path | None
    command_line: str


@dataclass(frozen=True)
class Wiring:
    """What connects a machine to this host; the guest notices none of it."""

    memory: TemplateMemory | PackageMemory | FreshMemory
    disk: RawDisk | Overlay
    boot: LinuxBoot
    mac: str = TEMPLATE_MAC
    tap: int | None = None
    """An open tap with IFF_VNET_HDR; None: the same device, connected to nothing."""
    console: Path | None = None
    """None: the last 64 KiB in memory."""
    incoming: bool = False
    """Wait for a state and stand still after it."""

    @property
    def fds(self) -> tuple[int, ...]:
        """The open files that QEMU inherits."""
        memory = (self.memory.fd,) if isinstance(self.memory, PackageMemory) else ()
        disk = (self.disk.file, self.disk.base) if isinstance(self.disk, Overlay) else ()
        return memory + disk + (() if self.tap is None else (self.tap,))


def machine_arguments(machine: Machine, wiring: Wiring) -> list[str]:
    """Return QEMU's arguments for this machine, the channels to the monitor and to the guest agent left out.

    The machine expects a chardev named `agent`; `Qemu.start` adds it.
    """
    return [
        *("-nodefaults", "-no-user-config", "-display", "none", "-sandbox", SANDBOX, "-no-reboot"),
        *("-machine", f"{machine.type},memory-backend=ram,usb=off,vmport=off"),
        *("-accel", _accelerator(machine.acceleration), "-cpu", machine.cpu),
        *("-smp", str(machine.vcpus), "-m", f"{machine.memory_kib}K"),
        *("-object", _memory(machine, wiring.memory)),
        *_boot(wiring.boot),
        *_disk(wiring.disk),
        *("-netdev", "hubport,id=net,hubid=0" if wiring.tap is None else f"tap,id=net,fd={wiring.tap}"),
        *("-chardev", _console(wiring.console), "-serial", "chardev:console"),
        *_devices(wiring.mac),
        *(("-S", "-incoming", "defer") if wiring.incoming else ()),
    ]


def _accelerator(acceleration: Acceleration) -> str:
    if acceleration is Acceleration.TCG:
        return f"tcg,thread=multi,tb-size={TRANSLATION_CACHE_MIB}"
    return "kvm"


def _memory(machine: Machine, memory: TemplateMemory | PackageMemory | FreshMemory) -> str:
    size = f"id=ram,size={machine.memory_kib}K"
    match memory:
        case TemplateMemory(path):
            return f"memory-backend-file,{size},share=on,mem-path={path}"
        case PackageMemory(fd):
            return f"memory-backend-file,{size},share=off,readonly=on,rom=off,mem-path=/proc/self/fd/{fd}"
        case FreshMemory():
            return f"memory-backend-ram,{size}"


def _boot(boot: LinuxBoot) -> list[str]:
    initrd = [] if boot.initrd is None else ["-initrd", str(boot.initrd)]
    return ["-kernel", str(boot.kernel), *initrd, "-append", boot.command_line]


def _disk(disk: RawDisk | Overlay) -> list[str]:
    # A runner's disk does not outlive its host, so a guest's flush need not reach the platter; trimmed and zeroed
    # blocks are given back, so that a migration does not carry them.
    lasting = {"node-name": "disk", "cache": {"no-flush": True}, "discard": "unmap", "detect-zeroes": "unmap"}
    match disk:
        case RawDisk(path):
            return _blockdev({"driver": "raw", "file": {"driver": "file", "filename": str(path)}} | lasting)
        case Overlay(file, base):
            # Without locks: base is sealed by being read-only, and each overlay belongs to one QEMU alone.
            below = {"driver": "raw", "node-name": "base", "read-only": True, "file": _fdset(2)}
            above = {"driver": "qcow2", "file": _fdset(1), "backing": "base"} | lasting
            sets = ("-add-fd", f"fd={file},set=1,opaque=overlay", "-add-fd", f"fd={base},set=2,opaque=base")
            return [*sets, *_blockdev(below), *_blockdev(above)]


def _fdset(number: int) -> Mapping[str, object]:
    return {"driver": "file", "filename": f"/dev/fdset/{number}", "locking": "off"}


def _blockdev(node: Mapping[str, object]) -> list[str]:
    return ["-blockdev", json.dumps(node)]


def _console(path: Path | None) -> str:
    return f"ringbuf,id=console,size={CONSOLE_BYTES}" if path is None else f"file,id=console,path={path}"


def _devices(mac: str) -> list[str]:
    """The devices that a guest sees, each at a place of its own, so that the order of arguments decides nothing."""
    devices = (
        "virtio-rng-pci,addr=0x2",
        "virtio-blk-pci,drive=disk,addr=0x3",
        "virtio-serial-pci,addr=0x4",
        "virtserialport,chardev=agent,name=agent",
        f"virtio-net-pci,netdev=net,mac={mac},addr=0x5,romfile=",
    )
    return [argument for device in devices for argument in ("-device", device)]
