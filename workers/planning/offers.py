"""Which offer is taken for one more host: the cheapest that will do, spread so that no single notice takes too much.

A host in a spot lot that has more hosts in use than any other calls for one more empty host elsewhere, so its price is
that of two. A lot that has fewer is covered already. So hosts are spread over lots as long as the next lot costs less
than such a spare host, and not further.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, TypeVar

from workers.domain.architecture import BUILT
from workers.domain.host import fits
from workers.domain.market import Lot, Market, Sources
from workers.domain.offer import Likeness, Offer
from workers.domain.runner import Shape

T = TypeVar("T", Lot, Likeness)

NOWHERE: Final = float("inf")

# The lowest is the best: 1 if nothing covers its loss, what the pool says, and the cost.
Rank = tuple[int, int, float]


@dataclass(frozen=True)
class Choice:
    """An offer that will do, and what there is to say of it for every host that is chosen."""

    offer: Offer
    lot: Lot
    liking: int
    """What the pool says: its clouds in their order, in each spot before the full price."""
    cost: float
    least: float
    """What it costs in US dollars until it can be given back."""
    place: int
    """Of its lot among all, since to look a number up costs less than to look up a lot."""
    kind: int
    """Of its likeness, the same."""
    rank: Rank
    rank_if_fullest: Rank
    """If no spot lot of its kind has more hosts in use: together with one more empty host elsewhere."""


class Shelf:
    """The offers that hold a host of ours, and which of them to take."""

    def __init__(
        self, offers: Iterable[Offer], spec: Shape, *, keeps_room: bool, hours_of: Callable[[str], float] = lambda _: 1
    ) -> None:
        """With `keeps_room` what a lot's loss may cost counts, too; `hours_of` says how long a cloud's host is kept."""
        built = {None, *BUILT}
        self.offers = tuple(one for one in offers if one.likeness.architecture in built and fits(spec, one.room))
        self._keeps_room, self._hours_of = keeps_room, hours_of
        self._sells_spot = frozenset(one.cloud for one in self.offers if one.is_spot)
        self._places, self._kinds = dict[Lot, int](), dict[Likeness, int]()
        self._used, self._level = defaultdict[int, int](int), defaultdict[int, int](int)
        """How many hosts are in use in each spot lot, and in the fullest one of each kind."""
        self._spares = {kind: self._cheapest_two(kind) for kind in {one.likeness for one in self.offers}}
        self._choices = cache(self._fitting)

    def count(self, lot: Lot, likeness: Likeness) -> None:
        """One more spot host is in use there."""
        place, kind = _number(lot, self._places), _number(likeness, self._kinds)
        self._used[place] += 1
        self._level[kind] = max(self._level[kind], self._used[place])

    def choose(self, sources: Sources, wanted: Likeness, most: float = NOWHERE) -> Offer | None:
        """Return the offer to take for a host that is needed; none costs more than `most` US dollars in all."""
        found: Offer | None = None
        best: Rank = (2, 0, NOWHERE)
        for one in self._choices(sources, wanted):
            if one.rank > best:
                break  # they come by rank, and nothing makes one better than its own
            is_fullest = self._used[one.place] >= self._level[one.kind]
            rank = one.rank_if_fullest if is_fullest else one.rank
            if rank < best and one.least <= most:
                found, best = one.offer, rank
        return found

    def elsewhere(
        self, sources: Sources, wanted: Likeness, lost: Lot, needy: Collection[Lot], most: float = NOWHERE
    ) -> Offer | None:
        """Return the offer to take for a host that is to be there when this lot is lost.

        In another lot that needs room itself it would serve all but that one, which then calls for one more.
        """
        fit = (
            one
            for one in self._choices(sources, wanted)
            if one.least <= most and not (one.offer.is_spot and one.lot == lost)
        )

        def rank(one: Choice) -> tuple[int, float]:
            is_needy = one.offer.is_spot and one.lot in needy
            return one.liking, one.cost * (2 if is_needy else 1)

        found = min(fit, key=rank, default=None)
        return found.offer if found is not None else None

    def _fitting(self, sources: Sources, wanted: Likeness) -> Sequence[Choice]:
        """Return what will do, the best first."""
        found = [one for one in self.offers if self._is_allowed(one, sources) and wanted.admits(one.likeness)]

        def rank(one: Choice) -> tuple[int, float, int, str]:
            by_zone = sources.zones.index(one.offer.zone) if sources.zones else 0
            return one.liking, one.cost, by_zone, str(one.offer)

        return sorted((self._choice(one, sources) for one in found), key=rank)

    def _choice(self, one: Offer, sources: Sources) -> Choice:
        least = one.usd_per_hour * self._hours_of(one.cloud)
        lot, kind, liking = one.lot, one.likeness, self._liking(one, sources)
        place, number = _number(lot, self._places), _number(kind, self._kinds)
        rank = 0, liking, one.cost
        fullest = self._rank_if_fullest(one, rank) if one.is_spot and self._keeps_room else rank
        return Choice(one, lot, liking, one.cost, least, place, number, rank, fullest)

    def _rank_if_fullest(self, one: Offer, rank: Rank) -> Rank:
        """Return its rank with the price of one more empty host that is not lost together with it."""
        _, liking, cost = rank
        spare = self._spare(one.lot, one.likeness)
        return (0, liking, cost + spare) if spare is not None else (1, liking, cost)

    def _is_allowed(self, offer: Offer, sources: Sources) -> bool:
        if not sources.allows(offer.cloud) or (sources.zones and offer.zone not in sources.zones):
            return False
        if sources.market is Market.SPOT:
            return offer.is_spot or offer.cloud not in self._sells_spot
        return not offer.is_spot or sources.market is not Market.ON_DEMAND

    def _liking(self, offer: Offer, sources: Sources) -> int:
        by_cloud = sources.providers.index(offer.cloud) if sources.providers else 0
        is_second = not offer.is_spot and offer.cloud in self._sells_spot and sources.market is not Market.ON_DEMAND
        return 2 * by_cloud + is_second

    def _spare(self, lot: Lot, kind: Likeness) -> float | None:
        return next((one.cost for one in self._spares[kind] if not one.is_spot or one.lot != lot), None)

    def _cheapest_two(self, kind: Likeness) -> Sequence[Offer]:
        """Return the cheapest offer of a kind, and the cheapest that is not lost together with it."""
        found = sorted((one for one in self.offers if kind.admits(one.likeness)), key=lambda one: (one.cost, str(one)))
        others = (one for one in found if not one.is_spot or one.lot != found[0].lot)
        return (*found[:1], *([other] if (other := next(others, None)) is not None else []))


def _number(one: T, known: dict[T, int]) -> int:
    """Number things in the order in which they are first seen."""
    return known.setdefault(one, len(known))
