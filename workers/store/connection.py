"""Transactions on SQLite and on PostgreSQL: the same words, and both speak our errors.

SQLite has one writer at a time. A transaction that reads first and writes later
is refused when another wrote in between, so writers take their turn at BEGIN;
readers never wait, and see each statement's own moment (as on PostgreSQL).

A commit is on the disk before anybody is told, except for what is only *noted*:
a lease, a heartbeat. Of two processors' work and one disk's, that was the most.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import URL, Connection, Engine, Insert, NullPool, Table, create_engine, event, make_url, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    StatementError,
)
from sqlalchemy.exc import TimeoutError as PoolExhausted
from sqlalchemy.sql.dml import ReturningInsert

from workers.domain.errors import BadInput, SpotError, Unreachable

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql

# How long a writer waits for its turn; a request that waits longer is better refused.
TURN_LIMIT_S: Final = 10
BUSY_PAUSE_S: Final = 0.01
# How many of a process's threads read and write at once; the others wait in a line, which costs nothing. Whoever waits
# in SQLite for its one writer sleeps and tries again, and threads that take turns at every row that they read do little
# else: with as many connections as threads, the soak had 6 jobs a second instead of 9.
AT_ONCE: Final = {"sqlite": (1, 1), "postgresql": (4, 8)}
# FULL: what was answered to GitHub must outlive a power cut. The log is folded in and cut back when it has grown.
PRAGMAS: Final = (
    "synchronous=FULL",
    "foreign_keys=ON",
    "journal_size_limit=67108864",
    "wal_autocheckpoint=8000",
    "mmap_size=268435456",
    "cache_size=-65536",
)

# Held until the transaction ends.
ALONE: Final = text("SELECT pg_advisory_xact_lock(7707002)")
INSIDES: Final = 4096
REMEDY: Final = "write sqlite:////path/file or postgresql+psycopg://user@host/name"


class Database:
    """One database; each block is one transaction, undone if the block raises.

    Holds no connection until the first block, so it may be made before a fork but not be used before it.
    """

    def __init__(self, url: str, *, pooled: bool = True) -> None:
        try:
            self.reader, self.writer = _engines(url, pooled=pooled)
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            raise BadInput(f"database_url cannot be used ({error}); {REMEDY}") from error
        except ValueError:
            raise BadInput(f"database_url cannot be used (what stands for its port is no number); {REMEDY}") from None
        self._notes = self.writer.execution_options(is_missed_by_nobody=True)

    @property
    def is_postgresql(self) -> bool:
        """Say which of the two it is."""
        return self.writer.dialect.name == "postgresql"

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Read, one statement or several that need not agree; nobody waits."""
        with self._translated(), self.reader.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Write, and read what the write depends on. Nothing slow may happen here: on SQLite all others wait."""
        with self._translated(), self.writer.begin() as connection:
            yield connection

    @contextmanager
    def alone(self) -> Iterator[Connection]:
        """Write while no other process is in such a block: of several that start at once one makes the tables."""
        with self.writing() as connection:
            if self.is_postgresql:
                connection.execute(ALONE)
            yield connection

    @contextmanager
    def noting(self) -> Iterator[Connection]:
        """Write what a power cut may take back, as nobody who would miss it outlives the machine either.

        All others see it at once, and whatever is written afterwards never reaches the disk before it.
        """
        with self._translated(), self._notes.begin() as connection:
            yield connection

    def close(self) -> None:
        """Let every idle connection go."""
        self.reader.dispose()
        self.writer.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (OperationalError, InterfaceError, PoolExhausted) as error:
            raise Unreachable(
                f"the store {_shown(self.writer.url)} does not answer ({_cause(error)}); is it running and writable?"
            ) from error
        except StatementError as error:
            if isinstance(error.orig, SpotError):  # our own word about a value, wrapped by SQLAlchemy
                raise error.orig from error
            raise


def _shown(url: URL) -> str:
    """Return a URL that may be told: its options may hold a password as well as its place for one."""
    return url.set(query={}).render_as_string(hide_password=True)


def _cause(error: Exception) -> str:
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    return str(cause).strip().replace("\n", " ")


def _engines(url: str, *, pooled: bool) -> tuple[Engine, Engine]:
    """Return what reads and what writes."""
    name = make_url(url).get_backend_name()
    readers, writers = AT_ONCE.get(name, (1, 1))
    reading, writing = _engine(url, readers if pooled else None), _engine(url, writers if pooled else None)
    if name == "sqlite":
        event.listen(reading, "connect", _prepare)
        event.listen(writing, "connect", _prepare)
        event.listen(writing, "begin", _begin)
    else:
        event.listen(writing, "begin", _begin_on_postgresql)
    return reading, writing


def _engine(url: str, at_once: int | None) -> Engine:
    pool: dict[str, Any] = {"poolclass": NullPool}
    if at_once is not None:
        pool = {"pool_size": at_once, "max_overflow": 0, "pool_timeout": TURN_LIMIT_S}
    if make_url(url).get_backend_name() == "sqlite":
        return create_engine(url, json_deserializer=_inside, connect_args={"timeout": TURN_LIMIT_S}, **pool)
    limit = {"connect_timeout": TURN_LIMIT_S}
    return create_engine(url, json_deserializer=_inside, pool_pre_ping=at_once is not None, connect_args=limit, **pool)


@lru_cache(maxsize=INSIDES)
def _inside(text: str) -> object:
    """Read JSON: most rows have the same labels, shapes and terms. Nobody changes what is read, as rows are frozen."""
    return json.loads(text)


def _prepare(connection: Any, _record: object) -> None:  # noqa: ANN401 the driver's own class, which only this dialect knows
    connection.isolation_level = None  # or the driver begins transactions by itself, and too late
    connection.execute(f"PRAGMA busy_timeout={TURN_LIMIT_S * 1000}")
    _keep_a_log(connection)
    for pragma in PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


def _keep_a_log(connection: sqlite3.Connection) -> None:
    """Choose the write-ahead log. Of several that do so first and at once SQLite refuses some without any wait."""
    until = time.monotonic() + TURN_LIMIT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(BUSY_PAUSE_S)
        else:
            return


def _begin(connection: Connection) -> None:
    wanted = "NORMAL" if connection.get_execution_options().get("is_missed_by_nobody") else "FULL"
    if connection.info.get("synchronous", "FULL") != wanted:
        connection.exec_driver_sql(f"PRAGMA synchronous={wanted}")
        connection.info["synchronous"] = wanted
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_on_postgresql(connection: Connection) -> None:
    if connection.get_execution_options().get("is_missed_by_nobody"):
        connection.exec_driver_sql("SET LOCAL synchronous_commit = off")


def insert_once(connection: Connection, table: Table, row: dict[str, Any], key: str) -> bool:
    """Insert one row; False if its key is there already."""
    return connection.execute(_inserting(connection.dialect.name, table, key, told=True), row).first() is not None


def insert_missing(connection: Connection, table: Table, rows: list[dict[str, Any]], key: str) -> None:
    """Insert the rows whose key is not there yet."""
    connection.execute(_inserting(connection.dialect.name, table, key, told=False), rows)


def upsert(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    """Insert these rows or put them in the place of those with the same primary key."""
    connection.execute(_upserting(connection.dialect.name, table), rows)


# Making a statement costs more than carrying it out, so each is made once.
@cache
def _inserting(dialect: str, table: Table, key: str, *, told: bool) -> ReturningInsert[Any] | Insert:
    inserting = _insert(dialect, table).on_conflict_do_nothing(index_elements=[key])
    return inserting.returning(table.c[key]) if told else inserting


@cache
def _upserting(dialect: str, table: Table) -> Insert:
    keys = [column.name for column in table.primary_key]
    statement = _insert(dialect, table)
    replaced = {column.name: column for column in statement.excluded if column.name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=replaced)


def _insert(dialect: str, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Both know what to do about a conflict, in the same words; the general one does not."""
    if dialect != "postgresql":
        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415 - loads a dozen drivers' modules

    return postgresql.insert(table)
