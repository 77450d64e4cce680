"""The tables, one for each noun, and the one type that they need.

A row of jobs, runners, hosts or migrations has the columns of its dataclass and
two more, which say who may work on it until when.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    DateTime,
    Dialect,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    event,
    literal_column,
    text,
)

from workers.domain.errors import Bug


class Moment(TypeDecorator[datetime]):
    """An aware moment in UTC; SQLite has no time zones, so it is given UTC without saying so."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 the base class names it
        if value is None:
            return None
        if value.tzinfo is None:
            raise Bug(f"{value} has no time zone, so it cannot be stored")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 the base class names it
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Json(TypeDecorator[object]):
    """What has an inside that no query looks at; None is NULL."""

    impl = JSON(none_as_null=True)
    cache_ok = True


METADATA: Final = MetaData(naming_convention={"pk": "pk_%(table_name)s", "ix": "ix_%(table_name)s_%(column_0_name)s"})

# A number that the database hands out; SQLite does so for INTEGER only.
_Counted = BigInteger().with_variant(Integer, "sqlite")


def _lease() -> tuple[Column[str], Column[datetime]]:
    return Column("lease_token", Text), Column("lease_until", Moment)


def _index_of_some(name: str, *columns: str, where: str, is_unique: bool = False) -> Index:
    """Return an index of the rows of which this is true; it answers only questions that say the same, word by word."""
    return Index(name, *columns, unique=is_unique, info={"where": where})


@event.listens_for(METADATA, "before_create")
def _narrow_indexes(metadata: MetaData, connection: Connection, **_: Any) -> None:  # noqa: ANN401 - what else is told
    """Say to this database which rows are in an index: to say it to all of them above would load all their drivers."""
    for table in metadata.tables.values():
        for index in table.indexes:
            if "where" in index.info:
                index.dialect_options[connection.dialect.name]["where"] = text(index.info["where"])


jobs: Final = Table(
    "jobs",
    METADATA,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("installation_id", BigInteger, nullable=False),
    Column("repository", Text, nullable=False),
    Column("run_id", BigInteger, nullable=False),
    Column("run_attempt", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("labels", Json, nullable=False),
    Column("state", Text, nullable=False),
    Column("queued_at", Moment, nullable=False),
    Column("runner_id", Text),
    Column("conclusion", Text),
    Column("end", Text),
    Column("rerun", Text, nullable=False),
    Column("unserved", Text),
    Column("terms", Json),
    Column("started_at", Moment),
    Column("asked_at", Moment),
    Column("head_sha", Text),
    Column("head_branch", Text),
    Column("has_deployment", Boolean),
    Column("lost_at", Moment),
    Column("deferred", Text),
    *_lease(),
    Index("ix_jobs_state", "state", "queued_at"),
    Index("ix_jobs_run_id", "run_id"),
)

runners: Final = Table(
    "runners",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("job_id", BigInteger, nullable=False),
    Column("installation_id", BigInteger, nullable=False),
    Column("repository", Text, nullable=False),
    Column("labels", Json, nullable=False),
    Column("package", Text, nullable=False),
    Column("shape", Json, nullable=False),
    Column("state", Text, nullable=False),
    Column("requested_at", Moment, nullable=False),
    Column("host_id", Text),
    Column("epoch", Integer, nullable=False),
    Column("migration_id", Text),
    Column("github_id", BigInteger),
    Column("idle_at", Moment),
    Column("end", Text),
    Column("parked_at", Moment),
    Column("hold_limit_s", Integer, nullable=False, server_default="0"),
    Column("network", Text, nullable=False, server_default="relay"),
    Column("pool", Text, nullable=False, server_default=""),
    Column("level", Text, nullable=False, server_default="repository"),
    Column("group_id", BigInteger, nullable=False, server_default="1"),
    *_lease(),
    Index("ix_runners_state", "state", "requested_at"),
    # A host has a few at a time, and over the days has had thousands.
    _index_of_some("ix_runners_host_id", "host_id", where="state <> 'gone'"),
    # Two guests with one address would steal each other's traffic.
    _index_of_some("uq_runners_number", "number", where="state <> 'gone'", is_unique=True),
)

IS_HERE: Final = runners.c.state != literal_column("'gone'")

hosts: Final = Table(
    "hosts",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("cloud", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("requested_at", Moment, nullable=False),
    Column("spec", Json, nullable=False),
    Column("instance_id", Text),
    Column("address", Text),
    Column("host_class", Json),
    Column("heartbeat_at", Moment),
    Column("deadline_at", Moment),
    Column("machine", Json),
    Column("pool", Text),
    Column("price", Float),
    Column("ended_at", Moment),
    Column("sources", Json),
    *_lease(),
    Index("ix_hosts_state", "state", "requested_at"),
)

migrations: Final = Table(
    "migrations",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("runner_id", Text, nullable=False),
    Column("source_id", Text),
    Column("target_id", Text),
    Column("phase", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("planned_at", Moment, nullable=False),
    Column("deadline_at", Moment, nullable=False),
    Column("ports", Json),
    Column("share_mib_s", Float),
    Column("source_seen_at", Moment),
    Column("target_seen_at", Moment),
    Column("running_at", Moment),
    Column("wiped_at", Moment),
    Column("reason", Text),
    Column("figures", Json, nullable=False),
    Column("park_id", Text),
    Column("key", Text),
    Column("manifest", Text),
    *_lease(),
    Index("ix_migrations_phase", "phase", "planned_at"),
    Index("ix_migrations_target_id", "target_id"),
    # A guest that is on its way to two hosts could come to run on both.
    _index_of_some(
        "uq_migrations_runner_id",
        "runner_id",
        where="phase IN ('planned', 'receiving', 'copying', 'paused')",
        is_unique=True,
    ),
)

deliveries: Final = Table(
    "deliveries",
    METADATA,
    Column("guid", Text, primary_key=True),
    Column("event", Text, nullable=False),
    Column("action", Text),
    Column("received_at", Moment, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("refused", Text),
    Index("ix_deliveries_received_at", "received_at"),
)

installations: Final = Table(
    "installations",
    METADATA,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("account", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("said_at", Moment, nullable=False),
    Column("rank", Integer, nullable=False),
    Column("takes_all", Boolean, nullable=False),
    Column("repositories", Json, nullable=False),
)

facts: Final = Table(
    "facts",
    METADATA,
    Column("number", _Counted, primary_key=True, autoincrement=True),
    Column("delivery", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("seen_at", Moment, nullable=False),
    Column("job_id", BigInteger, nullable=False),
    Column("installation_id", BigInteger, nullable=False),
    Column("repository", Text, nullable=False),
    Column("run_id", BigInteger, nullable=False),
    Column("run_attempt", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("labels", Json, nullable=False),
    Column("runner_id", BigInteger),
    Column("runner_name", Text),
    Column("conclusion", Text),
    Column("is_public", Boolean),
    Column("deployment_at", Moment),
    Column("head_sha", Text),
    Column("head_branch", Text),
    Column("is_in_row", Boolean, nullable=False, default=False),
    Index("uq_facts_delivery", "delivery", unique=True),
    Index("ix_facts_job_id", "job_id", "number"),
    _index_of_some("ix_facts_unseen", "job_id", where="NOT is_in_row"),
    sqlite_autoincrement=True,
)

reports: Final = Table(
    "reports",
    METADATA,
    Column("host_id", Text, primary_key=True),
    Column("runner_id", Text, primary_key=True),
    Column("epoch", Integer, nullable=False),
    Column("monitor", Text, nullable=False),
    Column("guest", Text, nullable=False),
    Column("exit_code", Integer),
    Column("load", Json),
    Column("hold", Json),
    Column("seen_at", Moment),
    # A host tells of its runners by the key; what former hosts have told of one is asked for by the runner.
    Index("ix_reports_runner_id", "runner_id"),
)

holds: Final = Table(
    "holds",
    METADATA,
    Column("runner_id", Text, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("begun_at", Moment, nullable=False),
    Column("ends_at", Moment, nullable=False),
    Column("spent_s", Float, nullable=False),
    Index("ix_holds_ends_at", "ends_at"),
)

breakers: Final = Table(
    "breakers",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("unused", Integer, nullable=False),
    Column("changed_at", Moment, nullable=False),
    Column("retry_at", Moment),
    Column("because", Text),
)

stations: Final = Table(
    "stations",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("key", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("endpoint", Text),
    # Of two machines with one key or one address each would be sent what is the other's.
    Index("uq_stations_key", "key", unique=True),
    Index("uq_stations_address", "address", unique=True),
)

remarks: Final = Table(
    "remarks",
    METADATA,
    Column("key", Text, primary_key=True),
    Column("installation_id", BigInteger, nullable=False),
    Column("repository", Text, nullable=False),
    Column("head_sha", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("summary", Text, nullable=False),
    # NULL: nothing is left to be done about it.
    Column("due_at", Moment),
    Index("ix_remarks_due_at", "due_at"),
)

catalogues: Final = Table(
    "catalogues",
    METADATA,
    Column("cloud", Text, primary_key=True),
    Column("tried_at", Moment, nullable=False),
    Column("told_at", Moment),
    Column("offers", Json, nullable=False),
    Column("remarks", Json, nullable=False),
    Column("problem", Text),
)

tokens: Final = Table(
    "tokens",
    METADATA,
    Column("sha256", Text, primary_key=True),
    Column("host_id", Text, nullable=False),
    Column("expires_at", Moment, nullable=False),
    Column("burned_at", Moment),
    Column("burned_by", Text),
)

events: Final = Table(
    "events",
    METADATA,
    Column("number", _Counted, primary_key=True, autoincrement=True),
    Column("happening", Text, nullable=False),
    Column("at", Moment, nullable=False),
    Column("job_id", BigInteger),
    Column("runner_id", Text),
    Column("host_id", Text),
    Column("migration_id", Text),
    Column("detail", Json, nullable=False),
    # Most entries are of jobs, and name no host.
    _index_of_some("ix_events_host_id", "host_id", "number", where="host_id IS NOT NULL"),
    sqlite_autoincrement=True,
)
