"""Installations: a row is the sum of what GitHub has said of it, made in the transaction that writes the word down."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, select, update

from workers.domain.events import Event, Happening
from workers.domain.installation import Installation, InstallationFact, heard
from workers.store.connection import insert_once
from workers.store.places import insert_events
from workers.store.rows import INSTALLATIONS
from workers.store.schema import installations


def hear(connection: Connection, facts: Iterable[InstallationFact]) -> None:
    """Put these facts into their rows; whoever else does so meanwhile waits, in one order with all others."""
    events = []
    for fact in sorted(facts, key=lambda fact: fact.installation_id):
        before = None if _is_first(connection, fact) else _read(connection, fact.installation_id, is_locked=True)
        after = heard(before, fact)
        if after != before:
            connection.execute(update(installations).where(installations.c.id == after.id).values(**_columns(after)))
            events.append(_event(fact, after))
    insert_events(connection, events)


def _is_first(connection: Connection, fact: InstallationFact) -> bool:
    return insert_once(connection, installations, _columns(heard(None, fact)), "id")


def read(connection: Connection, installation_id: int) -> Installation | None:
    """Return what we were told of one installation, None if nothing."""
    return _read(connection, installation_id, is_locked=False)


def _read(connection: Connection, installation_id: int, *, is_locked: bool) -> Installation | None:
    query = select(installations).where(installations.c.id == installation_id)
    found = connection.execute(query.with_for_update() if is_locked else query).mappings().one_or_none()
    return INSTALLATIONS.row(found) if found else None


def _columns(row: Installation) -> dict[str, Any]:
    inside = INSTALLATIONS.adapter.dump_python(row, mode="json")["repositories"]
    return INSTALLATIONS.columns(row) | {"repositories": inside}


def _event(fact: InstallationFact, after: Installation) -> Event:
    detail: dict[str, str | int] = {
        "installation": after.id,
        "account": after.account,
        "action": fact.action.value,
        "state": after.state.value,
    }
    detail |= {name: len(names) for name, names in (("added", fact.added), ("removed", fact.removed)) if names}
    return Event(Happening.INSTALLATION_CHANGED, fact.seen_at, detail=detail)
