"""What AWS tells of its offers, over moto's server: that has types, zones and spot prices; what it lacks is planted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from tests.contract.aws_cloud import World, client
from tests.fakes.clock import FakeClock
from workers.domain.errors import Throttled
from workers.domain.host_class import Acceleration
from workers.domain.offer import Offer
from workers.providers.aws.offers import AwsSeller
from workers.providers.aws.prices import PriceList
from workers.rehearsal.aws.faults import XMLNS, Refuses, Says
from workers.selling import Stock

DISK_MIB = 65536
BOTH = {"m8i.large": 0.11, "m7a.large": 0.12}


def seller(aws: World, table: Mapping[str, float] = BOTH, **changed: Any) -> AwsSeller:  # noqa: ANN401 the settings' own types
    cloud = aws.cloud(**changed)
    prices = PriceList(client("pricing", aws.site.url), aws.rental.region, table, FakeClock())
    return AwsSeller(cloud._account, prices, DISK_MIB, FakeClock(), lambda: cloud.refused)


def scored(scores: Mapping[str, int]) -> Says:
    items = "".join(
        f"<item><availabilityZoneId>{zone}</availabilityZoneId><region>eu-central-1</region><score>{score}</score></item>"
        for zone, score in scores.items()
    )
    words = f"<spotPlacementScoreSet>{items}</spotPlacementScoreSet>"
    return Says(f'<GetSpotPlacementScoresResponse xmlns="{XMLNS}">{words}</GetSpotPlacementScoresResponse>')


def listed(*prices: str) -> Says:
    def product(price: str) -> str:
        dimension = {"unit": "Hrs", "pricePerUnit": {"USD": price}}
        return json.dumps({"terms": {"OnDemand": {"t": {"priceDimensions": {"d": dimension}}}}})

    return Says(json.dumps({"PriceList": [product(one) for one in prices]}), "application/x-amz-json-1.1")


def only(stock: Stock, instance_type: str, *, is_spot: bool) -> list[Offer]:
    return [one for one in stock.offers if (one.instance_type, one.is_spot) == (instance_type, is_spot)]


def test_each_type_in_each_zone_is_offered_as_spot_and_on_demand(aws: World) -> None:
    aws.faults.plant("GetSpotPlacementScores", scored({"euc1-az1": 9, "euc1-az2": 3}))
    stock = seller(aws).stock()
    assert stock.remarks == []
    assert len(stock.offers) == 2 * 2 * 2
    (spot_a, spot_b), (full, _) = only(stock, "m8i.large", is_spot=True), only(stock, "m8i.large", is_spot=False)
    assert (spot_a.zone, spot_b.zone, full.zone) == ("eu-central-1a", "eu-central-1b", "eu-central-1a")
    assert (spot_a.usd_per_hour, full.usd_per_hour) == (0.00001, 0.11), "moto has one spot price for everything"
    assert (spot_a.room.vcpus, spot_a.room.memory_mib, spot_a.room.disk_mib) == (2, 8192 - 1024, DISK_MIB)
    assert (spot_a.likeness.acceleration, spot_a.likeness.vendor) == (Acceleration.KVM, "GenuineIntel")
    assert spot_a.network_mbit == 937, "what it always has, not what it may have for some minutes"
    risks = [one.interruptions_per_hour for one in (spot_a, spot_b, full)]
    assert risks == pytest.approx([0.01, 0.07, 0.0]), "a zone that is likely to have none takes back sooner"
    (plain, _) = only(stock, "m7a.large", is_spot=True)
    assert (plain.likeness.acceleration, plain.likeness.vendor) == (Acceleration.PVM, "AuthenticAMD")


def test_prices_that_the_settings_do_not_name_are_asked_of_the_price_list_once_a_day(aws: World) -> None:
    aws.faults.plant("GetSpotPlacementScores", scored({}), scored({}))
    aws.faults.plant("GetProducts", listed("0.2200000000", "0.0000000000"), listed("0.3300000000"))
    told = seller(aws, {})
    for _ in range(2):
        found = {one.instance_type: one.usd_per_hour for one in told.stock().offers if not one.is_spot}
        assert found == {"m8i.large": 0.22, "m7a.large": 0.33}


def test_a_price_that_is_missing_is_no_offer_but_one_sentence(aws: World) -> None:
    aws.faults.plant("GetSpotPlacementScores", scored({}))
    aws.faults.plant("GetProducts", listed())
    stock = seller(aws, {"m8i.large": 0.11}).stock()
    assert only(stock, "m7a.large", is_spot=False) == []
    assert len(only(stock, "m8i.large", is_spot=False)) == 2
    sentence = (
        "AWS eu-central-1: m7a.large in eu-central-1a, eu-central-1b, on-demand: its price is not known, so it is not "
        "bought; name its price in SPOT_RUNNER_AWS_ON_DEMAND_PRICES, or allow pricing:GetProducts"
    )
    assert stock.remarks == [sentence]


@pytest.mark.parametrize(
    ("call", "sentence", "offers"),
    [
        ("DescribeSpotPriceHistory", "the permission ec2:DescribeSpotPriceHistory is missing", 4),
        ("GetSpotPlacementScores", "the permission ec2:GetSpotPlacementScores is missing", 8),
        ("GetProducts", "the permission pricing:GetProducts is missing", 4),
    ],
)
def test_a_permission_that_is_missing_costs_what_needs_it(aws: World, call: str, sentence: str, offers: int) -> None:
    if call != "GetSpotPlacementScores":
        aws.faults.plant("GetSpotPlacementScores", scored({}))
    aws.faults.plant(call, Refuses("AccessDeniedException" if call == "GetProducts" else "UnauthorizedOperation"))
    stock = seller(aws, {} if call == "GetProducts" else BOTH).stock()
    told = [one for one in stock.remarks if sentence in one]
    assert len(told) == 1, stock.remarks
    assert "\n" not in told[0]
    assert len(stock.offers) == offers


def test_a_type_for_which_there_is_no_image_is_not_offered(aws: World) -> None:
    aws.faults.plant("GetSpotPlacementScores", scored({}))
    stock = seller(aws, pvm_image=None).stock()
    assert {one.instance_type for one in stock.offers} == {"m8i.large"}
    assert [one for one in stock.remarks if "m7a.large as spot: no image for it" in one]


def test_what_passes_is_told_to_be_asked_again(aws: World) -> None:
    aws.faults.plant("DescribeSpotPriceHistory", Refuses("RequestLimitExceeded", status=503))
    with pytest.raises(Throttled, match="DescribeSpotPriceHistory"):
        seller(aws).stock()
