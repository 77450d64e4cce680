"""Brings a database to the schema that this program knows: an empty one at once, another one by alembic's steps."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Final

from sqlalchemy import Column, Connection, MetaData, PrimaryKeyConstraint, String, Table, insert, inspect, text

from workers.store.connection import Database
from workers.store.schema import METADATA

VERSIONS: Final = Path(__file__).with_name("migrations") / "versions"
_REVISION: Final = re.compile(r'^revision: Final = "(\d+)"$', re.MULTILINE)
# Alembic's own table, as it makes it.
_VERSION: Final = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


def upgrade(database: Database, to: str | None = None) -> None:
    """Make the tables, or change them to what this program needs; any number of processes may call this at once.

    `to` is an earlier revision only where a database of an earlier program is to be made. Raises `Unfit` if the
    database was already changed by a newer program.
    """
    if to is None and (revision(database) == newest() or _make(database)):
        return
    from workers.store.revisions import HEAD, take  # noqa: PLC0415 - alembic costs a command half of its time

    take(database, to or HEAD)


def revision(database: Database) -> str | None:
    """Return at which revision a database is, None if it has no tables yet."""
    with database.reading() as connection:
        return _revision(connection)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(_VERSION.name):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return found


def _make(database: Database) -> bool:
    """Make all tables as they are now, unless there are some; say whether it did."""
    with database.alone() as connection:
        if _revision(connection) is not None:
            return False
        METADATA.create_all(connection, checkfirst=False)
        _VERSION.create(connection, checkfirst=True)
        connection.execute(insert(_VERSION).values(version_num=newest()))
        return True


@cache
def newest() -> str:
    """Return the revision that this program knows: the highest number of its steps."""
    found = (_REVISION.search(path.read_text()) for path in VERSIONS.glob("*.py"))
    return max(match[1] for match in found if match is not None)
