"""Processes that outlive us, named so that the next daemon finds the same ones again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProcessName:
    """A process for good: process ids are used again, start times are not."""

    pid: int
    started: int
    """Clock ticks since the machine's boot, from /proc."""


def process_name(pid: int) -> ProcessName | None:
    """Name the process that has this id now; None if there is none, or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else ProcessName(pid, int(fields[19]))
