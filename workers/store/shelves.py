"""One shelf for each kind of row, and the lease on one row.

    lease ──▶ act ──▶ write ──▶ release        one short transaction for each arrow that touches the row
      └─ ten seconds later somebody else may take it, and then our write changes nothing: `LeaseLost`

A write touches only the columns that the holder changed, so what is noted
without a lease (a heartbeat, a notice) is never put back to an older value.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import BindParameter, Connection, Select, Update, bindparam, or_, select, update

from workers.domain.errors import Bug, LeaseLost, Unreachable
from workers.domain.events import Event
from workers.domain.host import Host
from workers.domain.job import Job
from workers.domain.migration import Migration
from workers.domain.names import HostId, JobId, MigrationId, RunnerId
from workers.domain.runner import Quota, Runner
from workers.ports import Clock
from workers.store import decisions
from workers.store.connection import Database
from workers.store.places import insert_all, insert_events, insert_row
from workers.store.rows import Kind

# A worker that dies holds a row up for no longer than this.
LEASE_LIMIT: Final = timedelta(seconds=10)
# Most leases last for some milliseconds.
LEASE_RETRY_S: Final = 0.02

Row = TypeVar("Row", Job, Runner, Host, Migration)
Key = TypeVar("Key", JobId, RunnerId, HostId, MigrationId)


class SqlLease(Generic[Row]):
    """The right to work on one row until it is released or another takes it."""

    def __init__(self, database: Database, kind: Kind[Row], statements: Statements, row: Row, token: str) -> None:
        self._database, self._statements, self._token = database, statements, token
        self._kind: Kind[Row] = kind
        self._row: Row = row

    @property
    def row(self) -> Row:
        """The row as it was when the lease was taken, or as last written."""
        return self._row

    def write(self, row: Row, *also: Job | Runner | Host | Migration | Event | Quota) -> None:
        """Write the row and insert what comes with it, all or nothing. Raises `LeaseLost` or `NoRoom`."""
        if row.id != self._row.id:
            raise Bug(f"a lease on {self._row.id} cannot write {row.id}")
        with self._database.writing() as connection:
            written = self._update(connection, row)
            insert_all(connection, also)
        self._row = written

    def _update(self, connection: Connection, row: Row) -> Row:
        if isinstance(row, Migration):
            return decisions.write_leased(connection, self._row, row, self._token)
        kind, before = self._kind, self._row
        changes = kind.changes(before, row)
        values = {name: value for name, value in changes.items() if name not in kind.foreign}
        told = {"the_key": row.id, "token": self._token}
        told |= {f"new_{name}": value for name, value in values.items()}
        told |= {f"was_{name}": getattr(before, name) for name in kind.fence}
        if connection.execute(self._statements.write(tuple(sorted(values))), told).rowcount != 1:
            raise LeaseLost(f"{row.id} was taken or changed by another meanwhile; look again")
        return row


class Statements:
    """What is asked of every shelf again and again: making a statement costs more than carrying it out."""

    def __init__(self, kind: Kind[Any]) -> None:
        table, key, token = kind.table, _key(), _token()
        oldest_first = (table.c[kind.since], kind.id)
        self.get = select(table).where(kind.id == key)
        self.open = select(*kind.told).where(table.c[kind.stage].in_(kind.open)).order_by(*oldest_first)
        is_free = or_(table.c.lease_until.is_(None), table.c.lease_until < _now())
        taking = update(table).where(kind.id == key, is_free).values(lease_token=token, lease_until=bindparam("until"))
        self.take = taking.returning(table)
        mine = update(table).where(kind.id == key, table.c.lease_token == token)
        self.release = mine.values(lease_token=None, lease_until=None)
        fence = [table.c[name].is_not_distinct_from(bindparam(f"was_{name}")) for name in kind.fence]
        self._guarded = mine.where(*fence)
        self._writes: dict[tuple[str, ...], Update] = {}

    def write(self, names: tuple[str, ...]) -> Update:
        """Return what changes these columns, or nothing if the lease is lost or what it was decided on has moved."""
        if names not in self._writes:
            values: dict[str, BindParameter[Any]] = {name: bindparam(f"new_{name}") for name in names}
            values = values or {"lease_token": _token()}
            self._writes[names] = self._guarded.values(values)
        return self._writes[names]


def _key() -> BindParameter[Any]:
    return bindparam("the_key")


def _token() -> BindParameter[str]:
    return bindparam("token")


def _now() -> BindParameter[datetime]:
    return bindparam("now")


class SqlShelf(Generic[Key, Row]):
    """All rows of one kind."""

    def __init__(self, database: Database, kind: Kind[Row], clock: Clock, lease_wait: timedelta) -> None:
        self._database, self._clock, self._lease_wait = database, clock, lease_wait
        self._kind: Kind[Row] = kind
        self._statements = Statements(kind)
        self._read: dict[Key, tuple[Any, Row]] = {}
        """What `open` has found last: columns and row."""

    def get(self, key: Key) -> Row | None:
        """Return one row."""
        with self._database.reading() as connection:
            found = connection.execute(self._statements.get, {"the_key": key}).mappings().one_or_none()
        return self._kind.row(found) if found else None

    def open(self) -> Sequence[Row]:
        """Return every row that is not at the end of its lifecycle, oldest first."""
        # To make a row of its columns takes longer than to see that they are the same as the last time.
        read = dict[Key, tuple[Any, Row]]()
        with self._database.reading() as connection:
            found = connection.execute(self._statements.open)
            names, rows = tuple(found.keys()), found.all()
        for columns in rows:
            known = self._read.get(columns.id)
            if known is None or known[0] != columns:
                known = columns, self._kind.row(dict(zip(names, columns, strict=True)))
            read[columns.id] = known
        self._read = read
        return [row for _, row in read.values()]

    def where(self, *conditions: Any) -> Sequence[Row]:  # noqa: ANN401 SQLAlchemy's own wide type
        """Return the rows that meet these conditions, oldest first."""
        table = self._kind.table
        return self._rows(select(table).where(*conditions).order_by(table.c[self._kind.since], self._kind.id))

    def _rows(self, query: Select[Any]) -> Sequence[Row]:
        with self._database.reading() as connection:
            found = connection.execute(query)
            names, rows = tuple(found.keys()), found.all()
        # Each row as a mapping of its own would look its names up anew, which takes longer than to read it.
        return [self._kind.row(dict(zip(names, row, strict=True))) for row in rows]

    def add(self, row: Row, *events: Event) -> bool:
        """Insert; False, and nothing is written, if the id is known already. Raises `NoRoom`."""
        with self._database.writing() as connection:
            if is_first := insert_row(connection, row):
                insert_events(connection, events)
        return is_first

    @contextmanager
    def lease(self, key: Key) -> Iterator[SqlLease[Row]]:
        """Lease one row; released at the end of the block. Raises `LeaseLost` if somebody else has it."""
        token = secrets.token_hex(16)
        row = self._take_in_time(key, token)
        try:
            yield SqlLease(self._database, self._kind, self._statements, row, token)
        finally:
            with suppress(Unreachable):  # then it ends by itself, and the block's own outcome is what counts
                self._release(key, token)

    def _take_in_time(self, key: Key, token: str) -> Row:
        end = time.monotonic() + self._lease_wait.total_seconds()
        while True:
            try:
                return self._take(key, token)
            except LeaseLost:
                if time.monotonic() >= end:
                    raise
                time.sleep(LEASE_RETRY_S)

    def _take(self, key: Key, token: str) -> Row:
        now = self._clock.now()
        told = {"the_key": key, "token": token, "now": now, "until": now + LEASE_LIMIT}
        with self._database.noting() as connection:
            found = connection.execute(self._statements.take, told).mappings().one_or_none()
        if found is None:
            raise LeaseLost(f"{key} is not there or another works on it; look again")
        return self._kind.row(found)

    def _release(self, key: Key, token: str) -> None:
        with self._database.noting() as connection:
            connection.execute(self._statements.release, {"the_key": key, "token": token})
