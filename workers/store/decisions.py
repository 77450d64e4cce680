"""The migration's row and the runner that it gives away: `domain.merge` says what comes of a change, this writes it.

The row is locked from the reading to the end of the transaction, and the commit
changes the runner in the same one, so nobody ever sees a guest with two owners.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, Connection, select, update

from workers.domain.errors import Bug, LeaseLost
from workers.domain.events import Event, Happening
from workers.domain.merge import is_in_time, is_news, merged, untold_end
from workers.domain.migration import LINE_FIGURE, LineSeen, Migration, MigrationPhase, Role, owner_after
from workers.domain.names import HostId, MigrationId
from workers.store.places import insert_events
from workers.store.rows import MIGRATIONS
from workers.store.schema import hosts, migrations, runners

# Lines change little, and a plan is made every second.
LINES_MAX: Final = 20


def decide(connection: Connection, before: Migration, after: Migration, events: tuple[Event, ...]) -> Migration:
    """Put in what turned `before` into `after`, if the row still allows it; return the row as it then stands."""
    current = locked(connection, before.id)
    if current is None:
        raise Bug(f"{before.id} was never planned, so it cannot be decided")
    stands = _write(connection, current, merged(current, before, after))
    if is_news(current, stands):
        finished_at = untold_end(current, after, stands)
        insert_events(connection, [*events, *([_finished(stands, finished_at)] if finished_at else [])])
    return stands


def write_leased(connection: Connection, before: Migration, after: Migration, token: str) -> Migration:
    """Do the same for the holder of a lease; raises `LeaseLost` if the row has moved on or the lease has."""
    current = locked(connection, before.id, migrations.c.lease_token == token)
    if current is None or not is_in_time(current, before, after):
        raise LeaseLost(f"{before.id} was decided by another meanwhile; look again")
    return _write(connection, current, merged(current, before, after))


def locked(connection: Connection, key: MigrationId, *conditions: ColumnElement[bool]) -> Migration | None:
    """Read the row and keep everybody else from writing it until the transaction ends."""
    query = select(migrations).where(migrations.c.id == key, *conditions).with_for_update()
    found = connection.execute(query).mappings().one_or_none()
    return MIGRATIONS.row(found) if found else None


def note_seen(connection: Connection, key: MigrationId, role: Role, now: datetime) -> None:
    """Note that this side has reached the row, and touch nothing else."""
    column = migrations.c.source_seen_at if role is Role.SOURCE else migrations.c.target_seen_at
    is_later = column.is_(None) | (column < now)
    connection.execute(update(migrations).where(migrations.c.id == key, is_later).values({column: now}))


def lines_seen(connection: Connection) -> list[LineSeen]:
    """Return how fast the lines were in the last few migrations that have finished, the latest first."""
    source, target = hosts.alias("source"), hosts.alias("target")
    query = (
        select(migrations.c.source_id, source.c.cloud, target.c.cloud, migrations.c.figures)
        .join(source, source.c.id == migrations.c.source_id)
        .join(target, target.c.id == migrations.c.target_id)
        .where(migrations.c.phase == MigrationPhase.FINISHED.value)
        .order_by(migrations.c.planned_at.desc(), migrations.c.id)
        .limit(LINES_MAX)
    )
    return [
        LineSeen(HostId(source_id), here, there, figures[LINE_FIGURE])
        for source_id, here, there, figures in connection.execute(query)
        if LINE_FIGURE in figures
    ]


def _write(connection: Connection, current: Migration, row: Migration) -> Migration:
    if changes := MIGRATIONS.changes(current, row):
        connection.execute(update(migrations).where(migrations.c.id == row.id).values(**changes))
    if row.phase is not current.phase:
        _settle(connection, row)
    return row


def _settle(connection: Connection, row: Migration) -> None:
    """Give the runner to whom the decision gives it; a runner of a higher epoch has been given away since."""
    if row.phase is MigrationPhase.COMMITTED:
        newer = (runners.c.id == row.runner_id) & (runners.c.epoch < row.epoch)
        connection.execute(update(runners).where(newer).values(dict(owner_after(row))))
    elif row.phase is MigrationPhase.ABORTED:
        moving = (runners.c.id == row.runner_id) & (runners.c.migration_id == row.id)
        connection.execute(update(runners).where(moving).values(migration_id=None))


def _finished(row: Migration, at: datetime) -> Event:
    return Event(Happening.MIGRATION_FINISHED, at, runner_id=row.runner_id, migration_id=row.id)
