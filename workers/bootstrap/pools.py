"""The administrator's policy: a TOML file that the settings name, or else one pool with the settings' one package."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from workers.domain.errors import BadInput
from workers.domain.host import fits
from workers.domain.labels import CPU_MAX, KEYS, MINUTES_MAX, RAM_MAX_GIB, Interrupt, Wish, read_options
from workers.domain.names import PackageDigest
from workers.domain.pools import Origin, Package, Policy, Pool
from workers.domain.runner import Shape
from workers.planning.serving import granted
from workers.settings import ControlSettings

DEFAULT_POOL: Final = "default"

_Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
_Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
_Pattern = Annotated[str, StringConstraints(pattern=r"^[^/\s]+(/[^/\s]+)?$")]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class _Package(_Strict):
    image: _Name
    digest: _Digest
    vcpus: Annotated[int, Field(ge=1, le=CPU_MAX)]
    memory_mib: Annotated[int, Field(ge=64, le=RAM_MAX_GIB * 1024)]
    disk_mib: Annotated[int, Field(ge=1, lt=1 << 31)]


class _Pool(_Strict):
    name: _Name
    defaults: str = ""
    keys: list[str] = list(KEYS)
    images: list[_Name] = []
    cpu_max: Annotated[int, Field(ge=1, le=CPU_MAX)] | None = None
    ram_max: Annotated[int, Field(ge=1, le=RAM_MAX_GIB)] | None = None
    minutes_max: Annotated[int, Field(ge=1, le=MINUTES_MAX)] | None = None
    repositories: Annotated[list[_Pattern], Field(min_length=1)] = ["*"]
    forks: bool = False


class _File(_Strict):
    packages: list[_Package] = []
    pools: Annotated[list[_Pool], Field(min_length=1)]


def open_policy(settings: ControlSettings) -> Policy:
    """Return what the administrator allows. Raises `BadInput` naming the file, the field and the remedy."""
    usual = Package(settings.package_image, PackageDigest(settings.package), _shape(settings))
    room = Shape(settings.host_vcpus, settings.host_memory_mib, settings.host_disk_mib)
    if settings.pools_file is None:
        return Policy((Pool(DEFAULT_POOL, Wish(network=settings.guest_network)),), (usual,))
    policy = read_policy(settings.pools_file, usual, settings)
    for wrong in _wrongs(policy, room):
        raise BadInput(f"{settings.pools_file}: {wrong}")
    return policy


def read_policy(path: Path, usual: Package, settings: ControlSettings) -> Policy:
    """Read the file; a file without packages offers the usual one."""
    told = _validated(path)
    packages = tuple(_package(one) for one in told.packages) or (usual,)
    return Policy(tuple(_pool(path, number, one, settings) for number, one in enumerate(told.pools)), packages)


def _shape(settings: ControlSettings) -> Shape:
    return Shape(settings.runner_vcpus, settings.runner_memory_mib, settings.runner_disk_mib)


def _validated(path: Path) -> _File:
    try:
        told: dict[str, Any] = tomllib.loads(path.read_text())
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; name a policy file in SPOT_RUNNER_POOLS_FILE, or none") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not TOML: {error}; docs/labels.md shows a whole file") from error
    try:
        return _File.model_validate(told)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        raise BadInput(f"{path}: {place}: {first['msg']}, not {first['input']!r:.60}; see docs/labels.md") from error


def _package(told: _Package) -> Package:
    return Package(told.image, PackageDigest(told.digest), Shape(told.vcpus, told.memory_mib, told.disk_mib))


def _pool(path: Path, number: int, told: _Pool, settings: ControlSettings) -> Pool:
    found = read_options(told.defaults)
    for problem in found.problems:
        raise BadInput(f"{path}: pools.{number}.defaults: {problem.removeprefix('runs-on: ')}")
    return Pool(
        name=told.name,
        defaults=found.wish.over(Wish(network=settings.guest_network, interrupt=Interrupt.MOVE)),
        keys=frozenset(told.keys),
        images=tuple(told.images),
        cpu_max=told.cpu_max,
        ram_max=told.ram_max,
        minutes_max=told.minutes_max,
        repositories=tuple(told.repositories),
        forks=told.forks,
    )


# ---------------------------------------------------------------- what each field allows, and all together do not


def _wrongs(policy: Policy, room: Shape) -> Iterator[str]:
    """Yield what is wrong with a policy whose fields are each right."""
    yield from _doubles("packages", [str(one) for one in policy.packages], "one package for each image and shape")
    yield from _doubles("pools", [one.name for one in policy.pools], "one pool of each name")
    for number, package in enumerate(policy.packages):
        if not fits(package.shape, room):
            yield (
                f"packages.{number}: no host has room for {package}; hosts have {room.vcpus} CPUs, "
                f"{room.memory_mib} MiB and a disk of {room.disk_mib} MiB (SPOT_RUNNER_HOST_…)"
            )
    for number, pool in enumerate(policy.pools):
        for wrong in _pool_wrongs(pool, policy):
            yield f"pools.{number} ({pool.name}): {wrong}"


def _doubles(place: str, names: Sequence[str], remedy: str) -> Iterator[str]:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        yield f"{place}: {twice[0]} stands there twice; keep {remedy}"


def _pool_wrongs(pool: Pool, policy: Policy) -> Iterator[str]:
    if unknown := sorted(pool.keys - set(KEYS)):
        yield f"keys: {unknown[0]!r} is none; the keys are {', '.join(KEYS)}"
    images = {package.image for package in policy.packages}
    if unknown := [image for image in pool.images if image not in images]:
        yield f"images: {unknown[0]} is in no package; the images are {', '.join(sorted(images))}"
    if pool.defaults.pool is not None:
        yield "defaults: pool is no default of a pool; remove it"
    # Its own defaults are asked for by whoever asks for nothing, so they must be granted, whatever jobs may say.
    open_to_all = replace(pool, keys=frozenset(KEYS), repositories=("*",))
    decided = granted(pool.defaults.without(["pool"]), Origin(""), replace(policy, pools=(open_to_all,)))
    if isinstance(decided, str):
        yield f"defaults: {decided}"
