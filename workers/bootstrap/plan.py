"""`spot-runner plan`: which hosts would be asked for now, and why. It only reads."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from workers.bootstrap.capacity import capacity_of, offers_of
from workers.bootstrap.policies import Policies
from workers.clock import SystemClock
from workers.domain.offer import Assortment
from workers.planning.buying import Order, Purchase
from workers.planning.fleet import Fleet, is_coming
from workers.reconcilers.capacity import Buyer
from workers.reconcilers.stock import Stockroom
from workers.settings import ControlSettings
from workers.store.repository import SqlStore, open_store


class NoHints:
    """Nobody is told anything: nothing is done."""

    def look_at(self, kind: str, *ids: str) -> None:
        """There is nothing to look at."""


@dataclass(frozen=True)
class Seen:
    """What was found, and what comes of it."""

    waiting: int
    fleet: Fleet
    there: Assortment
    purchase: Purchase
    refused: Mapping[str, str]
    currency: str


def open_buyer(
    settings: ControlSettings, store: SqlStore, policies: Policies, offers: Path | None = None
) -> tuple[Buyer, Callable[[], Assortment]]:
    """Return a buyer that is only asked, and what tells it of offers: a file, or what a worker has kept of the clouds'.

    Raises `BadInput`, or `Unfit` if no cloud is set.
    """
    clock, capacity = SystemClock(), capacity_of(settings)
    kept = Stockroom((), store.catalogues, clock, capacity.names if settings.ask_offers else ())
    told = offers_of(settings, kept, offers)
    return Buyer(store, NoHints(), clock, capacity, policies, told), told


def run_plan(settings: ControlSettings, offers: Path | None, *, as_json: bool) -> int:
    """Print the plan and return 0. Raises `BadInput`, or `Unfit` if no cloud is set."""
    with closing(open_store(settings.database, SystemClock())) as store:
        buyer, told = open_buyer(settings, store, Policies(settings), offers)
        fleet = buyer.fleet()
        found, refused = buyer.balance(fleet), buyer.refusals()
        bought = buyer.plan(fleet, found)
        seen = Seen(len(found.missing), fleet, told(), bought, refused, settings.currency)
    # Thousands of lines, which are to stay as they are: so no console that measures and breaks them.
    sys.stdout.writelines(f"{line}\n" for line in ([json.dumps(_document(seen))] if as_json else lines_of(seen)))
    return 0


def lines_of(seen: Seen) -> Iterator[str]:
    """Yield the plan as people read it, orders that are alike together."""
    ready, coming = _there(seen.fleet)
    yield f"waiting: {seen.waiting} jobs for which a runner is to be made"
    yield f"hosts: {ready} take runners, {coming} are coming"
    yield _offers(seen.there)
    alike = Counter((_what(one), one.pool, one.price, one.because) for one in seen.purchase.orders)
    for (what, pool, price, because), count in alike.items():
        cost = f" at {price:.4f} {seen.currency} an hour" if price is not None else ""
        yield f"buy {count} x {what}{cost}, for {f'pool {pool}' if pool else 'all'}: {because}"
    if not alike:
        yield "buy nothing"
    yield from (f"not offered: {sentence}" for sentence in seen.there.remarks)
    yield from (f"missing: {sentence}" for sentence in seen.purchase.missing)
    yield from (f"refused: {sentence}" for sentence in seen.refused.values())
    yield f"in all: {len(seen.purchase.orders)} hosts, {_sum(seen.purchase)} {seen.currency} an hour"


def _document(seen: Seen) -> dict[str, Any]:
    ready, coming = _there(seen.fleet)
    return {
        "waiting": seen.waiting,
        "hosts": {"ready": ready, "coming": coming},
        "offers": len(seen.there.offers),
        "not_offered": list(seen.there.remarks),
        "orders": [_order(one) for one in seen.purchase.orders],
        "missing": list(seen.purchase.missing),
        "refused": dict(seen.refused),
        "currency": seen.currency,
    }


def _order(order: Order) -> dict[str, Any]:
    offer = order.offer
    chosen = (
        {}
        if offer is None
        else {
            "cloud": offer.cloud,
            "region": offer.region,
            "zone": offer.zone,
            "instance_type": offer.instance_type,
            "market": "spot" if offer.is_spot else "on-demand",
            "usd_per_hour": offer.usd_per_hour,
        }
    )
    size = asdict(order.size) if order.size is not None else None
    return {"pool": order.pool, "because": order.because, "price": order.price, "size": size, "offer": chosen or None}


def _offers(there: Assortment) -> str:
    if there.offers:
        return f"offers: {len(there.offers)}"
    return "offers: none" if there.is_told else "offers: none are told, so the cloud chooses"


def _there(fleet: Fleet) -> tuple[int, int]:
    return sum(fleet.takes(host) for host in fleet.hosts), sum(is_coming(host) for host in fleet.hosts)


def _what(order: Order) -> str:
    return str(order.offer) if order.offer is not None else f"a host that {order.cloud} chooses"


def _sum(purchase: Purchase) -> str:
    prices = [one.price for one in purchase.orders]
    known = sum(price for price in prices if price is not None)
    return f"{known:.4f}" if None not in prices else "an unknown number of"
