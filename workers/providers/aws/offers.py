"""What EC2 would rent: each type of the settings in each zone of the subnets, as spot and on demand, with prices.

DescribeInstanceTypes ─▶ cores, memory, network, how guests are accelerated ┐
DescribeSpotPriceHistory ─▶ spot prices     GetProducts ─▶ on demand         ├─▶ offers, and remarks on what is none
GetSpotPlacementScores ─▶ how likely a zone takes machines back              ┘

What is read but needs a permission that is missing costs the offers that need it, and no others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from workers.domain.architecture import Architecture
from workers.domain.errors import Refused, SpotError
from workers.domain.host_class import Acceleration
from workers.domain.market import SpotPool
from workers.domain.offer import Likeness, Offer
from workers.domain.runner import Shape
from workers.ports import Clock
from workers.providers.aws.account import Account
from workers.providers.aws.prices import PriceList
from workers.providers.aws.requests import OWN_MEMORY_MIB, Boot, Kind, Terms, boot_of
from workers.selling import Stock

T = TypeVar("T")
V = TypeVar("V")

# EC2 scores a request of so many instances, from 1 to 10: 10 is very likely to succeed. It promises nothing about how
# long they stay; that what is scarce is taken back sooner, and how much sooner, is our own guess.
SCORED_INSTANCES: Final = 10
SCORE_MAX: Final = 10
UNSCORED: Final = 5
INTERRUPTIONS_PER_POINT: Final = 0.01
LINUX: Final = "Linux/UNIX"
_SET_PRICE: Final = "name its price in SPOT_RUNNER_AWS_ON_DEMAND_PRICES"


@dataclass(frozen=True)
class _Read:
    """What was read, as far as it could be."""

    kinds: Sequence[Kind]
    spot: Mapping[SpotPool, float]
    on_demand: Mapping[str, float]
    scores: Mapping[str, int]
    """By zone."""

    def price(self, kind: Kind, zone: str, terms: Terms) -> float | None:
        return self.spot.get(SpotPool(kind.name, zone)) if terms is Terms.SPOT else self.on_demand.get(kind.name)


def _as_far_as(allowed: type[SpotError], remarks: list[str], read: Callable[[], Mapping[T, V]]) -> Mapping[T, V]:
    """Read what may be missing; what goes wrong so is said once, and the rest goes on."""
    try:
        return read()
    except allowed as error:
        remarks.append(str(error))
        return {}


class AwsSeller:
    """selling.Seller in one region."""

    def __init__(
        self,
        account: Account,
        prices: PriceList,
        disk_mib: int,
        clock: Clock,
        refused: Callable[[], Collection[tuple[str, Terms]]] = tuple,
    ) -> None:
        """`disk_mib` is what each host gets for microVMs; `refused` as `boot_of` takes it."""
        self._account, self._prices, self._disk_mib, self._clock = account, prices, disk_mib, clock
        self._refused = refused

    @property
    def name(self) -> str:
        return "aws"

    def stock(self) -> Stock:
        remarks = list[str]()
        zones = {one.zone: one.zone_id for one in self._account.subnets}
        names = [kind.name for kind in self._account.kinds]
        read = _Read(
            self._account.kinds,
            _as_far_as(Refused, remarks, lambda: self._spot(names, zones)),
            # Two of EC2's neighbours: if they are out of order it goes on to sell.
            _as_far_as(SpotError, remarks, lambda: self._prices.prices(names)),
            _as_far_as(SpotError, remarks, lambda: self._scores(names, zones)),
        )
        offers = [offer for terms in Terms for offer in self._offers(read, zones, terms, remarks)]
        return Stock(offers, remarks)

    def _spot(self, names: Sequence[str], zones: Collection[str]) -> Mapping[SpotPool, float]:
        """Return the spot prices of now. Raises the port's errors."""
        told = self._account.every(
            "describe_spot_price_history",
            "SpotPriceHistory",
            InstanceTypes=list(names),
            ProductDescriptions=[LINUX],
            StartTime=self._clock.now(),  # of each pool the price that holds then
        )
        latest = sorted((one for one in told if one["AvailabilityZone"] in zones), key=lambda one: one["Timestamp"])
        return {SpotPool(one["InstanceType"], one["AvailabilityZone"]): float(one["SpotPrice"]) for one in latest}

    def _scores(self, names: Sequence[str], zones: Mapping[str, str]) -> Mapping[str, int]:
        """Return how likely each zone has machines, for all types together: a score of one type alone is always low.

        Raises the port's errors.
        """
        told = self._account.every(
            "get_spot_placement_scores",
            "SpotPlacementScores",
            InstanceTypes=list(names),
            TargetCapacity=SCORED_INSTANCES,
            SingleAvailabilityZone=True,
            RegionNames=[self._account.rental.region],
        )
        by_id = {one.get("AvailabilityZoneId"): int(one["Score"]) for one in told}
        return {zone: by_id[zone_id] for zone, zone_id in zones.items() if zone_id in by_id}

    def _offers(self, read: _Read, zones: Collection[str], terms: Terms, remarks: list[str]) -> Iterator[Offer]:
        for kind in read.kinds:
            boot = boot_of(kind, terms, self._account.rental, self._refused())
            if boot is None:
                remarks.append(
                    f"{self._place} {kind.name} as {terms.value}: no image for it, since it gives no hardware "
                    "virtualization; set SPOT_RUNNER_AWS_PVM_IMAGE, or name other types"
                )
                continue
            without = [zone for zone in zones if read.price(kind, zone, terms) is None]
            if without:
                remarks.append(self._unpriced(kind, terms, without))
            for zone in zones:
                if (price := read.price(kind, zone, terms)) is not None:
                    yield self._offer(kind, zone, terms, boot, price, read.scores.get(zone, UNSCORED))

    def _offer(self, kind: Kind, zone: str, terms: Terms, boot: Boot, price: float, score: int) -> Offer:
        is_spot = terms is Terms.SPOT
        acceleration = Acceleration.PVM if boot is Boot.PVM else Acceleration.KVM
        return Offer(
            cloud=self.name,
            region=self._account.rental.region,
            zone=zone,
            instance_type=kind.name,
            room=Shape(kind.vcpus, kind.memory_mib - OWN_MEMORY_MIB, self._disk_mib),
            usd_per_hour=price,
            is_spot=is_spot,
            likeness=Likeness(Architecture.X86_64, acceleration, kind.vendor),
            interruptions_per_hour=(SCORE_MAX - score) * INTERRUPTIONS_PER_POINT if is_spot else 0.0,
            network_mbit=kind.network_mbit,
        )

    def _unpriced(self, kind: Kind, terms: Terms, zones: Sequence[str]) -> str:
        what = f"{self._place} {kind.name} in {', '.join(zones)}, {terms.value}"
        where = f"{what}: its price is not known, so it is not bought"
        if terms is Terms.SPOT:
            return f"{where}; it is not sold there, or ec2:DescribeSpotPriceHistory is missing"
        return f"{where}; {_SET_PRICE}, or allow pricing:GetProducts"

    @property
    def _place(self) -> str:
        return f"AWS {self._account.rental.region}:"
