"""The migration's row: two hosts and a reconciler write it at once, and no word is lost.

Each of them read a row, decided, and brings both. Under a lock on the row as it
stands now:

    the phase is the one that they read      what they changed is put in
    the phase has moved on                   they lost: nothing but `…_seen_at` is put in

So commit and abort compete by compare-and-set and exactly one wins, while words
that stay in one phase (running, wiped, figures) add up in whatever order they come.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, select, update

from workers.domain.errors import Bug, LeaseLost
from workers.domain.events import Event, Happening
from workers.domain.migration import MIGRATION, Migration, MigrationPhase, Role, finished
from workers.domain.names import MigrationId
from workers.store.places import insert_events
from workers.store.rows import MIGRATIONS
from workers.store.schema import migrations, runners

SEEN: Final = ("source_seen_at", "target_seen_at")
# What a host has said once stays as it was said first.
ONCE: Final = ("running_at", "wiped_at")


def decide(connection: Connection, before: Migration, after: Migration, events: tuple[Event, ...]) -> Migration:
    """Put in what turned `before` into `after`, if the row still allows it; return the row as it then stands."""
    current = locked(connection, before.id)
    if current is None:
        raise Bug(f"{before.id} was never planned, so it cannot be decided")
    if not is_in_time(current, before, after):
        return _write(connection, current, _with_seen(current, after))
    decided = _write(connection, current, merged(current, before, after))
    if set(_changed(current, decided)) - set(SEEN):  # a word that was said twice at once is told once
        insert_events(connection, [*events, *_unseen_end(decided, current, after)])
    return decided


def write_leased(connection: Connection, before: Migration, after: Migration, token: str) -> Migration:
    """Do the same for the holder of a lease; raises `LeaseLost` if the row has moved on or the lease has."""
    current = locked(connection, before.id, migrations.c.lease_token == token)
    if current is None or not is_in_time(current, before, after):
        raise LeaseLost(f"{before.id} was decided by another meanwhile; look again")
    return _write(connection, current, merged(current, before, after))


def locked(connection: Connection, key: MigrationId, *conditions: Any) -> Migration | None:  # noqa: ANN401 SQLAlchemy's own wide type
    """Read the row and keep everybody else from writing it until the transaction ends."""
    query = select(migrations).where(migrations.c.id == key, *conditions).with_for_update()
    found = connection.execute(query).mappings().one_or_none()
    return MIGRATIONS.row(found) if found else None


def is_in_time(current: Migration, before: Migration, after: Migration) -> bool:
    """Say whether this change may still be put in: the phase is the one that was read, or nothing but sight changes."""
    return current.phase is before.phase or not set(_changed(before, after)) - set(SEEN)


def merged(current: Migration, before: Migration, after: Migration) -> Migration:
    """Return the row with what turned `before` into `after`, and finish it if that was the last missing word."""
    changed = _changed(before, after)
    if before.phase is not after.phase:
        MIGRATION.move(before.phase, after.phase)
    changed |= {name: getattr(current, name) or changed[name] for name in ONCE if name in changed}
    if "figures" in changed:
        changed["figures"] = {**current.figures, **_measured(before, after)}
    row = _with_seen(replace(current, **changed), current, after)
    return finished(row) if row.phase is MigrationPhase.COMMITTED else row


def note_seen(connection: Connection, key: MigrationId, role: Role, now: datetime) -> None:
    """Note that this side has reached the row, and touch nothing else."""
    column = migrations.c.source_seen_at if role is Role.SOURCE else migrations.c.target_seen_at
    is_later = column.is_(None) | (column < now)
    connection.execute(update(migrations).where(migrations.c.id == key, is_later).values({column: now}))


def _changed(before: Migration, after: Migration) -> dict[str, Any]:
    pairs = ((field.name, getattr(before, field.name), getattr(after, field.name)) for field in fields(Migration))
    return {name: new for name, old, new in pairs if old != new}


def _measured(before: Migration, after: Migration) -> dict[str, float]:
    return {name: figure for name, figure in after.figures.items() if before.figures.get(name) != figure}


def _with_seen(row: Migration, *others: Migration) -> Migration:
    """Return the row with the latest moment at which each side was seen."""
    moments = {name: [at for one in (row, *others) if (at := getattr(one, name))] for name in SEEN}
    return replace(row, **{name: max(found) for name, found in moments.items() if found})


def _write(connection: Connection, current: Migration, row: Migration) -> Migration:
    if changed := MIGRATIONS.changes(current, row):
        connection.execute(update(migrations).where(migrations.c.id == row.id).values(**changed))
    if row.phase is not current.phase:
        _settle(connection, row)
    return row


def _settle(connection: Connection, row: Migration) -> None:
    """Give the runner to whom the decision gives it; a runner of a higher epoch has been given away since."""
    if row.phase is MigrationPhase.COMMITTED:
        _change_runner(
            connection, row, runners.c.epoch < row.epoch, host_id=row.target_id, epoch=row.epoch, migration_id=None
        )
    elif row.phase is MigrationPhase.ABORTED:
        _change_runner(connection, row, runners.c.migration_id == row.id, migration_id=None)


def _change_runner(connection: Connection, row: Migration, condition: Any, **values: object) -> None:  # noqa: ANN401 SQLAlchemy's own wide type
    connection.execute(update(runners).where(runners.c.id == row.runner_id, condition).values(**values))


def _unseen_end(decided: Migration, current: Migration, after: Migration) -> Iterator[Event]:
    """Tell of an end that nobody else tells of: both hosts spoke at once, and neither saw the other's word."""
    if (
        decided.phase is MigrationPhase.FINISHED
        and current.phase is not decided.phase
        and after.phase is not decided.phase
    ):
        at = max(moment for moment in (decided.running_at, decided.wiped_at) if moment)
        yield Event(Happening.MIGRATION_FINISHED, at, runner_id=decided.runner_id, migration_id=decided.id)
