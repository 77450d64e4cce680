"""What the rehearsed EC2 sells: types and zones are real, prices are of the kind; moto itself calls nearly all free."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from xml.sax.saxutils import escape

from workers.domain.market import SpotPool
from workers.rehearsal.aws.faults import XMLNS, Answers, Says

REGION: Final = "eu-central-1"
ZONES: Final = (f"{REGION}a", f"{REGION}b")
KIND: Final = "m8i.2xlarge"
"""8 vCPUs and 32 GiB, with nested virtualization."""
ON_DEMAND: Final[Mapping[str, float]] = {KIND: 0.5071}
"""US dollars an hour."""
SPOT: Final[Mapping[SpotPool, float]] = {
    SpotPool(KIND, ZONES[0]): 0.1402,
    SpotPool(KIND, ZONES[1]): 0.1475,
}


def spot_prices(form: Mapping[str, str]) -> Says:
    """Answer DescribeSpotPriceHistory: of each pool that was asked for the price that holds now."""
    kinds = {value for key, value in form.items() if key.startswith("InstanceType.")}
    zone, now = form.get("AvailabilityZone"), datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    items = "".join(
        f"<item><instanceType>{escape(pool.instance_type)}</instanceType>"
        "<productDescription>Linux/UNIX</productDescription>"
        f"<spotPrice>{price:.6f}</spotPrice><timestamp>{now}</timestamp>"
        f"<availabilityZone>{escape(pool.zone)}</availabilityZone></item>"
        for pool, price in SPOT.items()
        if pool.instance_type in kinds and zone in {None, pool.zone}
    )
    told = f"<spotPriceHistorySet>{items}</spotPriceHistorySet><nextToken/>"
    return Says(f'<DescribeSpotPriceHistoryResponse xmlns="{XMLNS}">{told}</DescribeSpotPriceHistoryResponse>')


ANSWERS: Final[Answers] = {"DescribeSpotPriceHistory": spot_prices}
