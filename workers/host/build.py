"""Making a package: from a recipe to a file on the shelf, and not twice from the same inputs."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from workers.domain.errors import BadPackage, Unfit
from workers.domain.host_class import HostClass, package_mismatch
from workers.domain.names import PackageDigest
from workers.host.acceleration import Choice, choose_acceleration, cpu_model
from workers.host.machine import Machine, memory_short_kib
from workers.host.manifest import FORMAT, MIB, Entry, Kernel, Manifest, RunnerProgram
from workers.host.measuring import measure_host_class
from workers.host.packages import PackageShelf, locked
from workers.host.recipe import Recipe
from workers.host.rootfs import Disk, digest, forget_old, made_disk
from workers.host.template import Template

# Raised when this module makes something else out of the same inputs.
EDITION: Final = 2
PROGRAMS: Final = ("mmdebstrap", "mke2fs", "tar", "chroot", "systemctl", "dpkg-query", "qemu-img", "qemu-system-x86_64")

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Built:
    """What a build came to."""

    digest: PackageDigest
    path: Path
    choice: Choice
    cold_boot_s: float | None
    """From QEMU's start to the agent's first answer; None if the package was there already."""


@dataclass(frozen=True)
class Record:
    """What was made of some inputs, and where; another kernel or a counter measured anew need not make it again."""

    package: PackageDigest
    made_on: HostClass


_RECORD: Final = TypeAdapter(Record)


def build_package(recipe: Recipe, shelf: PackageShelf, cache: Path, override: str | None, progress: Progress) -> Built:
    """Make the package of a recipe, or find it made of the same inputs. Needs root; raises `Unfit` and `BadInput`."""
    choice = choose_acceleration(override, has_pvm_kernel=recipe.rootfs.has_pvm_kernel)
    _check_fit(recipe, cache)
    cache.mkdir(parents=True, exist_ok=True)
    progress("waiting for another build on this machine")
    with locked(cache / ".lock"):
        return _built(recipe, shelf, cache, choice, progress)


def _check_fit(recipe: Recipe, cache: Path) -> None:
    """Refuse before anything is started. The disk counts in full, although most of it stays a hole."""
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        raise Unfit(f"{missing[0]} is not installed; `./dev` installs what a build needs")
    there = next(folder for folder in (cache, *cache.parents) if folder.exists())
    left, needed = shutil.disk_usage(there).free // MIB, recipe.machine.disk_mib + 2 * recipe.machine.memory_mib
    if left < needed:
        raise Unfit(f"{there} has {left} MiB left and a build needs {needed}; free some or set SPOT_RUNNER_BUILD_CACHE")


def _built(recipe: Recipe, shelf: PackageShelf, cache: Path, choice: Choice, progress: Progress) -> Built:
    host_class = measure_host_class(choice.acceleration)
    if difference := package_mismatch(host_class, host_class):
        raise Unfit(f"this machine cannot show a guest what every package is made for: {difference}")
    progress("making the root file system and its disk")
    disk = made_disk(recipe, cache)
    machine = _machine(recipe, host_class)
    record = cache / f"package-{digest(EDITION, FORMAT, disk.key, recipe.name, machine, host_class.guest)}"
    if known := _recorded(record, shelf, host_class):
        shelf.name(recipe.name, known)
        return Built(known, shelf.path(known), choice, None)
    with tempfile.TemporaryDirectory(prefix=".template.", dir=cache) as work:
        template = Template(machine, disk, recipe.machine.command_line, Path(work))
        progress(f"booting the guest and waiting until it has settled ({choice.acceleration}: {choice.reason})")
        cold_boot_s = asyncio.run(template.boot())
        progress(f"packing and verifying (the guest had booted after {cold_boot_s:.1f} s)")
        made = shelf.add(template.devices, lambda entries: _manifest(recipe, disk, host_class, entries))
    shelf.name(recipe.name, made)
    record.write_bytes(_RECORD.dump_json(Record(made, host_class)))
    forget_old(cache)
    return Built(made, shelf.path(made), choice, cold_boot_s)


def _recorded(record: Path, shelf: PackageShelf, host_class: HostClass) -> PackageDigest | None:
    """Return the package that these inputs made, if it is still there and this machine can still start it."""
    if not record.exists():
        return None
    known = _RECORD.validate_json(record.read_bytes())
    if package_mismatch(known.made_on, host_class):
        return None
    try:
        return known.package if shelf.path(known.package).exists() else None
    except BadPackage:
        return None


def _machine(recipe: Recipe, host_class: HostClass) -> Machine:
    wanted = recipe.machine
    return Machine(
        type=host_class.machine,
        acceleration=host_class.acceleration,
        cpu=cpu_model(host_class.acceleration),
        vcpus=wanted.vcpus,
        memory_mib=wanted.memory_mib,
        memory_short_kib=memory_short_kib(host_class.acceleration, host_class.monitor_version),
    )


def _manifest(recipe: Recipe, disk: Disk, host_class: HostClass, entries: Mapping[str, Entry]) -> Manifest:
    runner = recipe.runner
    return Manifest(
        format=FORMAT,
        name=recipe.name,
        created_at=datetime.now(UTC),
        host_class=host_class,
        machine=_machine(recipe, host_class),
        disk_mib=recipe.machine.disk_mib,
        kernel=Kernel(disk.kernel_version, recipe.machine.command_line, recipe.rootfs.has_pvm_kernel),
        runner=RunnerProgram(runner.name, runner.version, runner.released),
        contents=disk.contents,
        entries=entries,
    )
