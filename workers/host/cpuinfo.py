"""`/proc/cpuinfo`, as far as a guest's fate depends on it. What guests are shown of the flags only QEMU knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from workers.domain.errors import Unfit

CPUINFO: Final = Path("/proc/cpuinfo")
# Linux counts two BogoMIPS for each million ticks of the time stamp counter (its `lpj_fine`).
KHZ_PER_BOGOMIPS: Final = 500


@dataclass(frozen=True)
class Cpu:
    """One processor of this machine as its kernel sees it."""

    vendor: str
    flags: frozenset[str]
    tsc_khz: int
    """The rate of the time stamp counter as Linux found it at its start; it may err by 500 parts in a million."""

    @property
    def paging_levels(self) -> int:
        """How the kernel itself pages; Linux takes `la57` away when it does not use it."""
        return 5 if "la57" in self.flags else 4


def first_cpu(text: str) -> Cpu:
    """Read the first processor. Raises `Unfit`, naming the line that is missing or no number."""
    lines: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        lines.setdefault(name.strip(), value.strip())
    try:
        khz = round(float(lines["bogomips"]) * KHZ_PER_BOGOMIPS)
        return Cpu(lines["vendor_id"], frozenset(lines["flags"].split()), khz)
    except KeyError as error:
        raise Unfit(f"{CPUINFO} has no line {error}; only x86-64 machines can be hosts") from error
    except (ValueError, OverflowError) as error:
        raise Unfit(f"{CPUINFO}: bogomips is {lines['bogomips']!r}, no number; is this Linux?") from error
