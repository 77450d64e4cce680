"""The guest that a package is made of: booted once, made ready, and stopped for good.

disk ─▶ boot ─▶ the agent answers ─▶ BeforeSuspend ─▶ stop ─▶ memory, state, disk
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from workers.host.disks import Stock
from workers.host.guest import GuestChannel
from workers.host.machine import (
    FreshMemory,
    LinuxBoot,
    Machine,
    Overlay,
    PackageMemory,
    RawDisk,
    TemplateMemory,
    Wiring,
)
from workers.host.packages import Unpacked
from workers.host.programs import run
from workers.host.qemu import Qemu
from workers.host.rootfs import Disk

# Under software emulation a guest boots in half a minute; with ten others on two processors it took 283 s.
BOOT_LIMIT_S: Final = 900.0
SETTLE_LIMIT_S: Final = 900.0
CONNECT_LIMIT_S: Final = 5.0
# What Drafter's readers expect; the agent of a QEMU guest listens on a virtio-serial port instead.
CONFIG: Final = b'{"agentVSockPort":26}\0'


@dataclass(frozen=True)
class Template:
    """Where a guest is being made ready."""

    machine: Machine
    disk: Disk
    command_line: str
    work: Path

    async def boot(self) -> float:
        """Boot, settle and stop the guest; `devices` are there afterwards. Returns the seconds that the boot took."""
        run(["cp", "--sparse=always", "--reflink=auto", str(self.disk.disk), str(self.work / "disk")])
        (self.work / "config").write_bytes(CONFIG)
        self._make_memory()
        boot = LinuxBoot(self.disk.kernel, self.disk.initrd, self.command_line)
        wiring = Wiring(TemplateMemory(self.work / "memory"), RawDisk(self.work / "disk"), boot)
        async with _booted(self.machine, wiring, self.work) as (qemu, guest, boot_s):
            # Its answer is read before the snapshot, so nothing is on its way in either direction.
            await guest.call("BeforeSuspend", limit_s=SETTLE_LIMIT_S)
            state = os.open(self.work / "state", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                await qemu.save(state)
            finally:
                os.close(state)
        return boot_s

    def _make_memory(self) -> None:
        """Make the file whole; the guest may have a little less than its machine is said to have."""
        memory = self.work / "memory"
        memory.touch(mode=0o600)
        os.truncate(memory, self.machine.memory_mib << 20)

    @property
    def devices(self) -> Mapping[str, Path]:
        """The devices in the order in which a package holds them."""
        here = {name: self.work / name for name in ("state", "memory", "kernel", "disk", "config", "initrd")}
        return here | {"kernel": self.disk.kernel, "initrd": self.disk.initrd}


async def measure_cold_boot(unpacked: Unpacked, folder: Path | None = None) -> float:
    """Boot the package's guest as if there were no snapshot; return the seconds until its agent answers.

    It works in a directory of its own below `folder`, by default where temporary things go.
    """
    manifest = unpacked.manifest
    boot = LinuxBoot(unpacked.kernel, unpacked.initrd, manifest.kernel.command_line)
    with tempfile.TemporaryDirectory(prefix="spot-cold-boot.", dir=folder) as name, unpacked.disk.open("rb") as base:
        overlay_path = Path(name) / "overlay"
        run(["qemu-img", "create", "-q", "-f", "qcow2", str(overlay_path), f"{manifest.disk_mib}M"])
        with overlay_path.open("r+b") as overlay:
            wiring = Wiring(FreshMemory(), Overlay(overlay.fileno(), base.fileno()), boot)
            async with _booted(manifest.machine, wiring, Path(name)) as (_, _, boot_s):
                return boot_s


async def measure_restore(unpacked: Unpacked, folder: Path | None = None) -> float:
    """Restore one guest from the package, connected to nothing; return the seconds until its agent answers.

    Raises what went wrong. It works in a directory of its own below `folder`, by default where temporary things go.
    """
    with tempfile.TemporaryDirectory(prefix="spot-restore.", dir=folder) as name:
        stock = Stock.make(unpacked, Path(name, "stock"))
        overlay = stock.open_overlay(Path(name))
        state = os.open(stock.state, os.O_RDONLY | os.O_CLOEXEC)
        try:
            disk = Overlay(overlay, stock.base)
            wiring = Wiring(PackageMemory(stock.memory), disk, stock.boot, incoming=True)
            async with _booted(stock.machine, wiring, Path(name), state) as (_, _, restore_s):
                return restore_s
        finally:
            os.close(state)
            os.close(overlay)
            stock.close()


@asynccontextmanager
async def _booted(
    machine: Machine, wiring: Wiring, directory: Path, state: int | None = None
) -> AsyncIterator[tuple[Qemu, GuestChannel, float]]:
    """Boot a machine, or restore this state, and wait for its agent; at the end of the block QEMU is gone."""
    began = time.monotonic()
    qemu = await Qemu.start(machine, wiring, directory)
    try:
        if state is not None:
            await qemu.restore(state)
            await qemu.run()
        guest = await GuestChannel.connect(directory / "agent", CONNECT_LIMIT_S)
        try:
            await guest.call("RunnerStatus", limit_s=BOOT_LIMIT_S)
            yield qemu, guest, time.monotonic() - began
        finally:
            await guest.close()
    finally:
        await qemu.quit()
