"""The cage of one QEMU: guests run hostile code, and a QEMU that one of them has taken over must find nothing outside.

| what                | how                                            | what stays open, and why                     |
|=====================|================================================|==============================================|
| user                | one for each runner number, no group, no       | under hardware virtualization the group of   |
|                     | capability, `no_new_privs`, an empty bounding  | /dev/kvm, since QEMU opens it by itself      |
|                     | set                                            |                                              |
|---------------------|------------------------------------------------|----------------------------------------------|
| memory, CPU, tasks  | a control group: guest RAM + translation cache | a page of the package is charged to whoever  |
|                     | + overhead; one CPU beside the guest's, for    | read it first, until there is no room for it |
|                     | copying                                        |                                              |
|---------------------|------------------------------------------------|----------------------------------------------|
| processes           | own pid namespace with its own /proc;          |                                              |
|                     | `spawn=deny`                                   |                                              |
|---------------------|------------------------------------------------|----------------------------------------------|
| files               | own mount namespace; disk, base, package       | what everybody may read (firmware, kernel,   |
|                     | memory, state, tap and sockets arrive as open  | initrd); its own directory (0700), for the   |
|                     | files                                          | TLS keys of a move                           |
|---------------------|------------------------------------------------|----------------------------------------------|
| size of files       | RLIMIT_FSIZE a little above the disk's size;   |                                              |
|                     | no core dumps                                  |                                              |
|---------------------|------------------------------------------------|----------------------------------------------|
| shared memory, name | own ipc and uts namespaces                     |                                              |
|---------------------|------------------------------------------------|----------------------------------------------|
| system calls        | QEMU's seccomp filter, with obsolete,          | what QEMU's own list leaves, for example     |
|                     | elevateprivileges, spawn and resourcecontrol   | `socket`: a move needs new connections       |
|                     | denied                                         |                                              |
|---------------------|------------------------------------------------|----------------------------------------------|
| network             | the host's namespace, since a move listens and | the overlay; the metadata service is closed  |
|                     | connects on the overlay's address              | to it by the firewall                        |
|---------------------|------------------------------------------------|----------------------------------------------|

It runs as process 1 of its namespace, started from a thread that has unshared the pid namespace, so there is no
process between the daemon and QEMU and the process id that the daemon sees is QEMU's.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from workers.domain.errors import Bug, Unfit
from workers.domain.host_class import Acceleration
from workers.domain.runner import Shape
from workers.host.cgroups import Cgroup, Limits
from workers.host.machine import TRANSLATION_CACHE_MIB

# Kernel and initrd that QEMU holds, its heap, buffers of TLS and of the disk mirror.
OVERHEAD_MIB: Final = 160
# QEMU's thread pool has at most 64 threads; the rest are vCPUs, the main loop, migration and one to spare for each.
TASKS_BESIDE_VCPUS: Final = 96
# A qcow2 file is larger than the disk that it holds, by its tables.
TABLES_MIB: Final = 64
OPEN_FILES_MAX: Final = 1024
KVM: Final = Path("/dev/kvm")
CLONE_NEWPID: Final = 0x20000000

T = TypeVar("T")


def limits_for(shape: Shape, acceleration: Acceleration) -> Limits:
    """Return what the microVM of this shape may take in all, its monitor included.

    What is read of the package's memory counts, too, for whoever reads it first; but the kernel drops it again before
    anybody is killed.
    """
    cache_mib = TRANSLATION_CACHE_MIB if acceleration is Acceleration.TCG else 0
    memory_mib = shape.memory_mib + cache_mib + OVERHEAD_MIB
    return Limits(memory_mib, shape.vcpus + 1.0, shape.vcpus + TASKS_BESIDE_VCPUS)


@dataclass(frozen=True)
class Confinement:
    """What one QEMU is started in."""

    user: int
    group: Cgroup
    limits: Limits
    disk_mib: int
    acceleration: Acceleration

    def spawn(self, arguments: Sequence[str], fds: Sequence[int], log: Path) -> subprocess.Popen[bytes]:
        """Start the program confined; its output goes to the end of `log`. No guest instruction has run by then."""
        self.group.make(self.limits)
        with log.open("ab") as output:
            child = _in_pid_namespace(
                lambda: subprocess.Popen(
                    [*self._entrance(), *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=fds,
                    start_new_session=True,
                    env={"PATH": os.defpath},
                    cwd="/",
                )
            )
        with suppress(ProcessLookupError):  # it has ended already, and whoever waits for its monitor says why
            self.group.enter(child.pid)
        return child

    def _entrance(self) -> list[str]:
        """Programs that replace each other; the last one is QEMU."""
        user = str(self.user)
        groups = ["--clear-groups"] if self.acceleration is Acceleration.TCG else ["--groups", str(_kvm_group())]
        file_bytes = (self.disk_mib + TABLES_MIB) << 20
        return [
            *("prlimit", "--core=0", f"--fsize={file_bytes}", f"--nofile={OPEN_FILES_MAX}"),
            *("unshare", "--mount", "--ipc", "--uts", "--mount-proc"),
            *("setpriv", "--reuid", user, "--regid", user, *groups),
            *("--no-new-privs", "--inh-caps=-all", "--bounding-set=-all", "--"),
        ]


def _kvm_group() -> int:
    if not KVM.exists():
        raise Unfit(f"{KVM} is missing; load the kernel's kvm modules or choose software emulation")
    return KVM.stat().st_gid


def _in_pid_namespace(start: Callable[[], T]) -> T:
    """Start a child as the first process of a pid namespace of its own.

    `unshare` changes the calling thread's children for good, hence a thread that ends afterwards.
    """
    started: list[T | OSError] = []

    def isolated() -> None:
        try:
            _unshare(CLONE_NEWPID)
            started.append(start())
        except OSError as error:
            started.append(error)

    thread = threading.Thread(target=isolated, name="spawn")
    thread.start()
    thread.join()
    match started:
        case [OSError() as error]:
            raise Unfit(f"QEMU could not be started: {error}") from error
        case [child] if not isinstance(child, OSError):
            return child
        case _:
            raise Bug("a microVM was neither started nor refused")


def _unshare(flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), "no namespace of its own for a microVM; this needs root")
