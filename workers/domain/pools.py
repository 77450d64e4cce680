"""Pools: what jobs get by default and what they may ask for, as the administrator has written it down.

    policy ─┬─ pools      defaults, and limits to what may be asked for; the first that takes a repository is its own
            └─ packages   what runners start from: an image by name, in the one shape that it was made in

A pool has no machines of its own: its runners are placed beside those of others. But hosts are bought for one pool, on
its terms and out of its budget.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo
from fnmatch import fnmatchcase
from typing import Final

from workers.domain.architecture import Architecture
from workers.domain.labels import KEYS, Again, Interrupt, Wish
from workers.domain.market import ANYWHERE, Sources
from workers.domain.names import PackageDigest
from workers.domain.offer import Likeness
from workers.domain.overlay import GuestNetwork
from workers.domain.runner import DEFAULT_GROUP, Level, Shape
from workers.domain.schedule import Window

MIB_PER_GIB: Final = 1024
NOTHING: Final = Wish()


@dataclass(frozen=True)
class Package:
    """One package that runners may start from."""

    image: str
    digest: PackageDigest
    shape: Shape
    likeness: Likeness = Likeness(Architecture.X86_64)  # noqa: RUF009 - it is frozen
    """Of the hosts that can run it, as far as the administrator says."""
    runner_released: date | None = None
    """When the runner program inside was released; None: nobody has said, so it does not age."""

    @property
    def ram_gib(self) -> float:
        """Its memory as labels count it."""
        return self.shape.memory_mib / MIB_PER_GIB

    def __str__(self) -> str:
        return f"image={self.image} with cpu={self.shape.vcpus} and ram={self.ram_gib:g}"


@dataclass(frozen=True)
class Origin:
    """Where a job comes from."""

    repository: str
    is_public: bool = False
    is_fork: bool = False
    """The code that it runs is not the repository's own."""

    @property
    def is_strange(self) -> bool:
        """Anybody may have written what it runs."""
        return self.is_public and self.is_fork


@dataclass(frozen=True)
class Budget:
    """What the hosts that are bought for a pool may cost on one day."""

    per_day: float
    currency: str
    zone: tzinfo = UTC
    """Where the day begins and ends."""

    def __str__(self) -> str:
        return f"{self.per_day:g} {self.currency}"


@dataclass(frozen=True)
class Schedule:
    """What is different while a window is open; None: nothing."""

    window: Window
    min_ready: int | None = None
    runners_max: int | None = None


@dataclass(frozen=True)
class Pool:
    """What a job gets here, and what it may ask for."""

    name: str
    defaults: Wish = NOTHING
    keys: frozenset[str] = frozenset(KEYS)
    """What jobs may ask for; `pool` always."""
    images: tuple[str, ...] = ()
    """None: every image that there is."""
    cpu_max: int | None = None
    ram_max: int | None = None
    """GiB."""
    minutes_max: int | None = None
    repositories: tuple[str, ...] = ("*",)
    """Patterns such as `octo-org/*`, compared without case."""
    forks: bool = False
    """Jobs of forks of public repositories may run here."""
    package: str | None = None
    """The only one that runners here start from, by its digest or its image."""
    min_ready: int = 0
    """Hosts that are kept ready when no job waits, beside those of other pools."""
    runners_max: int | None = None
    """Of one repository, at once."""
    schedules: tuple[Schedule, ...] = ()
    """Of those that are open the first that says something holds."""
    sources: Sources = ANYWHERE
    budget: Budget | None = None
    level: Level = Level.REPOSITORY
    """Where its runners are registered."""
    runner_group: str | None = None
    """Of the organization, by its name; None: GitHub's default one."""

    def min_ready_at(self, now: datetime) -> int:
        """Return how many hosts are to be kept ready now."""
        said = (one.min_ready for one in self.schedules if one.min_ready is not None and one.window.is_open(now))
        return next(said, self.min_ready)

    def runners_max_at(self, now: datetime) -> int | None:
        """Return how many runners one repository may have now; None: any number."""
        said = (one.runners_max for one in self.schedules if one.runners_max is not None and one.window.is_open(now))
        return next(said, self.runners_max)

    def takes_repository(self, origin: Origin) -> bool:
        """Say whether this repository's jobs may run here."""
        return any(fnmatchcase(origin.repository.lower(), one.lower()) for one in self.repositories)

    def takes(self, origin: Origin) -> bool:
        """Say whether this job may run here."""
        return self.takes_repository(origin) and (self.forks or not origin.is_strange)

    def offers(self, package: Package) -> bool:
        """Say whether runners here may start from this package."""
        return (
            self.package in {None, package.digest, package.image}
            and (not self.images or package.image in self.images)
            and (self.cpu_max is None or package.shape.vcpus <= self.cpu_max)
            and (self.ram_max is None or package.ram_gib <= self.ram_max)
        )


@dataclass(frozen=True)
class Policy:
    """Everything that the administrator allows."""

    pools: tuple[Pool, ...]
    packages: tuple[Package, ...]

    def pool(self, name: str) -> Pool | None:
        """Return one pool."""
        return next((pool for pool in self.pools if pool.name == name), None)

    def offered(self, pool: Pool) -> Iterator[Package]:
        """Yield what runners of this pool may start from, the smallest first."""
        smallest = sorted(self.packages, key=lambda one: (one.shape.memory_mib, one.shape.vcpus, one.image))
        return (package for package in smallest if pool.offers(package))

    def may_share(self, repository: str) -> bool:
        """Say whether runners for this repository may be registered with its whole organization."""
        shared = (pool for pool in self.pools if pool.level is Level.ORGANIZATION)
        return any(pool.takes_repository(Origin(repository)) for pool in shared)

    @property
    def minds_origins(self) -> bool:
        """Some pool refuses the jobs of forks, so each job's origin must be known."""
        return not all(pool.forks for pool in self.pools)


@dataclass(frozen=True)
class Terms:
    """What a job gets: its labels, its pool and the packages that there are come down to this."""

    pool: str
    package: PackageDigest
    image: str
    shape: Shape
    network: GuestNetwork
    interrupt: Interrupt
    max_minutes: int | None = None
    """After so long its runner is ended, whatever it does."""
    rerun: Again = Again.AUTO
    """Whether it is run again when it was lost."""
    level: Level = Level.REPOSITORY
    """Where its runner is registered."""
    group_id: int = DEFAULT_GROUP
    """GitHub's number of the runner group."""
