"""One suite for every `ports.Cloud`: the fake of the simulation, and the local market's client over the real market."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http import HTTPStatus

import httpx
import pytest
from flask import Flask, Response
from werkzeug.serving import make_server

from tests.fakes.clock import FakeClock
from tests.fakes.cloud import FakeCloud
from tests.fakes.trouble import Trouble
from workers.domain.errors import NoCapacity, Refused, SpotError, Throttled, Unreachable
from workers.domain.names import HostId
from workers.domain.runner import Shape
from workers.ports import Cloud, InstanceState
from workers.providers.local import LocalMarket
from workers.rehearsal.landlord import Estate, Landlord
from workers.rehearsal.market import create_market
from workers.rehearsal.places import FIRST_HOST, LAST_HOST, Places

SPEC = Shape(vcpus=2, memory_mib=2048, disk_mib=4096)
A, B = HostId("spot-host-a"), HostId("spot-host-b")
TOLD = {"host_id": "spot-host-a", "token": "t"}
CALL_LIMIT_S = 30.0


@contextmanager
def answering(app: Flask) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(CALL_LIMIT_S)
        server.server_close()


@pytest.fixture
def landlord() -> Landlord:
    """The market's books. Nobody owns the machines here, so what is ordered stays ordered and nothing is built."""
    return Landlord(Estate(Places("contract"), daemon=(), metadata=()))


@pytest.fixture(params=["fake", "local"])
def cloud(request: pytest.FixtureRequest, landlord: Landlord) -> Iterator[Cloud]:
    if request.param == "fake":
        clock = FakeClock()
        yield FakeCloud(clock, Trouble(clock))
        return
    with answering(create_market(landlord)) as url, closing(LocalMarket(url)) as market:
        yield market


def test_asking_twice_for_one_host_gives_the_same_instance(cloud: Cloud) -> None:
    first = cloud.launch(A, SPEC, TOLD)
    assert (first.host_id, first.state) == (A, InstanceState.PENDING)
    assert cloud.launch(A, SPEC, TOLD) == first
    assert cloud.launch(B, SPEC, TOLD).id != first.id
    assert cloud.describe(A) == first


def test_it_lists_what_it_owns_and_knows_nothing_of_the_rest(cloud: Cloud) -> None:
    assert (list(cloud.owned()), cloud.describe(A)) == ([], None)
    cloud.launch(A, SPEC, TOLD)
    cloud.launch(B, SPEC, TOLD)
    assert {one.host_id for one in cloud.owned()} == {A, B}


def test_ending_twice_or_what_never_was_does_no_harm(cloud: Cloud) -> None:
    cloud.terminate(A)
    cloud.launch(B, SPEC, TOLD)
    cloud.terminate(B)
    cloud.terminate(B)


def test_when_everything_is_given_out_there_is_no_capacity(landlord: Landlord) -> None:
    with answering(create_market(landlord)) as url, closing(LocalMarket(url)) as market:
        for number in range(FIRST_HOST, LAST_HOST + 1):
            market.launch(HostId(f"spot-host-{number}"), SPEC, TOLD)
        with pytest.raises(NoCapacity, match="given out"):
            market.launch(A, SPEC, TOLD)
        known = HostId(f"spot-host-{FIRST_HOST}")
        assert market.launch(known, SPEC, TOLD).host_id == known


def test_a_market_that_is_sold_out_keeps_what_it_has_rented_and_sells_again_later(landlord: Landlord) -> None:
    with answering(create_market(landlord)) as url, closing(LocalMarket(url)) as market:
        market.launch(A, SPEC, TOLD)
        httpx.put(f"{url}/stock", json={"machines": False}, trust_env=False).raise_for_status()
        with pytest.raises(NoCapacity, match="sold out"):
            market.launch(B, SPEC, TOLD)
        assert market.launch(A, SPEC, TOLD).host_id == A
        httpx.put(f"{url}/stock", json={"machines": True}, trust_env=False).raise_for_status()
        assert market.launch(B, SPEC, TOLD).host_id == B


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (HTTPStatus.TOO_MANY_REQUESTS, b"", Throttled),
        (HTTPStatus.CONFLICT, b"", NoCapacity),
        (HTTPStatus.BAD_GATEWAY, b"", Unreachable),
        (HTTPStatus.BAD_REQUEST, b"", Refused),
        (HTTPStatus.NOT_FOUND, b"", Refused),
        (HTTPStatus.OK, b"not an instance", Refused),
    ],
)
def test_each_answer_says_whether_to_ask_again(status: HTTPStatus, body: bytes, error: type[SpotError]) -> None:
    app = Flask(__name__)
    app.put("/<path:_>", endpoint="any")(lambda _: Response(body, status))
    with (
        answering(app) as url,
        closing(LocalMarket(url)) as market,
        pytest.raises(error, match="the spot market answered"),
    ):
        market.launch(A, SPEC, TOLD)


def test_a_market_that_is_not_there_cannot_be_reached() -> None:
    with closing(LocalMarket("http://127.0.0.1:1")) as market, pytest.raises(Unreachable, match=r"127\.0\.0\.1:1"):
        market.describe(A)
