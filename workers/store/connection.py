"""Transactions on SQLite and on PostgreSQL: the same words, and both speak our errors.

SQLite has one writer at a time. A transaction that reads first and writes later
is refused when another wrote in between, so writers take their turn at BEGIN;
readers never wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, Engine, NullPool, Table, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    StatementError,
)
from sqlalchemy.exc import TimeoutError as PoolExhausted

from workers.domain.errors import BadInput, SpotError, Unreachable

# How long a writer waits for its turn; a request that waits longer is better refused.
TURN_LIMIT_S: Final = 10
# One for each thread of a worker and some over; a connection to SQLite is cheap, PostgreSQL gives a hundred to all.
POOL: Final = {"pool_size": 8, "max_overflow": 24, "pool_timeout": TURN_LIMIT_S}
# FULL: what was answered to GitHub must outlive a power cut. The log is folded in and cut back when it has grown.
PRAGMAS: Final = (
    "busy_timeout=10000",
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    "journal_size_limit=67108864",
    "wal_autocheckpoint=8000",
    "mmap_size=268435456",
    "cache_size=-65536",
)


class Database:
    """One database; each block is one transaction, undone if the block raises.

    Holds no connection until the first block, so it may be made before a fork but not be used before it.
    """

    def __init__(self, url: str, *, pooled: bool = True) -> None:
        try:
            self.engine = _engine(url, pooled=pooled)
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            raise BadInput(
                f"database_url cannot be used ({error}); write sqlite:////path/file or postgresql+psycopg://user@host/name"
            ) from error
        self._reads = self.engine.execution_options(reads_only=True)

    @property
    def is_postgresql(self) -> bool:
        """Say which of the two it is."""
        return self.engine.dialect.name == "postgresql"

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Read; nobody waits."""
        with self._translated(), self._reads.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Write, and read what the write depends on. Nothing slow may happen here: on SQLite all others wait."""
        with self._translated(), self.engine.begin() as connection:
            yield connection

    def close(self) -> None:
        """Let every idle connection go."""
        self.engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (OperationalError, InterfaceError, PoolExhausted) as error:
            raise Unreachable(
                f"the store {self.engine.url!r} does not answer ({_cause(error)}); is it running and writable?"
            ) from error
        except StatementError as error:
            if isinstance(error.orig, SpotError):  # our own word about a value, wrapped by SQLAlchemy
                raise error.orig from error
            raise


def _cause(error: Exception) -> str:
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    return str(cause).strip().replace("\n", " ")


def _engine(url: str, *, pooled: bool) -> Engine:
    pool: dict[str, Any] = POOL if pooled else {"poolclass": NullPool}
    if make_url(url).get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": TURN_LIMIT_S}, **pool)
        event.listen(engine, "connect", _prepare)
        event.listen(engine, "begin", _begin)
        return engine
    return create_engine(url, pool_pre_ping=pooled, connect_args={"connect_timeout": TURN_LIMIT_S}, **pool)


def _prepare(connection: Any, _record: object) -> None:  # noqa: ANN401 the driver's own class, which only this dialect knows
    connection.isolation_level = None  # or the driver begins transactions by itself, and too late
    for pragma in PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    reading = connection.get_execution_options().get("reads_only")
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def insert_once(connection: Connection, table: Table, row: dict[str, Any], key: str) -> bool:
    """Insert one row; False if its key is there already."""
    inserting = _insert(connection, table).on_conflict_do_nothing(index_elements=[key]).returning(table.c[key])
    return connection.execute(inserting, row).first() is not None


def insert_missing(connection: Connection, table: Table, rows: list[dict[str, Any]], key: str) -> None:
    """Insert the rows whose key is not there yet."""
    connection.execute(_insert(connection, table).on_conflict_do_nothing(index_elements=[key]), rows)


def upsert(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    """Insert these rows or put them in the place of those with the same primary key."""
    keys = [column.name for column in table.primary_key]
    statement = _insert(connection, table)
    replaced = {column.name: column for column in statement.excluded if column.name not in keys}
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=replaced), rows)


def _insert(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Both know what to do about a conflict, in the same words; the general one does not."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)
