"""Where hosts may come from, and how they are paid for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Market(StrEnum):
    """On which terms a host may be rented."""

    SPOT = "spot"
    """It may be taken back."""
    SPOT_THEN_ON_DEMAND = "spot-then-on-demand"
    """As spot if there is any, else at the full price."""
    ON_DEMAND = "on-demand"
    """At the full price, and ours until we give it back."""


@dataclass(frozen=True)
class SpotPool:
    """What a cloud sells spare as one thing: its machines come and go together."""

    instance_type: str
    zone: str

    def __str__(self) -> str:
        return f"{self.instance_type} in {self.zone}"


@dataclass(frozen=True)
class Lot:
    """A spot pool, and whose it is: what one notice may take away at once."""

    cloud: str
    pool: SpotPool

    def __str__(self) -> str:
        return f"{self.pool} of {self.cloud}"


@dataclass(frozen=True)
class Sources:
    """Where a pool wants its hosts from, what it likes best first."""

    providers: tuple[str, ...] = ()
    """Names of clouds; none: every cloud of the deployment."""
    zones: tuple[str, ...] = ()
    """None: every zone."""
    market: Market = Market.SPOT
    pick: SpotPool | None = None
    """The one that was chosen for a host among all that would do; None: none was, or it could not be had."""

    def allows(self, cloud: str) -> bool:
        """Say whether hosts of this cloud will do."""
        return not self.providers or cloud in self.providers


ANYWHERE: Final = Sources()
