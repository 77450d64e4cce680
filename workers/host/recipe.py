"""Recipes of packages: TOML files under `runner-vm/packages/`, beside the sources that they name.

A recipe may begin with another one (`base = "debian-12-base"`): its tables are taken over, what the recipe says itself
counts, and lists of Debian packages are added up.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError, with_config

from workers.domain.errors import BadInput
from workers.domain.release import Release

_STRICT: Final = ConfigDict(extra="forbid")
BASES_MAX: Final = 4
# Nobody on a guest's network answers for names, and guests reach no private network, so they ask the internet's own.
NAMESERVERS: Final = (IPv4Address("1.1.1.1"), IPv4Address("9.9.9.9"))
# No program of the C library's asks more (resolv.conf(5)).
NAMESERVERS_MAX: Final = 3

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Version = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+){1,3}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]


@with_config(_STRICT)
@dataclass(frozen=True)
class MachineRecipe:
    """The machine that the guest sees, and so the size of the runners."""

    vcpus: Annotated[int, Field(ge=1, le=64)]
    memory_mib: Annotated[int, Field(ge=256, le=1 << 20)]
    disk_mib: Annotated[int, Field(ge=512, le=1 << 22)]
    command_line: str


@with_config(_STRICT)
@dataclass(frozen=True)
class RootfsRecipe:
    """The distribution inside."""

    suite: str
    packages: tuple[str, ...]
    has_pvm_kernel: bool = False
    """The kernel among the packages is made for PVM."""


@with_config(_STRICT)
@dataclass(frozen=True)
class Pin:
    """Which archive it is; written by `spot-runner package pin`, which has read it."""

    version: Version
    released: date
    sha256: Sha256


@with_config(_STRICT)
@dataclass(frozen=True)
class RunnerRecipe:
    """The runner program inside: our own from `sources`, or an archive of actions/runner."""

    name: str
    command: tuple[str, ...]
    """Started by the agent as user `runner`."""
    version: str | None = None
    """Of a program without an archive."""
    released: date | None = None
    sources: tuple[str, ...] = ()
    """Folders beside `packages/` that go to /opt/spot-runner."""
    archive: Annotated[str, StringConstraints(pattern=r"^https?://")] | None = None
    """The address of actions/runner's archive, with `{version}` where its version stands."""
    warm_up: tuple[str, ...] = ()
    """Run once before the snapshot, so that what it reads and compiles is in memory."""
    pinned: Pin | None = None
    """Of the archive; None: `package pin` has not read one yet."""


@with_config(_STRICT)
@dataclass(frozen=True)
class Recipe:
    """How a package is made."""

    name: Name
    machine: MachineRecipe
    rootfs: RootfsRecipe
    runner: RunnerRecipe
    home: Path
    """The folder that holds `packages/`, `rootfs/` and the sources."""
    nameservers: Annotated[tuple[IPv4Address | IPv6Address, ...], Field(min_length=1, max_length=NAMESERVERS_MAX)] = (
        NAMESERVERS
    )
    """Whom programs in the guest ask for the address of a name, the first one first."""

    @property
    def release(self) -> Release:
        """What is inside. Raises `BadInput` if nobody has pinned the archive yet."""
        runner = self.runner
        if runner.archive is None:
            assert runner.version is not None  # noqa: S101 - read_recipe has seen to it
            assert runner.released is not None  # noqa: S101 - the same
            return Release(runner.version, runner.released)
        pin = self.pin
        return Release(pin.version, pin.released)

    @property
    def pin(self) -> Pin:
        """Which archive it is. Raises `BadInput` if nobody has pinned it yet."""
        if self.runner.pinned is None:
            raise BadInput(
                f"recipe {self.name}: the archive of {self.runner.name} is not pinned; let `spot-runner package pin` "
                f"read it and write its version, release date and SHA-256"
            )
        return self.runner.pinned


def read_recipe(path: Path) -> Recipe:
    """Read a recipe; raises `BadInput` naming the field that is wrong."""
    tables = _tables(path, BASES_MAX)
    if "runner" not in tables:
        raise BadInput(f"{path}: it has no [runner], so it is only a base for others; build one that has it as `base`")
    try:
        recipe = TypeAdapter(Recipe).validate_python(tables | {"home": path.resolve().parent.parent})
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInput(f"{path}: {'.'.join(str(step) for step in first['loc'])}: {first['msg']}") from error
    _check_release(path, recipe.runner)
    return recipe


def _tables(path: Path, bases_left: int) -> dict[str, Any]:
    """Return what a recipe and its bases say together."""
    tables = _read(path)
    base = tables.pop("base", None)
    if base is None:
        return tables
    if not isinstance(base, str) or "/" in base or not bases_left:
        raise BadInput(f"{path}: base: write the name of a recipe beside this one, and at most {BASES_MAX} in a row")
    return _merged(_tables(path.parent / f"{base}.toml", bases_left - 1), tables)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            merged[key] = _merged(below, value)
        elif key == "packages" and isinstance(below, list) and isinstance(value, list):
            merged[key] = [*below, *(one for one in value if one not in below)]
        else:
            merged[key] = value
    return merged


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise BadInput(
            f"{path}: {error.strerror}; name a recipe, for example runner-vm/packages/debian-12.toml"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not TOML: {error}") from error


def _check_release(path: Path, runner: RunnerRecipe) -> None:
    """A program of ours says which release it is; an archive's release is pinned together with its hash."""
    if runner.archive is None:
        if runner.version is None or runner.released is None:
            raise BadInput(f"{path}: runner: it needs `version` and `released`, or the address of an `archive`")
        if runner.pinned is not None:
            raise BadInput(f"{path}: runner.pinned: there is no `archive` that it could be of")
    elif runner.version is not None or runner.released is not None:
        raise BadInput(f"{path}: runner: version and release date of an archive stand in [runner.pinned] alone")
