"""`spot-runner demo`: hands the rehearsal the parts that it may not know by itself."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from workers.clock import SystemClock
from workers.domain.errors import Unfit
from workers.host.acceleration import choose_acceleration
from workers.host.copies import running_copies
from workers.host.measuring import measure_host_class
from workers.host.packages import PackageShelf, Unpacked
from workers.host.template import measure_cold_boot
from workers.identity import Authority, write_leaf
from workers.ports import Store
from workers.rehearsal.demo import run_clouds as play_clouds
from workers.rehearsal.demo import run_rehearsal
from workers.rehearsal.drill.command import run_drill as run
from workers.rehearsal.drill.play import DrillOptions
from workers.rehearsal.stage import Kit
from workers.rehearsal.steady.command import run_steady
from workers.rehearsal.steady.play import SteadyOptions
from workers.rehearsal.story import Options
from workers.settings import ControlSettings, HostSettings
from workers.store.connection import Database
from workers.store.repository import open_store

RECIPE: Final = "debian-12"
REDIS_RECIPE: Final = "debian-12-redis"


def run_demo(options: Options) -> int:
    """Play the story and return the exit status."""
    return run_rehearsal(options, make_kit)


def run_clouds(options: Options) -> int:
    """Play the story with AWS and Hetzner, as far as this machine can be them, and return the exit status."""
    return play_clouds(options, make_kit)


def run_drill(options: DrillOptions) -> int:
    """Interrupt as often as was asked for and return the exit status."""
    return run(options, make_kit)


def run_valkey(options: SteadyOptions) -> int:
    """Move a server under a steady client and return the exit status."""
    return run_steady(options, lambda: make_kit(REDIS_RECIPE))


def make_kit(recipe: str = RECIPE) -> Kit:
    """Choose what the rehearsal runs with. Raises `Unfit` or `BadPackage` if this machine cannot."""
    settings = HostSettings()
    package = _package(settings, recipe)
    choice = choose_acceleration(settings.accel, has_pvm_kernel=package.manifest.kernel.is_pvm_guest)
    return Kit(
        acceleration=choice.acceleration.value,
        reason=choice.reason,
        package=package.digest,
        program=_program(),
        open_store=_open_store,
        write_relay_identity=_write_relay_identity,
        measure_cold_boot=lambda folder: asyncio.run(measure_cold_boot(package, folder)),
        hold_store=lambda home: Database(_database(home)).writing(),
        look_at_copies=running_copies,
        host_environment=_host_environment(settings),
    )


def _package(settings: HostSettings, recipe: str) -> Unpacked:
    """Return the newest package of the recipe, held against this machine."""
    choice = choose_acceleration(settings.accel)
    host_class = measure_host_class(choice.acceleration)
    shelf = PackageShelf(settings.package_store, settings.package_cache, host_class)
    return shelf.unpacked(shelf.named(recipe))


def _program() -> str:
    program = Path(sys.executable).parent / "spot-runner"
    if not program.exists():
        raise Unfit(f"{program} is missing; install the project into this environment, or use ./dev demo")
    return str(program)


def _open_store(home: Path) -> Store:
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    return open_store(_database(home), SystemClock())


def _database(home: Path) -> str:
    return ControlSettings(home=home, database_url=None).database


def _write_relay_identity(home: Path, relay_home: Path) -> None:
    authority = Authority.open(home / "ca")
    write_leaf(relay_home, authority.control_leaf("relay"), authority.control_ca, authority.hosts_ca)


def _host_environment(settings: HostSettings) -> Mapping[str, str]:
    told = {
        "SPOT_RUNNER_PACKAGE_STORE": str(settings.package_store),
        "SPOT_RUNNER_PACKAGE_CACHE": str(settings.package_cache),
    }
    return told | ({"SPOT_RUNNER_ACCEL": settings.accel} if settings.accel else {})
