"""Brings a database to the schema that this program knows."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Final

from sqlalchemy import inspect, text

from workers.store.connection import Database

VERSIONS: Final = Path(__file__).with_name("migrations") / "versions"
_REVISION: Final = re.compile(r'^revision: Final = "(\d+)"$', re.MULTILINE)


def upgrade(database: Database, to: str | None = None) -> None:
    """Make the tables, or change them to what this program needs; any number of processes may call this at once.

    `to` is an earlier revision only where a database of an earlier program is to be made. Raises `Unfit` if the
    database was already changed by a newer program.
    """
    if to is None and revision(database) == newest():
        return
    from workers.store.revisions import HEAD, take  # noqa: PLC0415 - alembic costs a command half of its time

    take(database, to or HEAD)


def revision(database: Database) -> str | None:
    """Return at which revision a database is, None if it has no tables yet."""
    with database.reading() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
        return found


@cache
def newest() -> str:
    """Return the revision that this program knows: the highest number of its steps."""
    found = (_REVISION.search(path.read_text()) for path in VERSIONS.glob("*.py"))
    return max(match[1] for match in found if match is not None)
