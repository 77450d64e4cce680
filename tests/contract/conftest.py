from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from tests.contract.postgresql import running_server, why_not
from tests.contract.store_rows import ManualClock, WholeStore
from tests.fakes.store import MemoryStore
from workers.store.repository import SqlStore, open_store


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The socket's directory of a server that is ours alone."""
    if reason := why_not():
        pytest.skip(reason)
    with running_server() as directory:
        yield directory


def empty_database(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if kind == "sqlite":
        return f"sqlite:///{tmp_path / 'store.sqlite'}"
    url = f"postgresql+psycopg://postgres@/postgres?host={request.getfixturevalue('postgresql')}"
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    engine.dispose()
    return url


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    return empty_database(request.param, request, tmp_path)


@pytest.fixture
def sql_store(store_url: str, clock: ManualClock) -> Iterator[SqlStore]:
    """A store in the database of `store_url`, for what only a database does."""
    opened = open_store(store_url, clock)
    yield opened
    opened.close()


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Iterator[WholeStore]:
    """The store in memory that simulations use and the real one on each database: all keep the same promises."""
    if request.param == "memory":
        yield MemoryStore(clock)
        return
    opened = open_store(empty_database(request.param, request, tmp_path), clock)
    yield opened
    opened.close()
