"""A row is a frozen dataclass on this side and a line of a table on the other; one codec for all of them.

A field is the column of the same name. What has an inside (labels, shapes,
figures) is JSON; everything else is itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum, StrEnum
from typing import Any, Final, Generic, TypeVar

from pydantic import TypeAdapter
from sqlalchemy import Column, RowMapping, Table

from workers.domain.breaker import Breaker
from workers.domain.events import Event, JobFact
from workers.domain.hold import Hold
from workers.domain.host import HOST, Host
from workers.domain.installation import Installation
from workers.domain.job import JOB, Job
from workers.domain.lifecycle import Lifecycle
from workers.domain.messages import RunnerReport
from workers.domain.migration import MIGRATION, Migration
from workers.domain.overlay import Station
from workers.domain.registration import Token
from workers.domain.remark import Remark
from workers.domain.runner import RUNNER, Runner
from workers.store import schema

T = TypeVar("T")

Columns = Mapping[str, Any]


@dataclass(frozen=True)
class Codec(Generic[T]):
    """Turns one dataclass into the columns of its table and back."""

    of: type[T]
    table: Table
    adapter: TypeAdapter[T] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "adapter", TypeAdapter(self.of))

    def columns(self, row: T) -> dict[str, Any]:
        """Return the columns that hold this row."""
        told = self.adapter.dump_python(row)
        return {name: value.value if isinstance(value, Enum) else value for name, value in told.items()}

    def changes(self, before: T, after: T) -> dict[str, Any]:
        """Return the columns that must change so that `before` becomes `after`."""
        old = self.columns(before)
        return {name: value for name, value in self.columns(after).items() if value != old[name]}

    def row(self, columns: RowMapping | Columns) -> T:
        """Return the row that these columns hold; columns that are no field are left out."""
        return self.adapter.validate_python(dict(columns))


@dataclass(frozen=True)
class Flat(Codec[T]):
    """A codec for what has no inside: thousands of these are written in a second."""

    def columns(self, row: T) -> dict[str, Any]:
        """Return the columns that hold this row."""
        return {name: value.value if isinstance(value, Enum) else value for name, value in vars(row).items()}


@dataclass(frozen=True)
class Kind(Codec[T]):
    """A codec for rows that live, are leased and end."""

    lifecycle: Lifecycle[Any]
    stage: str
    """The column that holds the state of the lifecycle."""
    since: str
    """The column that says which row is older."""
    fence: tuple[str, ...] = ()
    """Columns that may change without a lease; who has read an older value must not write."""
    foreign: tuple[str, ...] = ()
    """Columns that only others write; a lease leaves them as they are."""

    @property
    def id(self) -> Column[Any]:
        """The primary key."""
        return self.table.c.id

    @property
    def told(self) -> list[Column[Any]]:
        """The columns that are fields of the row."""
        return [self.table.c[one.name] for one in fields(self.of)]  # type: ignore[arg-type]  # every row is a dataclass

    @property
    def open(self) -> list[str]:
        """The states that something still leaves."""
        return _words(self.lifecycle.open)


def _words(states: frozenset[StrEnum]) -> list[str]:
    return sorted(state.value for state in states)


TOKENS: Final = Codec(Token, schema.tokens)
JOBS: Final = Kind(Job, schema.jobs, JOB, "state", "queued_at")
RUNNERS: Final = Kind(
    Runner, schema.runners, RUNNER, "state", "requested_at", fence=("host_id", "epoch", "migration_id")
)
HOSTS: Final = Kind(Host, schema.hosts, HOST, "state", "requested_at", foreign=("heartbeat_at", "host_class"))
MIGRATIONS: Final = Kind(Migration, schema.migrations, MIGRATION, "phase", "planned_at")
FACTS: Final = Flat(JobFact, schema.facts)
EVENTS: Final = Codec(Event, schema.events)
REPORTS: Final = Codec(RunnerReport, schema.reports)
INSTALLATIONS: Final = Codec(Installation, schema.installations)
HOLDS: Final = Codec(Hold, schema.holds)
BREAKERS: Final = Codec(Breaker, schema.breakers)
STATIONS: Final = Codec(Station, schema.stations)
REMARKS: Final = Codec(Remark, schema.remarks)
