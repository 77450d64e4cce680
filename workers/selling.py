"""What clouds tell of what they would rent, and where it is kept: ports beside `workers.ports`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from workers.domain.offer import Catalogue, Offer


@dataclass(frozen=True)
class Stock:
    """What a cloud would rent now."""

    offers: Sequence[Offer] = ()
    """All with prices."""
    remarks: Sequence[str] = ()
    """What is not offered because something of it is not known, each in one sentence with the remedy."""


class Seller(Protocol):
    """A cloud that tells its prices."""

    @property
    def name(self) -> str:
        """The name of the cloud."""

    def stock(self) -> Stock:
        """Ask what there is. What has no price is no offer but a remark.

        Raises `Throttled`, `Refused`, `Unreachable`.
        """


class Catalogues(Protocol):
    """What clouds have told, kept so that every process of the control plane knows it."""

    def all(self) -> Mapping[str, Catalogue]:
        """Return what each cloud has told, by its name."""

    def put(self, catalogue: Catalogue) -> None:
        """Put this in the place of what was kept of the same cloud."""
