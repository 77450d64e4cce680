"""What both clouds sell in the rehearsal, as an administrator writes it down (`SPOT_RUNNER_OFFERS_FILE`).

The clouds' own word for how guests run there is left out: every machine is this one, whatever they call it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from workers.rehearsal.aws.catalogue import KIND, ON_DEMAND, REGION, SPOT, ZONES
from workers.rehearsal.hetzner.catalogue import SERVER_TYPES

Json = dict[str, Any]

# A host of the settings' size, as AWS's type holds it; Hetzner's is the cheapest that does not sell by far below it.
LOCATION: Final = "nbg1"
SERVER_TYPE: Final = "ccx43"
CURRENCY: Final = "USD"
"""In which the rehearsed project at Hetzner is billed, so that nothing has to be converted."""
VCPUS: Final = 8
MEMORY_MIB: Final = 31 * 1024
DISK_MIB: Final = 65536


def offers() -> list[Json]:
    """Return every offer of both clouds."""
    return [*_aws(), _hetzner()]


def price_at_hetzner() -> float:
    """Return what an hour costs there."""
    return next(float(one.prices[LOCATION]) for one in SERVER_TYPES if one.name == SERVER_TYPE)


def _aws() -> Iterator[Json]:
    for pool, price in SPOT.items():
        yield _offer("aws", REGION, pool.zone, pool.instance_type, "spot", price)
    for zone in ZONES:
        yield _offer("aws", REGION, zone, KIND, "on-demand", ON_DEMAND[KIND])


def _hetzner() -> Json:
    return _offer("hetzner", LOCATION, LOCATION, SERVER_TYPE, "on-demand", price_at_hetzner())


def _offer(cloud: str, region: str, zone: str, kind: str, market: str, price: float) -> Json:
    place = {"cloud": cloud, "region": region, "zone": zone, "instance_type": kind, "market": market}
    return {**place, "usd_per_hour": price, "vcpus": VCPUS, "memory_mib": MEMORY_MIB, "disk_mib": DISK_MIB}
