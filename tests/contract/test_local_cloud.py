"""The local market's client over the real market, beyond what every cloud does."""

from __future__ import annotations

from contextlib import closing
from http import HTTPStatus

import httpx
import pytest
from flask import Flask, Response

from tests.contract.clouds import SPEC, TOLD, A, B, answering
from workers.domain.errors import NoCapacity, Refused, SpotError, Throttled, Unreachable
from workers.domain.names import HostId
from workers.providers.local import LocalMarket
from workers.rehearsal.landlord import Landlord
from workers.rehearsal.market import create_market
from workers.rehearsal.places import FIRST_HOST, LAST_HOST


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


def test_a_market_takes_everything_back_and_whoever_was_quick_gets_no_other_machine(landlord: Landlord) -> None:
    with answering(create_market(landlord)) as url, closing(LocalMarket(url)) as market:
        for host in (A, B):
            market.launch(host, SPEC, TOLD)
        httpx.post(f"{url}/notice", json={"seconds": 60}, trust_env=False).raise_for_status()
        with pytest.raises(NoCapacity, match="sold out"):
            market.launch(HostId("spot-host-late"), SPEC, TOLD)
    assert all(landlord.notice_of(host) is not None for host in (A, B)), "those that are not there yet, too"


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
