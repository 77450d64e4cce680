"""New rows: each is inserted once, and a microVM only where there is room for it.

Two workers that place at once must not both take the last room, so the sum is
made after the insertion, in the transaction that inserts, behind a lock on the
host's row. (On SQLite the transaction itself is the lock.)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import Connection, bindparam, func, insert, select, text
from sqlalchemy.exc import IntegrityError

from workers.domain.errors import NoRoom
from workers.domain.events import Event
from workers.domain.host import Host, HostState, fits, room
from workers.domain.job import Job
from workers.domain.migration import MIGRATION, Migration, MigrationPhase
from workers.domain.names import HostId
from workers.domain.runner import Quota, Runner, Shape
from workers.store.connection import insert_once
from workers.store.rows import EVENTS, HOSTS, JOBS, MIGRATIONS, RUNNERS, Kind
from workers.store.schema import IS_HERE, migrations, runners

NOTHING: Final = Shape(vcpus=0, memory_mib=0, disk_mib=0)
LEAVING: Final = frozenset({HostState.LOST, HostState.TERMINATING, HostState.TERMINATED})
# From the commit on the runner itself is counted where it went.
UNDECIDED: Final = sorted(MIGRATION.open - {MigrationPhase.COMMITTED})
# Entries become visible in the order of their numbers only if one transaction at a time writes them.
_ENTERING: Final = insert(EVENTS.table)
TIMELINE_LOCK: Final = text("SELECT pg_advisory_xact_lock(7707001)")

# Two workers that see one place left must not both take it; the first key says what kind of lock this is.
_QUOTA_LOCK: Final = text("SELECT pg_advisory_xact_lock(7707002, hashtext(:place))")
_OF_REPOSITORY: Final = select(func.count()).where(
    runners.c.pool == bindparam("pool"),
    func.lower(runners.c.repository) == func.lower(bindparam("place")),
    IS_HERE,
)


def insert_row(connection: Connection, row: Job | Runner | Host | Migration) -> bool:
    """Insert; False if the id is known already. Raises `NoRoom`."""
    match row:
        case Job():
            return _insert(connection, JOBS, row)
        case Host():
            return _insert(connection, HOSTS, row)
        case Runner():
            return _place(connection, RUNNERS, row, row.host_id)
        case Migration():
            return _place(connection, MIGRATIONS, row, row.target_id)


def insert_all(connection: Connection, rows: Iterable[Job | Runner | Host | Migration | Event | Quota]) -> None:
    """Insert what is not known yet, and the timeline entries behind it. Raises `NoRoom`."""
    entries = []
    for row in rows:
        match row:
            case Event():
                entries.append(row)
            case Quota():
                _require_within(connection, row)
            case _:
                insert_row(connection, row)
    insert_events(connection, entries)


def _require_within(connection: Connection, quota: Quota) -> None:
    """Raise `NoRoom` unless one more runner may be there; whoever else wants one waits for the end of this."""
    if connection.dialect.name == "postgresql":
        connection.execute(_QUOTA_LOCK, {"place": f"{quota.pool} {quota.repository.lower()}"})
    there = connection.execute(_OF_REPOSITORY, {"pool": quota.pool, "place": quota.repository}).scalar_one()
    if there >= quota.runners_max:
        raise NoRoom(f"{quota.repository} has its {quota.runners_max} runners in pool {quota.pool} by now; look again")


def insert_events(connection: Connection, entries: Iterable[Event]) -> None:
    """Append to the timeline; the last thing that a transaction does, because others wait for it."""
    if columns := [EVENTS.columns(entry) for entry in entries]:
        if connection.dialect.name == "postgresql":
            connection.execute(TIMELINE_LOCK)
        connection.execute(_ENTERING, columns)


def _insert(connection: Connection, kind: Kind[Any], row: Job | Runner | Host | Migration) -> bool:
    return insert_once(connection, kind.table, kind.columns(row), "id")


def _place(connection: Connection, kind: Kind[Any], row: Runner | Migration, host_id: HostId | None) -> bool:
    """Insert what takes room of this host; the object store, None, has room for everybody."""
    host = _locked(connection, host_id) if host_id is not None else None
    try:
        is_first = _insert(connection, kind, row)
    except IntegrityError as error:
        raise NoRoom(f"{row.id} cannot be placed: its number or its runner was taken meanwhile; look again") from error
    if (
        is_first
        and host_id is not None
        and not (host and host.state not in LEAVING and fits(NOTHING, room(host, _shapes(connection, host_id))))
    ):
        raise NoRoom(f"{host_id} has no room for {row.id}; place it on another host")
    return is_first


def _locked(connection: Connection, host_id: HostId) -> Host | None:
    found = (
        connection.execute(select(HOSTS.table).where(HOSTS.id == host_id).with_for_update()).mappings().one_or_none()
    )
    return HOSTS.row(found) if found else None


def _shapes(connection: Connection, host_id: HostId) -> list[Shape]:
    """Return what is taken of a host: what runs there, and what is on its way to it."""
    here = select(runners.c.shape).where(runners.c.host_id == host_id, IS_HERE)
    coming = (
        select(runners.c.shape)
        .join(migrations, migrations.c.runner_id == runners.c.id)
        .where(migrations.c.target_id == host_id, migrations.c.phase.in_(UNDECIDED))
    )
    return [Shape(**shape) for query in (here, coming) for shape in connection.scalars(query)]
