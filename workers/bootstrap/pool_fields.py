"""The fields of a policy file, and what each may hold by itself."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from workers.domain.labels import CPU_MAX, KEYS, MINUTES_MAX, RAM_MAX_GIB

# Clouds that hosts may come from.
PROVIDERS: Final = ("local", "aws", "hetzner")
# More than any deployment has hosts, or any repository runners; above it is a slip of the finger.
COUNT_MAX: Final = 10_000

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Pattern = Annotated[str, StringConstraints(pattern=r"^[^/\s]+(/[^/\s]+)?$")]
Group = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^\S(.*\S)?$")]
Count = Annotated[int, Field(ge=0, le=COUNT_MAX)]
Most = Annotated[int, Field(ge=1, le=COUNT_MAX)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Package(_Strict):
    image: Name
    digest: Digest
    vcpus: Annotated[int, Field(ge=1, le=CPU_MAX)]
    memory_mib: Annotated[int, Field(ge=64, le=RAM_MAX_GIB * 1024)]
    disk_mib: Annotated[int, Field(ge=1, lt=1 << 31)]
    architecture: Literal["x86_64", "arm64"] = "x86_64"
    acceleration: Literal["kvm", "pvm", "tcg"] | None = None
    runner_released: date | None = None


class Schedule(_Strict):
    when: str
    time_zone: str | None = None
    min_ready: Count | None = None
    runners_per_repository: Most | None = None


class Budget(_Strict):
    per_day: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]


class Pool(_Strict):
    name: Name
    defaults: str = ""
    keys: list[str] = list(KEYS)
    images: list[Name] = []
    package: Name | Digest | None = None
    network: Literal["relay", "nat"] | None = None
    cpu_max: Annotated[int, Field(ge=1, le=CPU_MAX)] | None = None
    ram_max: Annotated[int, Field(ge=1, le=RAM_MAX_GIB)] | None = None
    minutes_max: Annotated[int, Field(ge=1, le=MINUTES_MAX)] | None = None
    repositories: Annotated[list[Pattern], Field(min_length=1)] = ["*"]
    runners_per_repository: Most | None = None
    forks: bool = False
    register_with: Annotated[Literal["repository", "organization"], Field(alias="register")] = "repository"
    runner_group: Group | None = None
    providers: list[Literal["local", "aws", "hetzner"]] = []
    zones: list[Name] = []
    market: Literal["spot", "spot-then-on-demand", "on-demand"] = "spot"
    min_ready: Count = 0
    time_zone: str = "UTC"
    schedules: list[Schedule] = []
    budget: Budget | None = None


class File(_Strict):
    packages: list[Package] = []
    pools: Annotated[list[Pool], Field(min_length=1)]


def is_zone(name: str) -> bool:
    """Say whether there is a time zone of this name."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def zone_or_utc(name: str) -> str:
    """Return the name of a time zone that there is; that this one is none is told elsewhere."""
    return name if is_zone(name) else "UTC"
