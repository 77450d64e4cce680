from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from tests.contract.postgresql import running_server, why_not
from tests.contract.store_rows import ManualClock
from workers.store.repository import SqlStore, open_store

_numbers = count()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The socket's directory of a server that is ours alone."""
    if reason := why_not():
        pytest.skip(reason)
    with running_server() as directory:
        yield directory


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.sqlite'}"
    server, name = request.getfixturevalue("postgresql"), f"store_{next(_numbers)}"
    engine = create_engine(_url(server, "postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return _url(server, name)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(store_url: str, clock: ManualClock) -> Iterator[SqlStore]:
    opened = open_store(store_url, clock)
    yield opened
    opened.close()


def _url(server: str, name: str) -> str:
    return f"postgresql+psycopg://postgres@/{name}?host={server}"
