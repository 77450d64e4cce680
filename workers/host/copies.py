"""Every copy of every guest on this machine, and how long it has run: from /proc, asking nobody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from workers.host.cgroups import ROOT, hierarchy

# QEMU's names for them: "CPU 0/TCG", "CPU 1/KVM".
VIRTUAL_PROCESSOR: Final = "CPU "
# From the kernel's include/linux/sched.h.
PF_EXITING: Final = 0x4


def running_copies() -> Mapping[str, Mapping[tuple[str, int], int]]:
    """Return runner -> (host, process id) -> nanoseconds that its virtual processors have run so far."""
    copies: dict[str, dict[tuple[str, int], int]] = {}
    for group in (hierarchy().mounts["pids"] / ROOT).glob("*/*/cgroup.procs"):
        runner, host = group.parent.name, group.parent.parent.name
        with suppress(OSError):  # it has ended while we looked
            for pid in map(int, group.read_text().split()):
                if times := list(_run_ns(pid)):
                    copies.setdefault(runner, {})[host, pid] = sum(times)
    return copies


def _run_ns(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            if (task / "comm").read_text().startswith(VIRTUAL_PROCESSOR):
                run_ns = int((task / "schedstat").read_text().split()[0])
                # Read after it: a thread that ends gives back the guest's memory, which takes processor time too.
                if not _is_ending(task):
                    yield run_ns


def _is_ending(task: Path) -> bool:
    flags = int((task / "stat").read_text().rpartition(")")[2].split()[6])
    return bool(flags & PF_EXITING)
