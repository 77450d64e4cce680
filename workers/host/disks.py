"""What runners of one package share on this host, and the overlay that each of them writes to.

    package's memory (open for reading only) ◀──private mapping── QEMU, QEMU, ...
    package's disk (raw, read-only) ◀── empty overlay, made once ──copied──▶ overlay of each runner

One runner must not be able to change what the next one starts from, so no monitor has either open for writing. The
memory is a file on the disk, since the kernel drops its pages when it needs room: a move reads a guest's memory to the
last page, and a file in memory would have to keep each page of zeros that is read there.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from workers.domain.errors import BadInput, Unfit
from workers.domain.names import PackageDigest
from workers.host.machine import LinuxBoot, Machine

MIB: Final = 1 << 20
# In which the kernel counts what a file takes.
BLOCK_BYTES: Final = 512
MAKE_LIMIT_S: Final = 20.0
OVERLAY: Final = "disk.qcow2"
"""A runner's own overlay, in its directory."""
# The first words of a qcow2 file, as its specification has them: magic, version, the name of what lies below, the size
# of clusters and of the disk, encryption, three tables, snapshots, and which features a reader must know.
_HEADER: Final = struct.Struct(">4sIQIIQIIQQIIQQ")
_MAGIC: Final = b"QFI\xfb"
_VERSION: Final = 3
# "Was not closed": harmless. All others would let the file name other files, or be read in another way.
_HARMLESS_FEATURES: Final = 1


class Kernel(Protocol):
    """The guest's kernel, as the manifest says it."""

    @property
    def command_line(self) -> str: ...


class Manifest(Protocol):
    """What we need to know of a package."""

    @property
    def machine(self) -> Machine: ...
    @property
    def disk_mib(self) -> int: ...
    @property
    def kernel(self) -> Kernel: ...


class Unpacked(Protocol):
    """A package whose contents were verified and lie unpacked on this host."""

    @property
    def digest(self) -> PackageDigest: ...
    @property
    def manifest(self) -> Manifest: ...
    @property
    def memory(self) -> Path: ...
    @property
    def state(self) -> Path: ...
    @property
    def disk(self) -> Path: ...
    @property
    def kernel(self) -> Path: ...
    @property
    def initrd(self) -> Path: ...


@dataclass(frozen=True)
class Stock:
    """A package made ready: runners start from it at once and share its pages."""

    machine: Machine
    boot: LinuxBoot
    disk_mib: int
    memory: int
    """The package's memory, open for reading."""
    base: int
    """The package's disk, open for reading."""
    state: Path
    memory_used_mib: float
    """What of the memory is no zeros."""
    _empty_overlay: Path

    @classmethod
    def make(cls, unpacked: Unpacked, directory: Path) -> Stock:
        """Open the package's memory and disk, and make an empty overlay in this directory; takes some milliseconds."""
        manifest = unpacked.manifest
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        overlay = directory / f"{unpacked.digest.removeprefix('sha256:')}.qcow2"
        _make_overlay(overlay, unpacked.disk, manifest.disk_mib)
        memory = os.open(unpacked.memory, os.O_RDONLY | os.O_CLOEXEC)
        return cls(
            machine=manifest.machine,
            boot=LinuxBoot(unpacked.kernel, unpacked.initrd, manifest.kernel.command_line),
            disk_mib=manifest.disk_mib,
            memory=memory,
            memory_used_mib=os.fstat(memory).st_blocks * BLOCK_BYTES / MIB,
            base=os.open(unpacked.disk, os.O_RDONLY | os.O_CLOEXEC),
            state=unpacked.state,
            _empty_overlay=overlay,
        )

    def close(self) -> None:
        """Let go of the package; runners that have started keep what they need."""
        os.close(self.memory)
        os.close(self.base)

    def open_overlay(self, directory: Path) -> int:
        """Make a runner's own overlay in its directory, empty, and return it open; it may never outgrow the disk."""
        overlay = directory / OVERLAY
        shutil.copyfile(self._empty_overlay, overlay)
        overlay.chmod(0o600)
        return os.open(overlay, os.O_RDWR | os.O_CLOEXEC)


def check_overlay(overlay: int) -> None:
    """Raise `BadInput` unless this open file is an overlay of ours: one that names nothing else to be opened."""
    head = os.pread(overlay, _HEADER.size, 0)
    if len(head) < _HEADER.size:
        raise BadInput("disk: the overlay has no header; the park is not whole")
    magic, version, *_, encryption, _, _, _, _, snapshots, _, features = _HEADER.unpack(head)
    if (magic, version) != (_MAGIC, _VERSION):
        raise BadInput("disk: the overlay is no qcow2 file of version 3; it was written by something else")
    if encryption or snapshots or features & ~_HARMLESS_FEATURES:
        raise BadInput("disk: the overlay uses features that ours never does; it was written by something else")


def _make_overlay(overlay: Path, disk: Path, disk_mib: int) -> None:
    """Make an empty overlay; which file lies under it is said when QEMU starts, so the name inside does not matter."""
    try:
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", disk, overlay, f"{disk_mib}M"],
            check=True,
            capture_output=True,
            timeout=MAKE_LIMIT_S,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Unfit(f"qemu-img cannot make an overlay over {disk}: {error}; is it installed, is there room?") from error
