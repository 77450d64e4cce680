"""The administrator's policy: a TOML file that the settings name, or else one pool with the settings' one package.

text ─▶ TOML ─▶ fields, each by itself ─▶ policy ─▶ what fields say together      every problem with its line
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from pydantic import ValidationError

from workers.bootstrap import pool_fields as fields
from workers.bootstrap.pool_wrongs import wrongs
from workers.bootstrap.toml_lines import Place, line_at, lines_of
from workers.domain.architecture import Architecture
from workers.domain.errors import BadInput
from workers.domain.host_class import Acceleration
from workers.domain.labels import Interrupt, Wish, read_options
from workers.domain.market import Market, Sources
from workers.domain.names import PackageDigest
from workers.domain.offer import Likeness
from workers.domain.overlay import GuestNetwork
from workers.domain.pools import Budget, Package, Policy, Pool, Schedule
from workers.domain.runner import Level, Shape
from workers.domain.schedule import Window, read_window
from workers.settings import ControlSettings

DEFAULT_POOL: Final = "default"
NEVER: Final = Window(frozenset(), 0, 1)

_LINE: Final = re.compile(r" \(at line (\d+), column \d+\)\Z")
_BARE: Final = re.compile(r"[A-Za-z0-9_-]{1,60}")
_DIGITS: Final = re.compile(r"\d[\d_]{4000}")
_SHOWN: Final = "docs/pools.md shows a whole file"


@dataclass(frozen=True)
class Problem:
    """What is wrong with a policy file, and where."""

    line: int
    sentence: str

    def told(self, path: Path) -> str:
        """Return it as compilers do."""
        return f"{path}:{self.line}: {self.sentence}"


class Wrong(BadInput):
    """A policy file that is not right; the text is the first of its problems."""

    def __init__(self, path: Path, problems: tuple[Problem, ...]) -> None:
        super().__init__(problems[0].told(path))
        self.problems = problems


def open_policy(settings: ControlSettings) -> Policy:
    """Return what the administrator allows. Raises `BadInput` naming the file, the line, the field and the remedy."""
    if settings.pools_file is None:
        return Policy((Pool(DEFAULT_POOL, Wish(network=settings.guest_network)),), (_usual(settings),))
    return policy_of(settings.pools_file, read_file(settings.pools_file), settings)


def read_file(path: Path) -> bytes:
    """Return what stands in a policy file. Raises `BadInput`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; name a policy file in SPOT_RUNNER_POOLS_FILE, or none") from error


def policy_of(path: Path, content: bytes, settings: ControlSettings) -> Policy:
    """Return what a policy file says. Raises `Wrong` with all its problems; `path` is how they call it."""
    told, lines = _fields(path, content)
    packages = tuple(_package(one) for one in told.packages) or (_usual(settings),)
    policy = Policy(tuple(_pool(one, settings) for one in told.pools), packages)
    problems = [Problem(line_at(lines, place), text) for place, text in wrongs(told, policy, settings)]
    if problems:
        raise Wrong(path, tuple(sorted(problems, key=lambda one: one.line)))
    return policy


def _fields(path: Path, content: bytes) -> tuple[fields.File, Mapping[Place, int]]:
    """Read the fields, each of which is right by itself."""
    try:
        text = content.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Wrong(path, (Problem(line, "not TOML: it is not in UTF-8; save it so"),)) from error
    told, lines = _parsed(path, text)
    try:
        return fields.File.model_validate(told), lines
    except ValidationError as error:
        found = [Problem(line_at(lines, one["loc"]), _sentence(one)) for one in error.errors(include_url=False)]
        raise Wrong(path, tuple(sorted(found, key=lambda one: one.line))) from error


def _parsed(path: Path, text: str) -> tuple[dict[str, Any], Mapping[Place, int]]:
    try:
        return tomllib.loads(text), lines_of(text)
    except tomllib.TOMLDecodeError as error:
        raise Wrong(path, (_syntax(str(error), text),)) from error
    except RecursionError as error:
        raise Wrong(
            path, (Problem(1, f"not TOML that anybody could read: it is nested too deeply; {_SHOWN}"),)
        ) from error
    except ValueError as error:  # which no other text gives: Python reads no number with so many digits
        found = _DIGITS.search(text)
        line = text.count("\n", 0, found.start()) + 1 if found else 1
        raise Wrong(
            path, (Problem(line, f"not TOML that anybody could read: a number is too long; {_SHOWN}"),)
        ) from error


def _syntax(message: str, text: str) -> Problem:
    found = _LINE.search(message)
    line = int(found[1]) if found else text.rstrip("\n").count("\n") + 1
    return Problem(line, f"not TOML: {_LINE.sub('', message)}; {_SHOWN}")


def _sentence(error: Mapping[str, Any]) -> str:
    place = ".".join(_step(step) for step in error["loc"])
    but = "" if error["type"] == "missing" else f", not {_shown(error['input'])}"
    return f"{place}: {error['msg']}{but}; see docs/pools.md"


def _step(step: str | int) -> str:
    """Return a key as it may stand in a line: what is in quotes may be anything."""
    return str(step) if isinstance(step, int) or _BARE.fullmatch(step) else f"{step!r:.60}"


def _shown(value: object) -> str:
    try:
        return f"{value!r:.60}"
    except (ValueError, RecursionError):  # too many digits, or tables in tables without end
        return "what stands there"


# ---------------------------------------------------------------- what the fields mean


def _usual(settings: ControlSettings) -> Package:
    shape = Shape(settings.runner_vcpus, settings.runner_memory_mib, settings.runner_disk_mib)
    digest, released = PackageDigest(settings.package), settings.package_runner_released
    return Package(settings.package_image, digest, shape, runner_released=released)


def _package(told: fields.Package) -> Package:
    acceleration = Acceleration(told.acceleration) if told.acceleration is not None else None
    likeness = Likeness(Architecture(told.architecture), acceleration)
    shape = Shape(told.vcpus, told.memory_mib, told.disk_mib)
    return Package(told.image, PackageDigest(told.digest), shape, likeness, told.runner_released)


def _pool(told: fields.Pool, settings: ControlSettings) -> Pool:
    network = GuestNetwork(told.network) if told.network else settings.guest_network
    return Pool(
        name=told.name,
        defaults=read_options(told.defaults).wish.over(Wish(network=network, interrupt=Interrupt.MOVE)),
        keys=frozenset(told.keys),
        images=tuple(told.images),
        cpu_max=told.cpu_max,
        ram_max=told.ram_max,
        minutes_max=told.minutes_max,
        repositories=tuple(told.repositories),
        forks=told.forks,
        package=told.package,
        min_ready=told.min_ready,
        runners_max=told.runners_per_repository,
        schedules=tuple(_schedules(told)),
        sources=Sources(tuple(told.providers), tuple(told.zones), Market(told.market)),
        budget=_budget(told),
        level=Level(told.register_with),
        runner_group=told.runner_group,
    )


def _schedules(told: fields.Pool) -> Iterator[Schedule]:
    for one in told.schedules:
        window = read_window(one.when, ZoneInfo(fields.zone_or_utc(one.time_zone or told.time_zone)))
        yield Schedule(window or NEVER, one.min_ready, one.runners_per_repository)


def _budget(told: fields.Pool) -> Budget | None:
    if told.budget is None:
        return None
    return Budget(told.budget.per_day, told.budget.currency, ZoneInfo(fields.zone_or_utc(told.time_zone)))
