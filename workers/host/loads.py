"""What a move of one microVM would carry, measured without its noticing.

* Memory in use: what differs from zeros. Of a guest restored from a package that is at most the package's memory, which
  all its guests share, and what this one has written since; of one that was moved here what it has.
* The overlay: what its file takes on this host.
* How much it writes: QEMU hashes some pages now and a second later (`calc-dirty-rate`, page-sampling). Under software
  emulation its other modes say 0, and neither of the three was seen in the guest's gaps.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from workers.domain.errors import Unreachable
from workers.domain.messages import Load
from workers.host.disks import BLOCK_BYTES
from workers.host.qemu import Qemu

SAMPLING_S: Final = 1
# A second of sampling, and a busy machine may take its time.
SAMPLING_LIMIT_S: Final = 5.0
LOOK_INTERVAL_S: Final = 0.1
KIB_PER_MIB: Final = 1024


@dataclass(frozen=True)
class Mapping:
    """A piece of a process's address space, as /proc/PID/smaps shows it."""

    kib: int
    written_kib: int
    """What the process has for itself."""


def largest_mapping(smaps: str) -> Mapping | None:
    """Return the largest mapping, which in a QEMU is the guest's memory."""
    found, kib = None, 0
    for line in smaps.splitlines():
        if line.startswith("Size:"):
            kib = _kib(line)
        elif line.startswith("Anonymous:") and (found is None or kib > found.kib):
            found = Mapping(kib, _kib(line))
    return found


def memory_mib(pid: int, package_mib: float) -> float | None:
    """Return how much of its memory the guest of this QEMU uses at most; None if it has ended. Takes milliseconds.

    `package_mib` is what it began with. What is in memory of the file that it shares says nothing: the kernel reads and
    drops that as it likes, and a page of zeros counts there, too.
    """
    try:
        mapping = largest_mapping(Path(f"/proc/{pid}/smaps").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if mapping is None else min(mapping.kib / KIB_PER_MIB, package_mib + mapping.written_kib / KIB_PER_MIB)


def disk_mib(overlay: Path) -> float:
    """Return what this file takes."""
    try:
        return overlay.stat().st_blocks * BLOCK_BYTES / (1 << 20)
    except FileNotFoundError:
        return 0.0


async def dirty_mib_s(qemu: Qemu) -> float | None:
    """Return how much different memory the guest writes in a second; None if QEMU does not say in time."""
    await qemu.execute("calc-dirty-rate", {"calc-time": SAMPLING_S, "mode": "page-sampling"})
    for _ in range(round(SAMPLING_LIMIT_S / LOOK_INTERVAL_S)):
        await asyncio.sleep(LOOK_INTERVAL_S)
        answer = await qemu.execute("query-dirty-rate")
        if isinstance(answer, dict) and answer.get("status") == "measured":
            rate = answer.get("dirty-rate")
            return float(rate) if isinstance(rate, int) and rate >= 0 else None
    return None


async def carried(qemu: Qemu, overlay: Path, package_mib: float) -> Load:
    """Measure what takes milliseconds: all but how much it writes. Raises `Unreachable` if it has ended."""
    memory, disk = await asyncio.gather(
        asyncio.to_thread(memory_mib, qemu.name.pid, package_mib), asyncio.to_thread(disk_mib, overlay)
    )
    if memory is None:
        raise Unreachable(f"the monitor in {qemu.directory} has ended")
    return Load(round(memory, 1), round(disk, 1))


def vcpu_threads(pid: int) -> tuple[int, ...]:
    """Return the threads in which this QEMU runs its guest's processors; `-name debug-threads=on` names them."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/comm"):
        try:
            if task.read_text().startswith("CPU "):
                found.append(int(task.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
    return tuple(sorted(found))


def _kib(line: str) -> int:
    return int(line.split()[1])
