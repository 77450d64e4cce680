"""Breakers in the store: one row for each kind of demand that has ever been in vain, changed by compare-and-set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, select, update

from workers.domain.breaker import Breaker
from workers.domain.events import Event
from workers.store.connection import insert_once
from workers.store.places import insert_events
from workers.store.rows import BREAKERS
from workers.store.schema import breakers


def tripped(connection: Connection) -> Mapping[str, Breaker]:
    """Return those that have tripped and have not closed, by their kind."""
    found = connection.execute(select(breakers).where(breakers.c.retry_at.is_not(None))).mappings()
    rows = [BREAKERS.row(columns) for columns in found]
    return {row.id: row for row in rows}


def get(connection: Connection, kind: str) -> Breaker | None:
    """Return one, None if nothing of its kind was ever in vain."""
    found = connection.execute(select(breakers).where(breakers.c.id == kind)).mappings().one_or_none()
    return BREAKERS.row(found) if found else None


def change(connection: Connection, before: Breaker | None, after: Breaker, events: Sequence[Event]) -> bool:
    """Put `after` in the place of `before`; False, and nothing is written, if that is not there any more."""
    columns = BREAKERS.columns(after)
    if before is None:
        is_changed = insert_once(connection, breakers, columns, "id")
    else:
        known = (breakers.c.id == before.id) & (breakers.c.number == before.number)
        is_changed = connection.execute(update(breakers).where(known).values(**columns)).rowcount == 1
    if is_changed:
        insert_events(connection, events)
    return is_changed
