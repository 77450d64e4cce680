"""Offers: each cloud is asked now and then, what it tells is kept in the store, and whoever buys reads it there.

    due ─▶ ask ─┬─ told ─────▶ its offers hold for as long as they are not too old
                └─ not told ─▶ the former ones hold as long, and a cloud without a problem is taken sooner

A cloud that cannot be asked can hardly be bought from either, so it is left out as long as another one sells.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from workers.domain.errors import SpotError
from workers.domain.offer import Assortment, Catalogue
from workers.log import LateLogger
from workers.ports import Clock
from workers.selling import Catalogues, Seller

log: Final = LateLogger()

# Spot prices move by the hour, what Hetzner has by the minute; each look costs a few requests.
READ_AGAIN: Final = timedelta(minutes=5)
RETRY: Final = timedelta(seconds=60)
# What was told so long ago is as good as not told.
OLD: Final = timedelta(hours=1)
# Every decision asks for the offers; the store is read this often at most.
LOOK_INTERVAL: Final = timedelta(seconds=5)


class Stockroom:
    """Gives the offers of now to whoever calls it, and renews them. Safe for threads: doubled looks do no harm."""

    def __init__(self, sellers: Iterable[Seller], kept: Catalogues, clock: Clock, names: Iterable[str] = ()) -> None:
        """`names` are more clouds whose offers are believed: those that only others ask."""
        self._sellers, self._kept, self._clock = {one.name: one for one in sellers}, kept, clock
        self._names = (*self._sellers, *names)
        self._seen: tuple[datetime, Assortment] | None = None

    def __call__(self) -> Assortment:
        """Return what there is to be had now."""
        now = self._clock.now()
        if self._seen is None or not timedelta() <= now - self._seen[0] < LOOK_INTERVAL:
            self._seen = now, assortment(self._names, self._kept.all(), now)
        return self._seen[1]

    def due(self) -> Sequence[str]:
        """Return the clouds that are to be asked again."""
        known, now = self._kept.all(), self._clock.now()
        return [name for name in self._sellers if _is_due(known.get(name), now)]

    def refresh(self, name: str) -> None:
        """Ask one cloud, and keep what it tells. Raises the port's errors; what is wrong is kept first."""
        seller = self._sellers.get(name)
        if seller is None:
            return
        now = self._clock.now()
        try:
            stock = seller.stock()
        except SpotError as error:
            former = self._kept.all().get(name) or Catalogue(name, now)
            self._kept.put(replace(former, tried_at=now, problem=str(error)))
            raise
        finally:
            self._seen = None
        log.info("offers_told", cloud=name, offers=len(stock.offers), remarks=len(stock.remarks))
        self._kept.put(Catalogue(name, now, now, tuple(stock.offers), tuple(stock.remarks)))


def assortment(names: Iterable[str], known: Mapping[str, Catalogue], now: datetime) -> Assortment:
    """Return what there is to be had of these clouds."""
    there = {name: one for name in names if (one := known.get(name)) is not None}
    fresh = [one for one in there.values() if one.told_at is not None and now - one.told_at <= OLD]
    sound = [one for one in fresh if one.problem is None]
    chosen = sound if any(one.offers for one in sound) else fresh
    return Assortment(
        offers=tuple(offer for one in chosen for offer in one.offers),
        remarks=tuple(text for one in there.values() for text in _remarks(one)),
        is_told=bool(fresh),
    )


def _remarks(catalogue: Catalogue) -> Sequence[str]:
    problem = () if catalogue.problem is None else (f"{catalogue.cloud}: its offers are not told: {catalogue.problem}",)
    return (*problem, *catalogue.remarks)


def _is_due(catalogue: Catalogue | None, now: datetime) -> bool:
    if catalogue is None:
        return True
    return now - catalogue.tried_at >= (READ_AGAIN if catalogue.problem is None else RETRY)
