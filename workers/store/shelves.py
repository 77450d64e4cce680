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
from datetime import timedelta
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import Connection, Update, or_, select, update

from workers.domain.errors import Bug, LeaseLost, Unreachable
from workers.domain.events import Event
from workers.domain.host import Host
from workers.domain.job import Job
from workers.domain.migration import Migration
from workers.domain.names import HostId, JobId, MigrationId, RunnerId
from workers.domain.runner import Runner
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

    def __init__(self, database: Database, kind: Kind[Row], row: Row, token: str) -> None:
        self._database, self._token = database, token
        self._kind: Kind[Row] = kind
        self._row: Row = row

    @property
    def row(self) -> Row:
        """The row as it was when the lease was taken, or as last written."""
        return self._row

    def write(self, row: Row, *also: Job | Runner | Host | Migration | Event) -> None:
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
        if connection.execute(self._guarded(row)).rowcount != 1:
            raise LeaseLost(f"{row.id} was taken or changed by another meanwhile; look again")
        return row

    def _guarded(self, row: Row) -> Update:
        """Return the update that changes nothing if the lease is lost or what it was decided on has moved."""
        kind, table = self._kind, self._kind.table
        changes = kind.changes(self._row, row)
        values = {name: value for name, value in changes.items() if name not in kind.foreign}
        fence = [table.c[name].is_not_distinct_from(getattr(self._row, name)) for name in kind.fence]
        statement = update(table).where(kind.id == row.id, table.c.lease_token == self._token, *fence)
        return statement.values(values or {"lease_token": self._token})


class SqlShelf(Generic[Key, Row]):
    """All rows of one kind."""

    def __init__(self, database: Database, kind: Kind[Row], clock: Clock, lease_wait: timedelta) -> None:
        self._database, self._clock, self._lease_wait = database, clock, lease_wait
        self._kind: Kind[Row] = kind

    def get(self, key: Key) -> Row | None:
        """Return one row."""
        with self._database.reading() as connection:
            found = connection.execute(select(self._kind.table).where(self._kind.id == key)).mappings().one_or_none()
        return self._kind.row(found) if found else None

    def open(self) -> Sequence[Row]:
        """Return every row that is not at the end of its lifecycle, oldest first."""
        table = self._kind.table
        return self.where(table.c[self._kind.stage].in_(self._kind.open))

    def where(self, *conditions: Any) -> Sequence[Row]:  # noqa: ANN401 SQLAlchemy's own wide type
        """Return the rows that meet these conditions, oldest first."""
        table = self._kind.table
        query = select(table).where(*conditions).order_by(table.c[self._kind.since], self._kind.id)
        with self._database.reading() as connection:
            found = connection.execute(query).mappings().all()
        return [self._kind.row(columns) for columns in found]

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
            yield SqlLease(self._database, self._kind, row, token)
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
        table, now = self._kind.table, self._clock.now()
        is_free = or_(table.c.lease_until.is_(None), table.c.lease_until < now)
        taking = update(table).where(self._kind.id == key, is_free)
        taking = taking.values(lease_token=token, lease_until=now + LEASE_LIMIT)
        with self._database.writing() as connection:
            found = connection.execute(taking.returning(table)).mappings().one_or_none()
        if found is None:
            raise LeaseLost(f"{key} is not there or another works on it; look again")
        return self._kind.row(found)

    def _release(self, key: Key, token: str) -> None:
        table = self._kind.table
        mine = update(table).where(self._kind.id == key, table.c.lease_token == token)
        with self._database.writing() as connection:
            connection.execute(mine.values(lease_token=None, lease_until=None))
