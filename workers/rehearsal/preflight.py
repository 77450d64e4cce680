"""What is checked before anything is started; each failure is one line that says what to do."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from workers.domain.errors import Unfit
from workers.rehearsal.places import Places
from workers.rehearsal.remains import NETNS

PYTHON_MIN: Final = (3, 11)
PROGRAMS: Final = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "ip": "iproute2",
    "nft": "nftables",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "redis-server": "redis-server",
    "git": "git",
}
OVERLAY_PROGRAMS: Final = {"wg": "wireguard-tools", "wireguard-go": "wireguard-go"}
# A guest has 1024 MiB, its monitor some more, and during its move it is there twice.
JOB_MEMORY_MIB: Final = 2 * 1400
SERVICE_MEMORY_MIB: Final = 1500
# Its overlay grows by what the job writes, on both sides of a move.
JOB_DISK_MIB: Final = 2 * 1024
SERVICE_DISK_MIB: Final = 1024


def check_machine(places: Places, jobs: int, *, with_overlay: bool = False) -> None:
    """Raise `Unfit` with the first thing that is missing."""
    check_rights()
    check_programs(PROGRAMS | OVERLAY_PROGRAMS if with_overlay else PROGRAMS)
    check_memory(jobs)
    check_disk(places.state, jobs)


def check_rights() -> None:
    if sys.version_info < PYTHON_MIN:
        raise Unfit(f"this is Python {sys.version.split()[0]}; use Python 3.11 or newer")
    if os.geteuid() != 0:
        raise Unfit("the rehearsal makes network namespaces and microVMs; run it as root, for example with sudo")


def check_programs(programs: Mapping[str, str]) -> None:
    missing = [package for program, package in programs.items() if shutil.which(program) is None]
    if missing:
        raise Unfit(f"programs are missing; apt-get install {' '.join(dict.fromkeys(missing))}, or use ./dev demo")


def check_clouds() -> None:
    """Raise `Unfit` if AWS cannot be played here."""
    if importlib.util.find_spec("moto") is None:
        raise Unfit("moto is missing, which plays AWS; use ./dev demo clouds, which installs it from the lock")


def check_memory(jobs: int) -> None:
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free_mib = int(lines["MemAvailable"].split()[0]) // 1024
    needed_mib = SERVICE_MEMORY_MIB + jobs * JOB_MEMORY_MIB
    if free_mib < needed_mib:
        raise Unfit(f"{free_mib} MiB of memory are free and {needed_mib} are needed; free some, or use fewer --jobs")


def check_disk(folder: Path, jobs: int) -> None:
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free_mib = shutil.disk_usage(existing).free >> 20
    needed_mib = SERVICE_DISK_MIB + jobs * JOB_DISK_MIB
    if free_mib < needed_mib:
        raise Unfit(
            f"{free_mib} MiB are free in {existing} and {needed_mib} are needed; make room, or use fewer --jobs"
        )


def check_names(places: Places) -> None:
    """Raise `Unfit` if somebody else has a namespace of our names; ours have been swept by now."""
    taken = next(NETNS.glob(f"{places.name}-*"), None)
    if taken is not None:
        raise Unfit(f"the namespace {taken.name} exists and is not of a rehearsal; delete it, or use another --name")
