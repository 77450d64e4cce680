"""The whole store into one file and out of it again: what a backup holds of it, whichever database it is.

    SQLite ──── its own backup ────┐                         ┌─▶ SQLite
                                   ├─▶ one SQLite file ──────┤   upgraded if it is older; all rows or none
    PostgreSQL ─ one snapshot ─────┘                         └─▶ PostgreSQL

Nobody is held up meanwhile: both read what was committed at one moment.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Table, func, insert, make_url, select

from workers.domain.errors import BadInput, Unfit, Unreachable
from workers.store.connection import Database
from workers.store.revisions import revision_of, revisions
from workers.store.schema import METADATA, events, facts
from workers.store.upgrade import upgrade

# A row of deliveries is some kilobytes.
ROWS_AT_ONCE: Final = 500
_COUNTED: Final = (facts, events)


def copy_out(url: str, file: Path) -> str:
    """Write what the store holds now into a new SQLite file; returns the schema's revision.

    Raises `Unfit` if there is no store, `Unreachable` if it does not answer.
    """
    _require_file(url)
    with closing(Database(url, pooled=False)) as database:
        with database.reading() as connection:
            revision = revision_of(connection)
        if revision is None:
            raise Unfit(f"the store {database.writer.url!r} has no tables yet; there is nothing to back up")
        if database.is_postgresql:
            _require_present(revision)
            with _sqlite(file) as copy:
                upgrade(copy)
                with _snapshot(database) as source, copy.writing() as target:
                    _copy_rows(source, target)
        else:
            _copy_file(database, file)
    _fold(file)
    return revision


def bring_in(file: Path, url: str) -> None:
    """Put all rows of such a file into an empty store, or none of them; an older file is upgraded first.

    Raises `Unfit` if the store holds anything, or the file comes from a newer program.
    """
    with _sqlite(file) as copy, closing(Database(url, pooled=False)) as database:
        upgrade(copy)
        upgrade(database)
        with copy.reading() as source, database.writing() as target:
            if not _is_empty(target):
                raise Unfit(f"the store {database.writer.url!r} is in use; restore into an empty one")
            _copy_rows(source, target)
            if database.is_postgresql:
                _count_on(target)


def is_in_use(url: str) -> bool:
    """Say whether a store is there that holds anything."""
    if (place := _file_of(url)) is not None and not place.exists():
        return False
    with closing(Database(url, pooled=False)) as database, database.reading() as connection:
        if revision_of(connection) is None:
            return False
        has = connection.dialect.has_table
        return any(
            connection.execute(select(table.primary_key.columns[0]).limit(1)).first()
            for table in METADATA.sorted_tables
            if has(connection, table.name)
        )


def _sqlite(file: Path) -> closing[Database]:
    return closing(Database(f"sqlite:///{file}", pooled=False))


def _file_of(url: str) -> Path | None:
    """Return the file of a SQLite store, None for another."""
    parsed = make_url(url)
    return Path(parsed.database or "") if parsed.get_backend_name() == "sqlite" else None


def _require_file(url: str) -> None:
    place = _file_of(url)
    if place is not None and not place.is_file():
        raise Unfit(f"there is no store at {place}; there is nothing to back up")


def _require_present(revision: str) -> None:
    if revision != revisions()[-1]:
        raise Unfit(
            f"the store is at revision {revision} and this program at {revisions()[-1]}; back it up with the program "
            "that it serves, or start this one first"
        )


def _copy_file(database: Database, file: Path) -> None:
    """Let SQLite copy itself in one step, so that whoever writes meanwhile changes nothing in it."""
    source = database.writer.raw_connection()
    try:
        with closing(sqlite3.connect(file)) as target:
            driver: Any = source.driver_connection
            driver.backup(target)
    except sqlite3.Error as error:
        raise Unreachable(f"the store cannot be copied to {file} ({error}); is there room?") from error
    finally:
        source.close()


def _snapshot(database: Database) -> closing[Connection]:
    connection = database.writer.connect()
    return closing(connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True))


def _copy_rows(source: Connection, target: Connection) -> None:
    for table in METADATA.sorted_tables:
        for rows in _batches(source, table):
            target.execute(insert(table), rows)


def _batches(source: Connection, table: Table) -> Iterator[list[dict[str, Any]]]:
    asked = select(table).order_by(*table.primary_key.columns)
    told = source.execution_options(yield_per=ROWS_AT_ONCE).execute(asked)
    for rows in told.mappings().partitions():
        yield [dict(row) for row in rows]


def _is_empty(connection: Connection) -> bool:
    return not any(
        connection.execute(select(table.primary_key.columns[0]).limit(1)).first() for table in METADATA.sorted_tables
    )


def _count_on(connection: Connection) -> None:
    """PostgreSQL hands out numbers without looking at the rows, so it is told where they end."""
    for table in _COUNTED:
        last = connection.execute(select(func.max(table.c.number))).scalar_one()
        if last is not None:
            connection.execute(select(func.setval(func.pg_get_serial_sequence(table.name, "number"), last)))


def _fold(file: Path) -> None:
    """Make it one file that is whole, without a log beside it. Raises `BadInput` if it is not."""
    try:
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")
            said = connection.execute("PRAGMA integrity_check").fetchone()[0]
    except sqlite3.Error as error:
        said = str(error)
    if said != "ok":
        raise BadInput(f"the copy of the store is damaged ({said}); look at the disk of {file.parent}")
