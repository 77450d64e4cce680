"""Asks for hosts when there is room for too few; the hosts' reconciler then rents them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from workers.domain.events import Event, Happening
from workers.domain.host import Host, HostState
from workers.domain.job import Job
from workers.domain.names import HostId, host_id
from workers.domain.offer import Assortment
from workers.domain.pools import Policy, Terms
from workers.domain.runner import Quota
from workers.planning.buying import Order, Purchase, least_cost, paying, purchase, ready_hosts
from workers.planning.capacity import CapacityPolicy
from workers.planning.demand import Balance, balance
from workers.planning.fleet import Fleet, is_coming, is_silent
from workers.planning.limits import budgets_left, refusal, within_limits
from workers.planning.paid_time import packed
from workers.planning.placement import invited
from workers.ports import Clock, Hints, Store

# The longest day that a clock on a wall can have, and more.
DAY_MAX: Final = timedelta(hours=26)
NO_POOLS: Final = Policy((), ())


class Buyer:
    """Gathers what waits and what there is, and writes down the hosts that are missing."""

    def __init__(
        self,
        store: Store,
        hints: Hints,
        clock: Clock,
        capacity: CapacityPolicy,
        pools: Callable[[], Policy] = lambda: NO_POOLS,
        offers: Callable[[], Assortment] = Assortment,
        ailing: Callable[[], Collection[str]] = tuple,
    ) -> None:
        """`offers` tells what there is to be had, and `ailing` the clouds from which nothing can be had just now."""
        self._store, self._hints, self._clock = store, hints, clock
        self._capacity, self._pools, self._offers, self._ailing = capacity, pools, offers, ailing

    @property
    def policy(self) -> CapacityPolicy:
        """What may be bought now, and how much is kept ready."""
        ready = ready_hosts(self._capacity, paying(self._pools(), self.refusals()), self._clock.now())
        return replace(self.capacity, ready_hosts=ready)

    @property
    def capacity(self) -> CapacityPolicy:
        """What may be bought now, and what there is."""
        there, ailing = self._offers(), self._ailing()
        sound = tuple(one for one in self._capacity.names if one not in ailing)
        offers = tuple(one for one in there.offers if one.cloud not in ailing)
        if not sound or (there.offers and not offers):  # then a bad cloud is better than none
            sound, offers = self._capacity.names, there.offers
        return replace(self._capacity, clouds=sound, offers=offers, is_told=there.is_told)

    def fleet(self) -> Fleet:
        """Return what there is now."""
        hosts, now = tuple(self._store.hosts.open()), self._clock.now()
        return Fleet(
            hosts=hosts,
            runners=tuple(self._store.runners.open()),
            migrations=tuple(self._store.migrations.open()),
            silent=frozenset(host.id for host in hosts if is_silent(host, now, self._capacity.heartbeat_limit)),
            held=self._store.held(now),
        )

    def balance(self, fleet: Fleet | None = None, jobs: Sequence[Job] | None = None) -> Balance:
        """Return who counts on whom now, which runners are missing, and which are above a pool's limit."""
        seen, now = fleet if fleet is not None else self.fleet(), self._clock.now()
        found = balance(jobs if jobs is not None else self._store.jobs.open(), seen, self._store.tripped(), now)
        return within_limits(found, seen.runners, self._pools(), now)

    def waiting(self) -> Sequence[Job]:
        """Return the jobs for which a runner is to be made."""
        return self.balance().missing

    def invited(self, host: Host) -> Sequence[Job]:
        """Return the jobs that are to look at what a host has left: not all that wait, as most would look in vain."""
        fleet = self.fleet()
        if not fleet.takes(host):
            return ()
        liked = [job for job in self.balance(fleet).missing if job.terms and self._likes(host, job.terms)]
        return invited(fleet.left(host), liked)

    def _likes(self, host: Host, terms: Terms) -> bool:
        """Say whether a host is of a cloud from which these terms may be served."""
        pool = self._pools().pool(terms.pool)
        return pool is None or not pool.sources.providers or host.cloud in pool.sources.providers

    def candidates(self, fleet: Fleet, terms: Terms) -> Sequence[Host]:
        """Return the hosts that can take a runner with these terms now, the pool's favourite clouds first."""
        pool = self._pools().pool(terms.pool)
        found = packed(fleet.candidates(terms.shape), self._capacity.billing_of, self._clock.now())
        if pool is None or not pool.sources.providers:
            return found
        liked = pool.sources.providers
        return sorted((host for host in found if host.cloud in liked), key=lambda host: liked.index(host.cloud))

    def quota(self, job: Job, terms: Terms) -> Quota | None:
        """Return how many runners may be there with the one that is made for this job now; None: any number."""
        pool = self._pools().pool(terms.pool)
        most = pool.runners_max_at(self._clock.now()) if pool is not None else None
        return None if most is None else Quota(terms.pool, job.repository, most)

    def refusal(self, pool: str) -> str | None:
        """Say why no host is bought for this pool now; None if one may be, or if one comes that was bought before."""
        comes = any(host.pool == pool and is_coming(host) for host in self._store.hosts.open())
        return None if comes else self.refusals().get(pool)

    def buy(self, fleet: Fleet | None = None, found: Balance | None = None, at: datetime | None = None) -> None:
        """Ask for the hosts that are missing: now, or by this balance of a fleet that was seen at this moment."""
        seen, at = fleet if fleet is not None else self.fleet(), at if at is not None else self._clock.now()
        for place, order in enumerate(self.plan(seen, found).orders):
            self._ask(_name(seen, at, place), order)

    def plan(self, fleet: Fleet, found: Balance | None = None) -> Purchase:
        """Say which hosts are to be asked for now; nothing is written. `found` is the balance, if that is known."""
        refused, left, policy = self.refusals(), self._left(), self._pools()
        missing = (found if found is not None else self.balance(fleet)).missing
        waiting = [job for job in missing if job.terms and job.terms.pool not in refused]
        return purchase(fleet, waiting, self.capacity, paying(policy, refused), self._clock.now(), left)

    def refusals(self) -> Mapping[str, str]:
        """Return the pools that may buy nothing, and why."""
        now, capacity, left = self._clock.now(), self.capacity, self._left()
        least = least_cost(capacity)
        found = {pool.name: refusal(pool, self._capacity.names, left, least, now) for pool in self._pools().pools}
        return {name: because for name, because in found.items() if because is not None}

    def _left(self) -> Mapping[str, float]:
        """Return what pools that have a budget may still spend today."""
        policy, now = self._pools(), self._clock.now()
        if all(pool.budget is None for pool in policy.pools):
            return {}
        return budgets_left(policy, self._store.hosts_paid(now - DAY_MAX), self._capacity.billing_of, now)

    def _ask(self, name: HostId, order: Order) -> None:
        now, capacity = self._clock.now(), self._capacity
        host = Host(
            id=name,
            cloud=order.cloud,
            state=HostState.REQUESTED,
            requested_at=now,
            spec=order.size or capacity.spec,
            pool=order.pool,
            price=order.price,
            sources=order.sources,
        )
        if self._store.hosts.add(host, Event(Happening.HOST_REQUESTED, now, host_id=name, detail=_terms(order))):
            self._hints.look_at("host", name)


def _name(fleet: Fleet, at: datetime, place: int) -> HostId:
    """Name a host after what was seen when it was found missing.

    Two workers who see the same at the same time choose the same name, so only one of them gets to add it; ten
    seconds later the same sight gives another name.
    """
    tens = int(at.timestamp()) // 10
    sight = " ".join(sorted(host.id for host in fleet.hosts))
    return host_id(hashlib.sha256(f"{tens} {place} {sight}".encode()).hexdigest()[:10])


def _terms(order: Order) -> dict[str, str]:
    """Return for the timeline for whom a host is bought, and what if that was chosen."""
    pool = {"pool": order.pool} if order.pool is not None else {}
    return pool if order.offer is None else {**pool, "offer": str(order.offer), "because": order.because}
