"""Making a package: from a recipe to a file on the shelf, and not twice from the same inputs."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
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
from workers.host.oci import PROGRAMS as IMAGE_PROGRAMS
from workers.host.packages import PackageShelf, locked
from workers.host.recipe import Recipe
from workers.host.rootfs import Disk, Given, digest, forget_old, made_disk
from workers.host.template import Template

# Raised when this module makes something else out of the same inputs.
EDITION: Final = 2
PROGRAMS: Final = (
    *("mmdebstrap", "mke2fs", "debugfs", "dumpe2fs", "tar", "chroot", "systemctl", "dpkg-query"),
    *("qemu-img", "qemu-system-x86_64"),
)

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


@dataclass(frozen=True)
class Workshop:
    """Where and how packages are made."""

    shelf: PackageShelf
    cache: Path
    """What is made on the way, to be used again."""
    override: str | None = None
    """The acceleration that is asked for; None: the best."""
    progress: Progress = lambda _: None
    is_naming: bool = True
    """The recipe's name means the new package from now on."""


def build_package(recipe: Recipe, workshop: Workshop, given: Given | None = None) -> Built:
    """Make the package of a recipe, or find it made of the same inputs. Needs root; raises `Unfit` and `BadInput`."""
    choice = choose_acceleration(workshop.override, has_pvm_kernel=recipe.rootfs.has_pvm_kernel)
    _check_fit(recipe, workshop.cache, () if given is None or given.image is None else IMAGE_PROGRAMS)
    _ = recipe.release  # refuses an archive that nobody has pinned
    workshop.cache.mkdir(parents=True, exist_ok=True)
    workshop.progress("waiting for another build on this machine")
    with locked(workshop.cache / ".lock"):
        return _built(recipe, workshop, given or Given(), choice)


def _check_fit(recipe: Recipe, cache: Path, more: Sequence[str]) -> None:
    """Refuse before anything is started. The disk counts in full, although most of it stays a hole."""
    if missing := [program for program in (*PROGRAMS, *more) if shutil.which(program) is None]:
        raise Unfit(f"{missing[0]} is not installed; `./dev` installs what a build needs")
    there = next(folder for folder in (cache, *cache.parents) if folder.exists())
    left, needed = shutil.disk_usage(there).free // MIB, recipe.machine.disk_mib + 2 * recipe.machine.memory_mib
    if left < needed:
        raise Unfit(f"{there} has {left} MiB left and a build needs {needed}; free some or set SPOT_RUNNER_BUILD_CACHE")


def _built(recipe: Recipe, workshop: Workshop, given: Given, choice: Choice) -> Built:
    cache, shelf, progress = workshop.cache, workshop.shelf, workshop.progress
    host_class = measure_host_class(choice.acceleration)
    if difference := package_mismatch(host_class, host_class):
        raise Unfit(f"this machine cannot show a guest what every package is made for: {difference}")
    progress("making the root file system and its disk")
    disk = made_disk(recipe, cache, given)
    machine = _machine(recipe, host_class)
    record = cache / f"package-{digest(EDITION, FORMAT, disk.key, recipe.name, machine, host_class.guest)}"
    if known := _recorded(record, shelf, host_class):
        _name(recipe, workshop, known)
        return Built(known, shelf.path(known), choice, None)
    with tempfile.TemporaryDirectory(prefix=".template.", dir=cache) as work:
        template = Template(machine, disk, recipe.machine.command_line, Path(work))
        progress(f"booting the guest and waiting until it has settled ({choice.acceleration}: {choice.reason})")
        cold_boot_s = asyncio.run(template.boot())
        progress(f"packing and verifying (the guest had booted after {cold_boot_s:.1f} s)")
        made = shelf.add(template.devices, lambda entries: _manifest(recipe, disk, host_class, entries))
    _name(recipe, workshop, made)
    record.write_bytes(_RECORD.dump_json(Record(made, host_class)))
    forget_old(cache)
    return Built(made, shelf.path(made), choice, cold_boot_s)


def _name(recipe: Recipe, workshop: Workshop, package: PackageDigest) -> None:
    if workshop.is_naming:
        workshop.shelf.name(recipe.name, package)


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
    release = recipe.release
    return Manifest(
        format=FORMAT,
        name=recipe.name,
        created_at=datetime.now(UTC),
        host_class=host_class,
        machine=_machine(recipe, host_class),
        disk_mib=recipe.machine.disk_mib,
        kernel=Kernel(disk.kernel_version, recipe.machine.command_line, recipe.rootfs.has_pvm_kernel),
        runner=RunnerProgram(recipe.runner.name, release.version, release.released),
        bill=disk.bill,
        rootfs_sha256=disk.sha256,
        entries=entries,
    )
