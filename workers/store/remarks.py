"""What is to be said beside commits: kept until it was said, by one worker at a time."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, select, update

from workers.domain.remark import Remark
from workers.store.connection import insert_once
from workers.store.rows import REMARKS
from workers.store.schema import remarks


def owe(connection: Connection, remark: Remark, now: datetime) -> None:
    """Keep a remark until it was made; one that is there with the same words stays as it is."""
    columns = REMARKS.columns(remark) | {"due_at": now}
    if insert_once(connection, remarks, columns, "key"):
        return
    there = select(remarks).where(remarks.c.key == remark.key).with_for_update()
    if REMARKS.row(connection.execute(there).mappings().one()) != remark:
        connection.execute(update(remarks).where(remarks.c.key == remark.key).values(**columns))


def owed(connection: Connection, now: datetime) -> list[str]:
    """Return the keys of the remarks that are to be made now, the longest due first."""
    query = select(remarks.c.key).where(remarks.c.due_at <= now).order_by(remarks.c.due_at, remarks.c.key)
    return list(connection.scalars(query))


def take(connection: Connection, key: str, now: datetime, until: datetime) -> Remark | None:
    """Give a remark that is due to one worker, who has until then."""
    is_due = (remarks.c.key == key) & (remarks.c.due_at <= now)
    taken = update(remarks).where(is_due).values(due_at=until).returning(remarks)
    found = connection.execute(taken).mappings().one_or_none()
    return REMARKS.row(found) if found else None


def settle(connection: Connection, remark: Remark) -> None:
    """Note that nothing is left to be done about these words."""
    words = [remarks.c[name] == value for name, value in REMARKS.columns(remark).items()]
    connection.execute(update(remarks).where(*words).values(due_at=None))
