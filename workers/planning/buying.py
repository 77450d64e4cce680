"""What is bought: hosts for what waits, those that are kept ready, and room for what one notice may take away.

guests that must leave ─▶ each pool's jobs ─▶ hosts that are kept ready ─▶ room elsewhere, for the lot that needs most,
                                                                           until any one spot lot could be lost

Each host is bought for one pool, which pays for it and says where it comes from; others use it, too. Hosts are shared,
so the pools' order in the file decides who pays for one that several would use. Every host has the same room, so that
a longer queue never leads to fewer of them; only for a guest that has no place in it a larger one is bought.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from workers.domain.job import Job
from workers.domain.market import ANYWHERE, Lot, Market, Sources
from workers.domain.names import JobId
from workers.domain.offer import ANY, Likeness, Offer, likeness_of
from workers.domain.pools import Policy, Pool
from workers.domain.runner import Shape
from workers.planning.capacity import CapacityPolicy, stranded
from workers.planning.fleet import Fleet, is_leaving
from workers.planning.limits import HOUR
from workers.planning.offers import NOWHERE, Shelf
from workers.planning.rooms import UNTOLD, Rooms, Seat, Shortage, seats_of, shortages, size_for

NO_BUDGETS: Final[Mapping[str, float]] = {}


@dataclass(frozen=True)
class Order:
    """One host that is to be asked for."""

    pool: str | None = None
    """Who pays; None: those that must leave a host, and what the settings keep ready."""
    sources: Sources = ANYWHERE
    offer: Offer | None = None
    """None: nobody has told what there is, so the cloud chooses."""
    price: float | None = None
    """What an hour of it costs, in the currency of the settings; None: not known."""
    because: str = ""
    cloud: str = ""
    """Which it is asked of."""
    size: Shape | None = None
    """What it holds; None: what the settings say of every host."""


@dataclass(frozen=True)
class Purchase:
    """What is to be asked for now, and what would be if anything allowed it."""

    orders: tuple[Order, ...] = ()
    missing: tuple[str, ...] = ()
    """In words for the administrator."""
    unmet: Mapping[JobId, str] = field(default_factory=dict)
    """Why each of these jobs gets no room, though it waits and its pool may buy."""


def orders(
    fleet: Fleet,
    waiting: Sequence[Job],
    capacity: CapacityPolicy,
    policy: Policy,
    now: datetime,
    left: Mapping[str, float] = NO_BUDGETS,
) -> Sequence[Order]:
    """Return the hosts to ask for now."""
    return purchase(fleet, waiting, capacity, policy, now, left).orders


def purchase(
    fleet: Fleet,
    waiting: Sequence[Job],
    capacity: CapacityPolicy,
    policy: Policy,
    now: datetime,
    left: Mapping[str, float] = NO_BUDGETS,
) -> Purchase:
    """Say what to buy. `policy` has only pools that may buy, and nothing waits in those that may not.

    `left` is what pools that have a budget may still spend today: each host is counted as long as it is kept at least.
    What must leave a host comes first, and no budget holds it up.
    """
    basket = _Basket(fleet, capacity, left)
    _fill(basket, fleet, waiting, policy, now)
    if capacity.keeps_room and capacity.offers:
        basket.keep_room(policy)
    return Purchase(tuple(basket.orders), tuple(basket.missing), basket.unmet)


def ready_hosts(capacity: CapacityPolicy, policy: Policy, now: datetime) -> int:
    """Return how many hosts are kept ready now."""
    return capacity.ready_hosts + sum(pool.min_ready_at(now) for pool in policy.pools)


def price_of(offer: Offer | None, capacity: CapacityPolicy, size: Shape | None = None) -> float | None:
    """Return what an hour of a host costs in the currency of the settings; None: not known.

    Where only the usual host's price is known, one of another size counts by as much as it is larger.
    """
    rate, usual = capacity.usd_rate, capacity.spec
    if offer is not None and rate is not None:
        return offer.usd_per_hour / rate
    if capacity.price is None or size is None:
        return capacity.price
    return capacity.price * max(size.vcpus / usual.vcpus, size.memory_mib / usual.memory_mib)


def least_cost(capacity: CapacityPolicy) -> float:
    """Return what the cheapest host costs until it can be given back, 0 if that is not known."""
    told = [(price_of(one, capacity), hours_of(one.cloud, capacity)) for one in capacity.offers]
    untold = [(capacity.price, hours_of(cloud, capacity)) for cloud in capacity.names]
    return min((price * hours for price, hours in told or untold if price is not None), default=0.0)


def hours_of(cloud: str, capacity: CapacityPolicy) -> float:
    """Return how long a host of this cloud is kept at least."""
    return capacity.billing_of(cloud).period / HOUR


def paying(policy: Policy, refused: Collection[str]) -> Policy:
    """Return the pools that may buy."""
    return replace(policy, pools=tuple(pool for pool in policy.pools if pool.name not in refused))


@dataclass(frozen=True)
class _Need:
    """Room for one guest."""

    shape: Shape
    likeness: Likeness
    because: str
    job: JobId | None = None
    """Whom it is for; None: a guest that runs already."""


def _fill(basket: _Basket, fleet: Fleet, waiting: Sequence[Job], policy: Policy, now: datetime) -> None:
    kinds = {package.digest: package.likeness for package in policy.packages}
    by_pool: dict[str | None, list[_Need]] = {None: [], **{pool.name: [] for pool in policy.pools}}
    for job in waiting:
        if (terms := job.terms) is not None:
            need = _Need(terms.shape, kinds.get(terms.package, ANY), "jobs wait", job.id)
            by_pool[terms.pool if terms.pool in by_pool else None].append(need)
    basket.serve(None, [*_leaving(basket, fleet), *by_pool[None]])
    for pool in policy.pools:
        basket.serve(pool, by_pool[pool.name])
    # Last, since whatever was bought until here is ready, too.
    basket.keep_ready(None, basket.capacity.ready_hosts)
    for pool in policy.pools:
        basket.keep_ready(pool, pool.min_ready_at(now))


def _leaving(basket: _Basket, fleet: Fleet) -> Iterator[_Need]:
    """Without offers nobody can choose what kind of host comes, so any is hoped for."""
    for runner in stranded(fleet):
        source = fleet.host(runner.host_id)
        known = likeness_of(source.host_class) if source is not None and basket.capacity.offers else ANY
        yield _Need(runner.shape, known, "guests must leave their host")


@dataclass
class _Basket:
    """What is chosen so far, and how it would be filled."""

    fleet: Fleet
    capacity: CapacityPolicy
    left: Mapping[str, float]
    orders: list[Order] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unmet: dict[JobId, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        capacity, seats = self.capacity, seats_of(self.fleet, self.capacity.offers)
        self.left, self._why = dict(self.left), ""
        self.rooms, self.ready = Rooms(seats), 0
        self.shelves = {
            size: Shelf(
                capacity.offers,
                size,
                keeps_room=capacity.keeps_room,
                hours_of=lambda cloud: hours_of(cloud, capacity),
            )
            for size in capacity.sizes
        }
        for seat in seats:
            if seat.guests and seat.is_spot:
                self._count(seat)
        # Those that leave give their place to those that follow, or the last host could never be evacuated.
        self.most = capacity.hosts_max - sum(not is_leaving(host) for host in self.fleet.hosts)

    def serve(self, pool: Pool | None, needs: Iterable[_Need]) -> None:
        """Place these guests, and buy for those that fit nowhere."""
        in_vain = dict[tuple[Shape, Likeness], str]()
        for need in needs:
            kind = (need.shape, need.likeness)
            if kind not in in_vain and (because := self._room_for(pool, need)) is not None:
                in_vain[kind] = because
            if kind in in_vain and need.job is not None:
                self.unmet[need.job] = in_vain[kind]

    def _room_for(self, pool: Pool | None, need: _Need) -> str | None:
        """Place one guest, on a host that is bought if need be; return why it has no place, None if it has."""
        shape, sizes = need.shape, self.capacity.sizes
        size = size_for((shape,), sizes)
        if size is None:
            return f"it asks for {_said(shape)}, and the hosts that are rented here have {_said(sizes[-1])}"
        if self.rooms.place(shape, need.likeness) is not None:
            return None
        if self._buy(pool, need.likeness, need.because, size) is None:
            return self._why
        return None if self.rooms.place(shape, need.likeness) is not None else "the host that is asked for has no room"

    def keep_ready(self, pool: Pool | None, count: int) -> None:
        """Have so many more hosts that take runners."""
        self.ready += count
        spec, because = self.capacity.spec, "hosts are kept ready"
        while len(self.rooms.seats) < self.ready and self._buy(pool, ANY, because, spec) is not None:
            pass

    def keep_room(self, policy: Policy) -> None:
        """Have room elsewhere for each spot lot's guests, as far as there are offers for it."""
        short = {one.lot: one for one in shortages(self.rooms.seats, self.capacity.sizes)}
        need = {lot: one.hosts for lot, one in short.items()}
        while need and max(need.values()) > 0:
            worst = short[max(need, key=lambda lot: (need[lot], str(lot)))]
            pool = policy.pool(worst.pool) if worst.pool is not None else None
            may_buy = pool is not None or worst.pool is None
            needy = {lot for lot, hosts in need.items() if hosts > 0}
            bought = self._buy_elsewhere(pool, worst, needy) if may_buy else None
            if bought is None:
                del need[worst.lot]
                continue
            for lot in need:
                is_lost_with_it = bought.is_spot and bought.lot == lot
                if not is_lost_with_it and short[lot].is_served(worst.size, bought.likeness):
                    need[lot] -= 1

    def _buy_elsewhere(self, pool: Pool | None, short: Shortage, needy: Collection[Lot]) -> Offer | None:
        sources, because = pool.sources if pool is not None else ANYWHERE, f"room in case {short.lot} is taken back"
        shelf = self.shelves[short.size]
        offer = shelf.elsewhere(sources, short.likeness, short.lot, needy, self._most(pool))
        if offer is None:
            self._miss(f"no offer elsewhere has room for what runs on {short.lot}{self._within(pool)}")
            return None
        return offer if self._order(pool, offer, because, short.size) else None

    def _buy(self, pool: Pool | None, wanted: Likeness, because: str, size: Shape) -> Seat | None:
        sources = pool.sources if pool is not None else ANYWHERE
        offer = self.shelves[size].choose(sources, wanted, self._most(pool))
        if offer is None and (self.capacity.offers or self.capacity.is_told):
            kind = ", ".join(str(part) for part in (wanted.architecture, wanted.acceleration, wanted.vendor) if part)
            whom = f"pool {pool.name}" if pool is not None else "all"
            large = f", {_said(size)}" if size != self.capacity.spec else ""
            self._miss(f"no offer will do for {whom} ({kind or 'any class'}{large}){self._within(pool)}")
            return None
        if not self._order(pool, offer, because, size):
            return None
        seat = self.rooms.seats[-1]
        if seat.is_spot:
            self._count(seat)
        return seat

    def _count(self, seat: Seat) -> None:
        for shelf in self.shelves.values():
            shelf.count(seat.lot, seat.likeness)

    def _order(self, pool: Pool | None, offer: Offer | None, because: str, size: Shape) -> bool:
        name, price = pool.name if pool is not None else None, price_of(offer, self.capacity, size)
        sources = pool.sources if pool is not None else ANYWHERE
        cloud = offer.cloud if offer is not None else self._cloud(sources)
        if len(self.orders) >= self.most:
            self._miss(f"there may be no more than {self.capacity.hosts_max} hosts (SPOT_RUNNER_HOSTS_MAX)")
            return False
        if name is not None and name in self.left and price is not None:
            least = price * hours_of(cloud, self.capacity)
            if least > self.left[name]:
                self._miss(f"another host costs pool {name} more than its budget has left")
                return False
            self.left = {**self.left, name: self.left[name] - least}
        self.orders.append(Order(name, _narrowed(sources, offer), offer, price, because, cloud, size))
        lot = offer.lot if offer is not None else Lot(cloud, UNTOLD)
        likeness = offer.likeness if offer is not None else ANY
        is_spot = offer.is_spot if offer is not None else True
        self.rooms.seats.append(Seat(lot, size, likeness, is_spot, [], name))
        return True

    def _most(self, pool: Pool | None) -> float:
        """Return how many US dollars a host may cost a pool until it can be given back."""
        if pool is None or pool.name not in self.left or self.capacity.usd_rate is None:
            return NOWHERE
        return self.left[pool.name] * self.capacity.usd_rate

    def _cloud(self, sources: Sources) -> str:
        """Return the cloud that chooses by itself: the pool's favourite of those that may be bought from."""
        names = self.capacity.names
        return next((one for one in sources.providers if one in names), names[0])

    def _within(self, pool: Pool | None) -> str:
        return " within its budget" if self._most(pool) < NOWHERE else ""

    def _miss(self, sentence: str) -> None:
        self._why = sentence
        if sentence not in self.missing:
            self.missing.append(sentence)


def _said(shape: Shape) -> str:
    return f"{shape.vcpus} CPUs, {shape.memory_mib} MiB of memory and {shape.disk_mib} MiB of disk"


def _narrowed(sources: Sources, offer: Offer | None) -> Sources:
    """Return where a host is asked for first; what a pool says besides holds if there is none of it."""
    if offer is None:
        return sources
    return replace(sources, market=sources.market if offer.is_spot else Market.ON_DEMAND, pick=offer.lot.pool)
