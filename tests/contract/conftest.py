from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from tests.contract.aws_cloud import Site, World, deployed, open_site
from tests.contract.aws_server import running_moto
from tests.contract.clouds import answering
from tests.contract.hetzner.sides import IMAGE_LABELS, hetzner, rented_from
from tests.contract.postgresql import running_server, why_not
from tests.contract.several import AsOne
from tests.contract.store_rows import ManualClock, WholeStore
from tests.fakes.clock import FakeClock
from tests.fakes.cloud import FakeCloud
from tests.fakes.store import MemoryStore
from tests.fakes.trouble import Trouble
from workers.ports import Cloud
from workers.providers.local import LocalMarket
from workers.reconcilers.clouds import Clouds, Outages
from workers.rehearsal.landlord import Estate, Landlord
from workers.rehearsal.market import create_market
from workers.rehearsal.places import Places
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


# ---------------------------------------------------------------- clouds that have rented nothing yet


@pytest.fixture
def fake_cloud() -> Cloud:
    clock = FakeClock()
    return FakeCloud(clock, Trouble(clock))


@pytest.fixture
def landlord() -> Landlord:
    """The market's books. Nobody owns the machines here, so what is ordered stays ordered and nothing is built."""
    return Landlord(Estate(Places("contract"), daemon=(), metadata=()))


@pytest.fixture
def local_cloud(landlord: Landlord) -> Iterator[Cloud]:
    with answering(create_market(landlord)) as url, closing(LocalMarket(url)) as market:
        yield market


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """The address of moto's server."""
    yield from running_moto()


@pytest.fixture(scope="session")
def aws_site(moto: str) -> Iterator[Site]:
    with open_site(moto) as site:
        yield site


@pytest.fixture
def aws(aws_site: Site) -> World:
    """A deployment that has rented nothing yet."""
    return deployed(aws_site, secrets.token_hex(3))


@pytest.fixture
def aws_cloud(aws: World) -> Cloud:
    return aws.cloud()


@pytest.fixture
def several_cloud(local_cloud: Cloud, aws_cloud: Cloud, hetzner_cloud: Cloud) -> Cloud:
    return AsOne(Clouds([aws_cloud, local_cloud, hetzner_cloud], Outages(FakeClock())))


@pytest.fixture
def hetzner_cloud() -> Iterator[Cloud]:
    with hetzner() as place:
        place.image(IMAGE_LABELS)
        with rented_from(place) as cloud:
            yield cloud
