"""What one microVM may take of this machine, as control groups.

    version 2, one tree            version 1, one tree a controller
    ROOT/HOST/RUNNER               MEMORY/ROOT/HOST/RUNNER, CPU/..., PIDS/...

    .../RUNNER/vcpus             while the guest is pressed: its processors' threads, and not what sends it

Which one holds the controllers is asked of the machine: distributions mix them, and a version 2 tree without
controllers beside version 1 mounts is common.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from workers.domain.errors import Unfit

ROOT: Final = "spot-runner"
CONTROLLERS: Final = ("memory", "cpu", "pids")
PERIOD_US: Final = 100_000
# A pressed guest stands still between its turns, so they come often; the kernel grants no turn below a millisecond.
PRESS_PERIOD_US: Final = 25_000
TURN_MIN_US: Final = 1000
VCPUS: Final = "vcpus"
# The kernel needs a moment after a process's end until its group is empty.
REMOVAL_LIMIT_S: Final = 2.0
REMOVAL_INTERVAL_S: Final = 0.005


@dataclass(frozen=True)
class Limits:
    """What one microVM may take at most."""

    memory_mib: int
    cpus: float
    tasks: int


def rendered_v1(limits: Limits) -> Mapping[str, Mapping[str, str]]:
    """Return controller -> file -> contents."""
    return {
        "memory": {"memory.limit_in_bytes": str(limits.memory_mib << 20)},
        "cpu": {"cpu.cfs_period_us": str(PERIOD_US), "cpu.cfs_quota_us": str(round(limits.cpus * PERIOD_US))},
        "pids": {"pids.max": str(limits.tasks)},
    }


def rendered_v2(limits: Limits) -> Mapping[str, str]:
    """Return file -> contents."""
    return {
        "memory.max": str(limits.memory_mib << 20),
        "memory.swap.max": "0",
        "cpu.max": f"{round(limits.cpus * PERIOD_US)} {PERIOD_US}",
        "pids.max": str(limits.tasks),
    }


@dataclass(frozen=True)
class Hierarchy:
    """Where this machine keeps the controllers."""

    mounts: Mapping[str, Path]
    """Controller -> where it is mounted; in version 2 all in one place."""
    version: int

    def group(self, host: str, runner: str) -> Cgroup:
        """Name the group of one runner on one host; nothing is made yet."""
        return Cgroup(self, Path(ROOT) / host / runner)


def hierarchy(mounts: Path = Path("/proc/self/mounts")) -> Hierarchy:
    """Find the controllers. Raises `Unfit` if this machine lacks one."""
    found = dict(_version_1(mounts))
    if set(found) == set(CONTROLLERS):
        return Hierarchy(found, version=1)
    for kind, place, _options in _mounted(mounts):
        if kind == "cgroup2" and set(CONTROLLERS) <= _offered(place):
            return Hierarchy(dict.fromkeys(CONTROLLERS, place), version=2)
    raise Unfit(f"this machine offers no control groups for {', '.join(CONTROLLERS)}; enable them in its kernel")


def _mounted(mounts: Path) -> Iterator[tuple[str, Path, set[str]]]:
    for line in mounts.read_text().splitlines():
        _device, place, kind, options, *_rest = line.split()
        yield kind, Path(place), set(options.split(","))


def _version_1(mounts: Path) -> Iterator[tuple[str, Path]]:
    for kind, place, options in _mounted(mounts):
        if kind == "cgroup":
            yield from ((controller, place) for controller in CONTROLLERS if controller in options)


def _offered(place: Path) -> set[str]:
    offered = place / "cgroup.controllers"
    return set(offered.read_text().split()) if offered.exists() else set()


@dataclass(frozen=True)
class Cgroup:
    """The group of one microVM."""

    hierarchy: Hierarchy
    name: Path

    @property
    def places(self) -> tuple[Path, ...]:
        """Its directories: one, or one for each controller."""
        return tuple(dict.fromkeys(mount / self.name for mount in self.hierarchy.mounts.values()))

    def make(self, limits: Limits) -> None:
        """Make the group with these limits, or give one that is there these limits."""
        if self.hierarchy.version == 1:
            for controller, files in rendered_v1(limits).items():
                _write(self.hierarchy.mounts[controller] / self.name, files)
            return
        (place,) = self.places
        mount = next(iter(self.hierarchy.mounts.values()))
        for parent in (mount, *reversed([mount / above for above in self.name.parents if above != Path()])):
            _write(parent, {"cgroup.subtree_control": " ".join(f"+{controller}" for controller in CONTROLLERS)})
        _write(place, rendered_v2(limits))

    def enter(self, pid: int) -> None:
        """Put a process, with all its threads, under the limits."""
        for place in self.places:
            _write(place, {"cgroup.procs": str(pid)})

    def press(self, threads: Iterable[int], cpus: float) -> None:
        """Let these threads of a member run for no more than so many processors' time, together.

        A group that is gone is a success: nobody is left in it to be slowed.
        """
        turn_us = max(TURN_MIN_US, round(cpus * PRESS_PERIOD_US))
        place = self._vcpus
        if not place.parent.exists():
            return
        if self.hierarchy.version == 1:
            _write(place, {"cpu.cfs_period_us": str(PRESS_PERIOD_US), "cpu.cfs_quota_us": str(turn_us)})
        else:
            _write(place, {"cgroup.type": "threaded"})
            _write(place.parent, {"cgroup.subtree_control": "+cpu"})
            _write(place, {"cpu.max": f"{turn_us} {PRESS_PERIOD_US}"})
        for thread in threads:
            with suppress(ProcessLookupError):  # it has ended, and then it need not be slowed
                _write(place, {"tasks" if self.hierarchy.version == 1 else "cgroup.threads": str(thread)})

    def relieve(self) -> None:
        """Undo `press`; a group that was never pressed, or is gone, is a success."""
        file, unlimited = ("cpu.cfs_quota_us", "-1") if self.hierarchy.version == 1 else ("cpu.max", "max")
        with suppress(FileNotFoundError):
            if self._vcpus.exists():
                (self._vcpus / file).write_text(unlimited)

    @property
    def _vcpus(self) -> Path:
        return self.hierarchy.mounts["cpu"] / self.name / VCPUS

    def members(self) -> set[int]:
        """Return the processes in the group."""
        groups = (place / "cgroup.procs" for place in self.places)
        return {int(pid) for group in groups if group.exists() for pid in group.read_text().split()}

    def remove(self) -> None:
        """Remove the group after its last process has ended; one that is not there is a success."""
        end = time.monotonic() + REMOVAL_LIMIT_S
        for place in (self._vcpus, *self.places):
            while place.exists():
                try:
                    place.rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    if time.monotonic() > end:
                        raise
                    time.sleep(REMOVAL_INTERVAL_S)
            with suppress(OSError):  # the host's other runners are in there, or it is gone already
                if place != self._vcpus:
                    place.parent.rmdir()


def _write(place: Path, files: Mapping[str, str]) -> None:
    with suppress(FileNotFoundError):  # the last other runner of the host has just taken the parent along
        place.mkdir(parents=True, exist_ok=True)
    place.mkdir(parents=True, exist_ok=True)
    for file, contents in files.items():
        (place / file).write_text(contents)
