"""What Hetzner would rent: each server type in each location that has it now, at the price of its API."""

from __future__ import annotations

from workers.domain.architecture import Architecture
from workers.domain.host_class import Acceleration
from workers.domain.offer import Likeness, Offer
from workers.domain.runner import Shape
from workers.providers.hetzner.account import Account
from workers.providers.hetzner.requests import ARCHITECTURE, OWN_DISK_MIB, OWN_MEMORY_MIB, Kind, Place
from workers.selling import Stock


class HetznerSeller:
    """selling.Seller in one project."""

    def __init__(self, account: Account, usd_rate: float | None) -> None:
        """`usd_rate`: how many US dollars the project's currency is worth; None: not known."""
        self._account, self._rate = account, usd_rate

    @property
    def name(self) -> str:
        return "hetzner"

    def stock(self) -> Stock:
        rental, rate = self._account.rental, self._rate
        if rate is None:
            unknown = (
                f"Hetzner: its prices are in {rental.currency} and cannot be held against others, so nothing is bought "
                "there; set SPOT_RUNNER_USD_RATE to how many US dollars one is worth"
            )
            return Stock((), (unknown,))
        kinds = [kind for kind in self._account.kinds if self._is_wanted(kind)]
        offers = [self._offer(kind, place, rate) for kind in kinds for place in kind.places if self._is_sold(place)]
        return Stock(offers, [_unpriced(kind) for kind in kinds if kind.unpriced])

    def _is_wanted(self, kind: Kind) -> bool:
        wanted = self._account.rental.server_types
        return kind.architecture == ARCHITECTURE and (not wanted or kind.name in wanted)

    def _is_sold(self, place: Place) -> bool:
        wanted = self._account.rental.locations
        return place.is_available and (not wanted or place.location in wanted)

    def _offer(self, kind: Kind, place: Place, rate: float) -> Offer:
        return Offer(
            cloud=self.name,
            region=place.location,
            zone=place.location,
            instance_type=kind.name,
            room=Shape(kind.vcpus, kind.memory_mib - OWN_MEMORY_MIB, kind.disk_mib - OWN_DISK_MIB),
            usd_per_hour=place.price * rate,
            is_spot=False,
            # Hetzner has no nested virtualization, and does not say whose processors it are.
            likeness=Likeness(Architecture.X86_64, Acceleration.PVM),
        )


def _unpriced(kind: Kind) -> str:
    where = ", ".join(kind.unpriced)
    return (
        f"Hetzner: {kind.name} in {where}: its price is not known, so it is not bought; name other types in "
        "SPOT_RUNNER_HETZNER_SERVER_TYPES, or wait until Hetzner's API has it"
    )
