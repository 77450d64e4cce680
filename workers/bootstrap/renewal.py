"""`spot-runner package renew`: carries out what `planning.renewal` says; until its last step nothing in use changes."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final, assert_never

from workers.bootstrap.pools import policy_of
from workers.domain.errors import BadPackage, Unfit
from workers.domain.names import PackageDigest
from workers.domain.release import Release
from workers.host.archive import named_version
from workers.host.build import Workshop, build_package
from workers.host.packages import PackageShelf
from workers.host.pinning import read_pin, write_pin
from workers.host.recipe import read_recipe
from workers.host.releases import newest_release
from workers.host.rootfs import Given
from workers.host.template import measure_restore
from workers.planning.renewal import RenewalSeen, RenewalStep, next_step
from workers.settings import ControlSettings, HostSettings

STEPS_MAX: Final = 8
_RELEASED: Final = re.compile(r"\s*runner_released\s*=")


@dataclass(frozen=True)
class Wanted:
    """What is renewed, and from what."""

    recipe: Path
    archive: Path | None = None
    released: date | None = None
    """Of that archive."""
    pools: Path | None = None
    """The policy file in which the new package takes the former one's place; None: its settings are printed."""


class Renewal:
    """One package's renewal, step by step."""

    def __init__(
        self,
        wanted: Wanted,
        newest: Release,
        shelf: PackageShelf,
        build: Callable[[Path, Given], PackageDigest],
        prove: Callable[[PackageDigest], float],
        say: Callable[[str], None],
    ) -> None:
        """`build` makes the package of a recipe without naming it, and `prove` restores one guest of it."""
        self._wanted, self._shelf, self._build, self._prove, self._say = wanted, shelf, build, prove, say
        self._candidate = wanted.recipe.with_name(f".{wanted.recipe.stem}.renewed.toml")
        self._recipe = read_recipe(wanted.recipe)
        self._former = _named(shelf, self._recipe.name)
        self._new: PackageDigest | None = None
        pinned = self._recipe.runner.pinned
        self._seen = RenewalSeen(None if pinned is None else Release(pinned.version, pinned.released), newest)

    def carry_out(self) -> PackageDigest | None:
        """Take every step; return the package that is in use now, None if nothing was newer. Raises what went wrong."""
        try:
            for _ in range(STEPS_MAX):
                step = next_step(self._seen)
                if step is RenewalStep.NOTHING:
                    break
                self._take(step)
        finally:
            self._candidate.unlink(missing_ok=True)
        return self._new

    def _take(self, step: RenewalStep) -> None:
        match step:
            case RenewalStep.PIN:
                self._pin()
            case RenewalStep.BUILD:
                self._new = self._build(self._candidate, Given(self._wanted.archive))
                self._seen = replace(self._seen, is_built=True)
            case RenewalStep.PROVE:
                took_s = self._prove(self._known())
                self._say(f"proved: a guest of {self._known()} was restored in {took_s:.2f} s")
                self._seen = replace(self._seen, is_proved=True)
            case RenewalStep.ROLL_OVER:
                self._roll_over(self._known())
                self._seen = replace(self._seen, in_use=self._seen.newest)
            case RenewalStep.NOTHING:
                pass
            case _:
                assert_never(step)

    def _pin(self) -> None:
        newest, today = self._seen.newest, datetime.now(UTC).date()
        self._say(f"{self._recipe.runner.name} {newest.version} of {newest.released} is newer than what is pinned")
        pin = read_pin(self._recipe, self._wanted.archive, newest.version, newest.released, today)
        shutil.copy(self._wanted.recipe, self._candidate)
        write_pin(self._candidate, pin)
        self._seen = replace(self._seen, candidate=newest)

    def _known(self) -> PackageDigest:
        if self._new is None:
            raise Unfit("no package was built")
        return self._new

    def _roll_over(self, fresh: PackageDigest) -> None:
        """Put the new package in the former one's place; the recipe is the last, so that all this can be done again."""
        released = self._seen.newest.released
        if self._wanted.pools is None:
            self._say(f"set SPOT_RUNNER_PACKAGE={fresh} and SPOT_RUNNER_PACKAGE_RUNNER_RELEASED={released}")
        elif self._former is not None and replace_package(self._wanted.pools, self._former, fresh, released):
            self._say(f"{self._wanted.pools}: {fresh} has taken the place of {self._former}")
        else:
            self._say(
                f"{self._wanted.pools} does not name the former package; write digest {fresh} there, and its date"
            )
        self._shelf.name(self._recipe.name, fresh)
        self._candidate.replace(self._wanted.recipe)


def replace_package(pools: Path, former: PackageDigest, fresh: PackageDigest, released: date) -> bool:
    """Let a policy file name another package wherever it names this one; False, and nothing is written, if nowhere.

    Raises `BadInput`, and the file stays as it is, if it would not be right afterwards.
    """
    before = pools.read_text()
    if former not in before:
        return False
    after = "\n".join(_replaced(before.split("\n"), former, fresh, released))
    policy_of(pools, after.encode(), ControlSettings(package=fresh))
    partial = pools.with_name(f".{pools.name}.{os.getpid()}")
    partial.write_text(after)
    partial.chmod(pools.stat().st_mode)
    partial.rename(pools)
    return True


def _replaced(lines: list[str], former: str, fresh: str, released: date) -> Iterator[str]:
    """Yield the lines with the new digest, and in its own table with the new date."""
    for number, line in enumerate(lines):
        if _RELEASED.match(line) and any(_names(one, former) for one in _table(lines, number)):
            continue
        yield line.replace(former, fresh)
        if _names(line, former):
            yield f"runner_released = {released}"


def _names(line: str, digest: str) -> bool:
    return re.match(rf"""\s*digest\s*=\s*["']{re.escape(digest)}["']""", line) is not None


def _table(lines: list[str], number: int) -> list[str]:
    """Return the lines of the table in which this one stands."""
    begin = next((at for at in range(number, -1, -1) if lines[at].lstrip().startswith("[")), 0)
    end = next((at for at in range(number, len(lines)) if lines[at].lstrip().startswith("[")), len(lines))
    return lines[begin:end]


def _named(shelf: PackageShelf, name: str) -> PackageDigest | None:
    try:
        return shelf.named(name)
    except BadPackage:
        return None


def run_renew(settings: HostSettings, wanted: Wanted, say: Callable[[str], None]) -> None:
    """Renew a package if its runner program has a newer release. Raises what went wrong; then all is as before."""
    shelf = PackageShelf(settings.package_store, settings.package_cache)

    def build(recipe: Path, given: Given) -> PackageDigest:
        if os.geteuid() != 0:
            raise Unfit("package renew makes a root file system, so it needs root; run it with sudo")
        workshop = Workshop(shelf, settings.build_cache, settings.accel, say, is_naming=False)
        return build_package(read_recipe(recipe), workshop, given).digest

    def prove(package: PackageDigest) -> float:
        return asyncio.run(measure_restore(shelf.unpacked(package)))

    renewal = Renewal(wanted, _newest(settings, wanted), shelf, build, prove, say)
    if renewal.carry_out() is None:
        say(f"{wanted.recipe}: nothing is newer than what it has pinned")


def _newest(settings: HostSettings, wanted: Wanted) -> Release:
    if wanted.archive is None:
        return newest_release(settings.runner_releases_url)
    version = named_version(wanted.archive.name)
    if version is None or wanted.released is None:
        raise Unfit(f"{wanted.archive}: its name tells no version, or --released is missing; give both, or neither")
    return Release(version, wanted.released)
