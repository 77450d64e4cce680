"""Every copy of every guest on this machine, and how long it has run: from /proc, asking nobody."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from workers.host.cgroups import ROOT, hierarchy

# QEMU's names for them: "CPU 0/TCG", "CPU 1/KVM".
VIRTUAL_PROCESSOR: Final = "CPU "
# From the kernel's include/linux/sched.h.
PF_EXITING: Final = 0x4
# What the kernel says of a group, a process or a thread that ended between its listing and its reading.
GONE: Final = frozenset({errno.ENOENT, errno.ENODEV, errno.ESRCH})


def running_copies() -> Mapping[str, Mapping[tuple[str, int], int]]:
    """Return runner -> (host, process id) -> nanoseconds that its virtual processors have run so far."""
    copies: dict[str, dict[tuple[str, int], int]] = {}
    for host, runner, group in groups_of(hierarchy().mounts["pids"] / ROOT):
        for pid in _members(group):
            if times := list(_run_ns(pid)):
                copies.setdefault(runner, {})[host, pid] = sum(times)
    return copies


def groups_of(root: Path) -> Iterator[tuple[str, str, Path]]:
    """Yield host, runner and group of every runner below `root`; what is removed meanwhile is left out."""
    for host in _folders(root):
        for runner in _folders(host):
            yield host.name, runner.name, runner


def _folders(parent: Path) -> Sequence[Path]:
    """Return the folders in one that may vanish at any moment, as whole hosts do."""
    found: list[Path] = []
    with _gone_is_nothing(), os.scandir(parent) as entries:
        found += [Path(entry.path) for entry in entries if entry.is_dir()]
    return found


def _members(group: Path) -> Sequence[int]:
    found: list[int] = []
    with _gone_is_nothing():
        found += [int(pid) for pid in (group / "cgroup.procs").read_text().split()]
    return found


def _run_ns(pid: int) -> Iterator[int]:
    for task in _folders(Path(f"/proc/{pid}/task")):
        with _gone_is_nothing():
            if (task / "comm").read_text().startswith(VIRTUAL_PROCESSOR):
                run_ns = int((task / "schedstat").read_text().split()[0])
                # Read after it: a thread that ends gives back the guest's memory, which takes processor time too.
                if not _is_ending(task):
                    yield run_ns


def _is_ending(task: Path) -> bool:
    flags = int((task / "stat").read_text().rpartition(")")[2].split()[6])
    return bool(flags & PF_EXITING)


@contextmanager
def _gone_is_nothing() -> Iterator[None]:
    """Whatever is not there any more is passed over; everything else that fails is an error of the watching."""
    try:
        yield
    except OSError as error:
        if error.errno not in GONE:
            raise
