"""What has ended long ago, removed a few rows at a time: whoever writes waits for no more than that.

Each kind is looked for where an index has its oldest rows, or in the order in which they were written, so that nothing
is read that stays. What belongs to a row goes with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Column, Select, delete, select

from workers.store.connection import Database
from workers.store.rows import HOSTS, JOBS, MIGRATIONS, RUNNERS, Kind
from workers.store.schema import deliveries, events, facts, holds, reports, stations, tokens

# Each kind that lives and ends, with the columns of other tables that name it.
_WITH: Final[Sequence[tuple[Kind[Any], Sequence[Column[Any]]]]] = (
    (JOBS, (facts.c.job_id,)),
    (RUNNERS, (reports.c.runner_id, holds.c.runner_id)),
    (MIGRATIONS, ()),
    (HOSTS, (tokens.c.host_id, stations.c.name)),
)


class SqlAttic:
    """Removes what is old; every method is one read and one short transaction, and raises `Unreachable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def forget(self, before: datetime, limit: int) -> int:
        """Remove up to `limit` of each kind that have ended and began before this; return how many were removed."""
        removed = 0
        for kind, others in _WITH:
            stage, since = kind.table.c[kind.stage], kind.table.c[kind.since]
            for state in sorted(state.value for state in kind.lifecycle.last):  # one at a time, as the index has them
                ended = select(kind.id).where(stage == state, since < before).order_by(since).limit(limit)
                removed += self._remove(self._read(ended), kind.id, *others)
        oldest = select(events.c.number, events.c.at).order_by(events.c.number).limit(limit).subquery()
        return removed + self._remove(self._read(select(oldest.c.number).where(oldest.c.at < before)), events.c.number)

    def forget_deliveries(self, before: datetime, limit: int) -> int:
        """Remove up to `limit` deliveries that came before this; return how many were removed."""
        at = deliveries.c.received_at
        old = select(deliveries.c.guid).where(at < before).order_by(at).limit(limit)
        return self._remove(self._read(old), deliveries.c.guid)

    def _read(self, keys: Select[Any]) -> Sequence[Any]:
        with self._database.reading() as connection:
            return connection.scalars(keys).all()

    def _remove(self, keys: Sequence[Any], *columns: Column[Any]) -> int:
        """Remove what has one of these keys in one of these columns."""
        if keys:
            with self._database.writing() as connection:
                for column in columns:
                    connection.execute(delete(column.table).where(column.in_(keys)))
        return len(keys)
