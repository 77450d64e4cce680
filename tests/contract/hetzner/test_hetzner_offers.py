"""What Hetzner's own API tells of types, locations and prices, over the simulator."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.contract.hetzner.sides import RENTAL, TOKEN, Hetzner, hetzner
from workers.domain.errors import Barred
from workers.domain.host_class import Acceleration
from workers.providers.hetzner.account import Account
from workers.providers.hetzner.offers import HetznerSeller
from workers.providers.hetzner.requests import Rental


def seller(place: Hetzner, rental: Rental = RENTAL, rate: float | None = 1.1, token: str = TOKEN) -> HetznerSeller:
    return HetznerSeller(Account.open(rental, token, place.clock, f"{place.url}/v1"), rate)


def test_what_is_sold_now_is_offered_at_its_price_in_dollars() -> None:
    with hetzner() as place:
        stock = seller(place).stock()
    found = {(one.instance_type, one.zone): one for one in stock.offers}
    assert {zone for _, zone in found} == {"nbg1", "hel1"}, "the locations of the settings"
    assert "cax31" not in {name for name, _ in found}, "arm64 is not built yet"
    assert "cx41" not in {name for name, _ in found}, "it is about to go"
    one = found["cx42", "nbg1"]
    assert one.usd_per_hour == pytest.approx(0.0263 * 1.1)
    assert (one.room.vcpus, one.room.memory_mib) == (8, 15 * 1024)
    assert (one.is_spot, one.interruptions_per_hour, one.likeness.acceleration) == (False, 0.0, Acceleration.PVM)
    assert stock.remarks == []


def test_types_are_those_of_the_settings_and_what_is_sold_out_is_not_offered() -> None:
    with hetzner() as place:
        place.simulation.project.stock.sold_out.add(("nbg1", "cx42"))
        stock = seller(place, replace(RENTAL, server_types=("cx42",))).stock()
    assert [(one.instance_type, one.zone) for one in stock.offers] == [("cx42", "hel1")]


def test_prices_whose_worth_in_dollars_nobody_knows_are_no_offers_but_one_sentence() -> None:
    with hetzner() as place:
        stock = seller(place, rate=None).stock()
    assert stock.offers == ()
    assert [one for one in stock.remarks if "prices are in EUR" in one and "set SPOT_RUNNER_USD_RATE" in one]


def test_a_wrong_token_is_told() -> None:
    with hetzner() as place, pytest.raises(Barred, match="SPOT_RUNNER_HETZNER_TOKEN_FILE"):
        seller(place, token="wrong").stock()
