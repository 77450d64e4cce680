"""What EC2 costs on demand: what the settings say, or else AWS's price list, which is another service. Asked seldom.

Pricing, GetProducts (one instance type, one region, Linux, shared) ──▶ PriceList ──▶ US dollars an hour
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import boto3
from botocore.config import Config

from workers.ports import Clock
from workers.providers.aws.account import CONNECT_LIMIT_S, READ_LIMIT_S, AnsweredError, called
from workers.providers.aws.answers import error_of

# Such a price changes once in months.
READ_AGAIN: Final = timedelta(hours=24)
# The list is the same everywhere, and is given out in three regions only.
# https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/price-changes.html
_NEAREST: Final = {"eu": "eu-central-1", "ap": "ap-south-1"}
_ELSEWHERE: Final = "us-east-1"
# One price is left of the many that a type has: for Linux and nothing else, on a machine that others share.
_ALWAYS: Final = {
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "preInstalledSw": "NA",
    "capacitystatus": "Used",
    "marketoption": "OnDemand",
}


class PriceList:
    """On-demand prices of one region."""

    def __init__(self, pricing: Any, region: str, table: Mapping[str, float], clock: Clock) -> None:  # noqa: ANN401 boto3 makes its classes when it runs
        """`table` says what an hour costs in US dollars, by instance type, where the price list is not to be asked."""
        self._pricing, self._region, self._table, self._clock = pricing, region, table, clock
        self._read: dict[str, tuple[datetime, float | None]] = {}

    @classmethod
    def open(cls, region: str, table: Mapping[str, float], clock: Clock, endpoint: str | None = None) -> PriceList:
        """Use the credentials that boto3 finds by itself."""
        limits = Config(connect_timeout=CONNECT_LIMIT_S, read_timeout=READ_LIMIT_S, retries={"total_max_attempts": 1})
        nearest = _NEAREST.get(region.partition("-")[0], _ELSEWHERE)
        return cls(
            boto3.client("pricing", region_name=nearest, endpoint_url=endpoint, config=limits), region, table, clock
        )

    def prices(self, instance_types: Iterable[str]) -> Mapping[str, float]:
        """Return what is known of these, in US dollars an hour. Raises the port's errors."""
        found = {name: self._table.get(name) or self._listed(name) for name in instance_types}
        return {name: price for name, price in found.items() if price is not None}

    def _listed(self, name: str) -> float | None:
        at, price = self._read.get(name, (None, None))
        if at is None or self._clock.now() - at > READ_AGAIN:
            price = min(self._prices_of(name), default=None)
            self._read[name] = self._clock.now(), price
        return price

    def _prices_of(self, name: str) -> Iterator[float]:
        wanted = {**_ALWAYS, "instanceType": name, "regionCode": self._region}
        filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in wanted.items()]
        try:
            told = called(
                self._region,
                "get_products",
                self._pricing.get_products,
                {"ServiceCode": "AmazonEC2", "Filters": filters, "FormatVersion": "aws_v1"},
            )
        except AnsweredError as error:
            raise error_of(error.answer, self._region, service="pricing") from error.__cause__
        for product in told.get("PriceList", ()):
            yield from _dollars(json.loads(product))


def _dollars(product: Mapping[str, Any]) -> Iterator[float]:
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in term.get("priceDimensions", {}).values():
            price = float(dimension.get("pricePerUnit", {}).get("USD", 0))
            if price > 0 and dimension.get("unit") == "Hrs":
                yield price
