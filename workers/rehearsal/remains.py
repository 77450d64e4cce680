"""What a rehearsal has made on this machine, written down before it is made, and the end of all of it.

    journal line ──▶ the thing is made ──▶ ... ──▶ swept ──▶ verified gone

A rehearsal that was killed leaves its journal behind; the next one of the same
name sweeps it first. Processes are known by number and start time, or because
they are inside one of our network namespaces: a number alone may belong to
somebody else by now.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum, auto
from pathlib import Path
from typing import Final

from workers.domain.errors import Unfit
from workers.rehearsal.commands import run_quietly
from workers.rehearsal.places import Places
from workers.wireguard import control_socket

NETNS: Final = Path("/run/netns")
CGROUPS: Final = Path("/sys/fs/cgroup")
# Every host daemon keeps its microVMs below this name.
CGROUP_ROOT: Final = "spot-runner"
# A killed process is gone in milliseconds unless the kernel is busy with its memory; QEMU gives back gigabytes.
END_LIMIT_S: Final = 15.0


class Kind(StrEnum):
    """What can be left behind."""

    NAMESPACE = auto()
    PROGRAM = auto()
    LINK = auto()
    CGROUP = auto()
    """Named by the host whose microVMs it holds."""
    TUNNEL = auto()
    """The socket by which wireguard-go took orders for the link of this name; one that was killed leaves it."""


@dataclass(frozen=True)
class Remnant:
    """One thing that was made; a program's `name` is its number, and `started` tells it from a later one."""

    kind: Kind
    name: str
    started: int = 0


class Journal:
    """Appends remnants to a file; several programs of one rehearsal write to it, one whole line at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def note(self, kind: Kind, name: str, started: int = 0) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"kind": kind, "name": name, "started": started}) + "\n"
        with self.path.open("a") as file:
            file.write(line)

    def note_program(self, pid: int) -> None:
        if started := start_time(pid):
            self.note(Kind.PROGRAM, str(pid), started)

    def remnants(self) -> tuple[Remnant, ...]:
        """Return what was noted, each once; a last line that was cut off is not ours to judge and is left out."""
        with contextlib.suppress(FileNotFoundError):
            return tuple(dict.fromkeys(_parsed(self.path.read_text().splitlines())))
        return ()


def _parsed(lines: list[str]) -> Iterator[Remnant]:
    for line in lines:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            entry = json.loads(line)
            yield Remnant(Kind(entry["kind"]), str(entry["name"]), int(entry["started"]))


# ---------------------------------------------------------------- processes


def start_time(pid: int) -> int:
    """Return when a process began, in the kernel's ticks; 0 if it is gone or only its exit status is left."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if after_name[0] in {"Z", "X"} else int(after_name[19])


def processes() -> Iterator[int]:
    """Return the numbers of all processes."""
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def inside(namespace: str) -> frozenset[int]:
    """Return the living processes whose network namespace this is."""
    try:
        wanted = (NETNS / namespace).stat()
    except FileNotFoundError:
        return frozenset()
    return frozenset(pid for pid in processes() if _lives_in(pid, wanted) and start_time(pid))


def _lives_in(pid: int, namespace: os.stat_result) -> bool:
    try:
        return os.path.samestat(Path(f"/proc/{pid}/ns/net").stat(), namespace)
    except OSError:
        return False


def using(*folders: Path) -> frozenset[int]:
    """Return the processes, this one left out, whose command line names something in one of these folders."""
    marks = [f"{folder}/".encode() for folder in folders]
    return frozenset(pid for pid in processes() if pid != os.getpid() and _names(pid, marks))


def _names(pid: int, marks: list[bytes]) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return any(mark in command for mark in marks)


def wait_until(condition: Callable[[], bool], limit_s: float, interval_s: float = 0.02) -> bool:
    """Look at a condition until it holds; False when the limit is over."""
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(interval_s)
    return True


def kill_all(listed: Callable[[], frozenset[int]], limit_s: float = END_LIMIT_S) -> bool:
    """Kill what is listed until nothing is listed any more, whatever it starts meanwhile; False if something stays."""

    def none_left() -> bool:
        left = listed()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    return wait_until(none_left, limit_s)


# ---------------------------------------------------------------- the end of it


def remove_namespace(name: str) -> None:
    """Kill every process inside a network namespace until none is left, and delete it; harmless when it is gone."""
    kill_all(lambda: inside(name))
    if (NETNS / name).exists():
        run_quietly("ip", "netns", "delete", name)


def forget_tunnel(link: str) -> None:
    """Remove what a killed wireguard-go has left; harmless when nothing is there."""
    control_socket(link).unlink(missing_ok=True)


def sweep(places: Places) -> None:
    """End everything that the journal names, programs first, and then the journal itself."""
    remnants = Journal(places.journal).remnants()
    programs = {int(entry.name): entry.started for entry in remnants if entry.kind is Kind.PROGRAM}
    kill_all(lambda: frozenset(pid for pid, started in programs.items() if start_time(pid) == started))
    for entry in remnants:
        if entry.kind is Kind.NAMESPACE:
            remove_namespace(entry.name)
    kill_all(lambda: using(places.run, places.state))
    for entry in remnants:
        if entry.kind is Kind.LINK and Path("/sys/class/net", entry.name).exists():
            run_quietly("ip", "link", "delete", entry.name)
    for entry in remnants:
        if entry.kind is Kind.TUNNEL:
            forget_tunnel(entry.name)
    _unmount(places)
    remove_cgroups(*(entry.name for entry in remnants if entry.kind is Kind.CGROUP))
    for folder in (places.state, places.run):
        shutil.rmtree(folder, ignore_errors=True)


def _unmount(places: Places) -> None:
    for point in sorted(mounts(places), key=len, reverse=True):
        run_quietly("umount", "--lazy", point)


def mounts(places: Places) -> list[str]:
    """Return the mount points inside a rehearsal's folders."""
    roots = (f"{places.run}/", f"{places.state}/")
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if f"{point}/".startswith(roots)]


def cgroups(*hosts: str) -> list[Path]:
    """Return the control groups of these hosts' microVMs, innermost first; every hierarchy has its own."""
    roots = (root for host in hosts for places in ("", "*/") for root in CGROUPS.glob(f"{places}{CGROUP_ROOT}/{host}"))
    return [Path(folder) for root in roots for folder, _, _ in os.walk(root, topdown=False)]


def remove_cgroups(*hosts: str) -> None:
    """Remove these hosts' control groups; the kernel lets one go a moment after its last process."""

    def none_left() -> bool:
        for group in cgroups(*hosts):
            with contextlib.suppress(OSError):
                group.rmdir()
        return not cgroups(*hosts)

    wait_until(none_left, END_LIMIT_S)


def leftovers(places: Places, remnants: tuple[Remnant, ...]) -> tuple[str, ...]:
    """Name everything that should be gone and is not: processes, namespaces, links, mounts, control groups, folders."""
    return (
        *(f"process {pid}" for pid in sorted(using(places.run, places.state))),
        *(f"{entry.kind} {entry.name}" for entry in remnants if _stands(entry)),
        *(f"mount {point}" for point in mounts(places)),
        *(f"folder {folder}" for folder in (places.state, places.run) if folder.exists()),
    )


def _stands(entry: Remnant) -> bool:
    match entry.kind:
        case Kind.NAMESPACE:
            return (NETNS / entry.name).exists()
        case Kind.PROGRAM:
            return start_time(int(entry.name)) == entry.started
        case Kind.LINK:
            return Path("/sys/class/net", entry.name).exists()
        case Kind.CGROUP:
            return bool(cgroups(entry.name))
        case Kind.TUNNEL:
            return control_socket(entry.name).exists()


@contextlib.contextmanager
def alone(places: Places) -> Iterator[None]:
    """Hold the rehearsal's name. Raises `Unfit` at once if another rehearsal holds it."""
    places.lock.parent.mkdir(parents=True, exist_ok=True)
    with places.lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it before may have removed the file between our opening and our locking it.
            is_current = places.lock.exists() and os.path.samestat(os.fstat(file.fileno()), places.lock.stat())
        except BlockingIOError:
            is_current = False
        if not is_current:
            raise Unfit(f"a rehearsal named {places.name!r} is running already: end it, or use --name")
        try:
            yield
        finally:
            places.lock.unlink(missing_ok=True)
