"""`spot-runner package`: build, inspect and verify the packages that runners start from."""

from __future__ import annotations

import json
import os
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

from rich.console import Console

from workers.bootstrap.host_class import class_lines
from workers.domain.errors import Unfit
from workers.domain.names import PackageDigest
from workers.host.acceleration import choose_acceleration
from workers.host.build import Built, Workshop, build_package
from workers.host.manifest import MIB, Manifest
from workers.host.measuring import measure_host_class
from workers.host.packages import PackageShelf, check_runs_on, digest_of, verify
from workers.host.pinning import read_pin, write_pin
from workers.host.recipe import read_recipe
from workers.host.rootfs import Given
from workers.settings import HostSettings

console: Final = Console()


def run_build(settings: HostSettings, recipe: Path, given: Given | None = None) -> Built:
    """Make the package of a recipe and print its digest; what was made of the same inputs before is used again."""
    wanted = read_recipe(recipe)
    _ = wanted.release  # an archive that nobody has pinned is refused first
    if os.geteuid() != 0:
        raise Unfit("package build makes a root file system, so it needs root; run it with sudo")
    with console.status("starting") as status:
        workshop = Workshop(_shelf(settings), settings.build_cache, settings.accel, status.update)
        built = build_package(wanted, workshop, given)
    console.print(f"{built.choice.acceleration}: {built.choice.reason}")
    if built.cold_boot_s is None:
        console.print("built already from the same inputs")
    else:
        console.print(f"cold boot {built.cold_boot_s:.1f} s, {built.path.stat().st_size / MIB:.0f} MiB packed")
    console.print(built.digest, soft_wrap=True)
    return built


def run_pin(recipe: Path, archive: Path | None, version: str | None, released: date) -> None:
    """Read the archive of a recipe's runner program and write into the recipe which one it is."""
    pin = read_pin(read_recipe(recipe), archive, version, released, datetime.now(UTC).date())
    write_pin(recipe, pin)
    console.print(f"{recipe}: version {pin.version} of {pin.released}, sha256:{pin.sha256}", soft_wrap=True)


def run_sbom(settings: HostSettings, package: str) -> None:
    """Print a package's bill of materials, by its digest or its recipe's name; the package is verified on the way."""
    shelf = _shelf(settings)
    digest = PackageDigest(package) if ":" in package else shelf.named(package)
    print(json.dumps(verify(shelf.path(digest), digest).bill, indent=1))  # noqa: T201 - for programs, not for the eye


def _shelf(settings: HostSettings) -> PackageShelf:
    return PackageShelf(settings.package_store, settings.package_cache)


def run_inspect(package: Path) -> None:
    """Show what a package says of itself; its content is verified on the way."""
    _show(verify(package, _named_digest(package)))


def run_verify(settings: HostSettings, package: Path) -> None:
    """Verify a package against its manifest, its file's name and this machine."""
    seen = verify(package, _named_digest(package))
    choice = choose_acceleration(settings.accel, has_pvm_kernel=seen.kernel.is_pvm_guest)
    check_runs_on(seen, measure_host_class(choice.acceleration))
    console.print(f"{seen.name}: whole, and this machine can run it ({choice.acceleration}: {choice.reason})")


def _named_digest(package: Path) -> PackageDigest | None:
    return digest_of(package.resolve()) if package.resolve().name.startswith("sha256-") else None


def _show(manifest: Manifest) -> None:
    machine, host = manifest.machine, manifest.host_class
    console.print(f"{manifest.name}, made {manifest.created_at:%Y-%m-%d %H:%M} UTC, format {manifest.format}")
    console.print(
        f"machine: {machine.type}, {machine.vcpus} vCPU, {machine.memory_mib} MiB, disk {manifest.disk_mib} MiB"
    )
    for line in class_lines(host):
        console.print(line, soft_wrap=True)
    console.print(f"kernel: {manifest.kernel.version}{' (PVM guest)' if manifest.kernel.is_pvm_guest else ''}")
    console.print(f"runner: {manifest.runner.name} {manifest.runner.version} of {manifest.runner.released}")
    console.print(f"root file system: sha256:{manifest.rootfs_sha256}", soft_wrap=True)
    console.print(f"inside: {len(manifest.bill['components'])} parts, see `spot-runner package sbom`")
    for name, entry in manifest.entries.items():
        console.print(f"{name:>8} {entry.size / MIB:8.1f} MiB  sha256:{entry.sha256}", soft_wrap=True)
