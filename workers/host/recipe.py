"""Recipes of packages: TOML files under `runner-vm/packages/`, beside the sources that they name."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from workers.domain.errors import BadInput

_STRICT: Final = ConfigDict(extra="forbid")


@with_config(_STRICT)
@dataclass(frozen=True)
class MachineRecipe:
    """The machine that the guest sees."""

    vcpus: int
    memory_mib: int
    disk_mib: int
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
class RunnerRecipe:
    """The runner program inside."""

    name: str
    version: str
    released: date
    command: tuple[str, ...]
    """Started by the agent as user `runner`."""
    sources: tuple[str, ...] = ()
    """Folders beside `packages/` that go to /opt/spot-runner."""


@with_config(_STRICT)
@dataclass(frozen=True)
class Recipe:
    """How a package is made."""

    name: str
    machine: MachineRecipe
    rootfs: RootfsRecipe
    runner: RunnerRecipe
    home: Path
    """The folder that holds `packages/`, `rootfs/` and the sources."""


def read_recipe(path: Path) -> Recipe:
    """Read a recipe; raises `BadInput` naming the field that is wrong."""
    try:
        facts = tomllib.loads(path.read_text())
    except OSError as error:
        raise BadInput(
            f"{path}: {error.strerror}; name a recipe, for example runner-vm/packages/debian-12.toml"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not TOML: {error}") from error
    try:
        return TypeAdapter(Recipe).validate_python(facts | {"home": path.resolve().parent.parent})
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInput(f"{path}: {'.'.join(str(step) for step in first['loc'])}: {first['msg']}") from error
