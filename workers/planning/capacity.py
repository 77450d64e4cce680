"""Capacity: what may be bought, who must be housed elsewhere, and which host is given back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from workers.domain.host import Host, HostState, room
from workers.domain.offer import Offer
from workers.domain.runner import Runner, RunnerState, Shape
from workers.planning.fleet import Fleet, is_leaving
from workers.planning.paid_time import BY_THE_SECOND, Billing, is_at_its_end
from workers.planning.rooms import seats_of, shortages


@dataclass(frozen=True)
class CapacityPolicy:
    """What may be bought."""

    cloud: str
    """Where a host is asked for if nothing says otherwise."""
    spec: Shape
    """Of one host, for microVMs: what is bought unless a guest needs more."""
    ready_hosts: int
    hosts_max: int
    heartbeat_limit: timedelta = timedelta(seconds=10)
    """A host that has been silent for longer gets nothing more to do."""
    price: float | None = None
    """What an hour of one host costs; None: not known."""
    billing: Billing = BY_THE_SECOND
    """Of a cloud that is not in `billings`."""
    offers: tuple[Offer, ...] = ()
    """What there is; none: nobody has told, and the cloud chooses."""
    keeps_room: bool = True
    """Room for what runs in one spot lot is kept elsewhere, as far as offers allow it."""
    empties_hosts: bool = False
    """Guests are moved off a host whose paid period ends."""
    usd_rate: float | None = None
    """How many US dollars the settings' currency is worth; None: not known, and every host counts as `price`."""
    clouds: tuple[str, ...] = ()
    """Every cloud that may be bought from now, the best first; none: only `cloud`."""
    billings: Mapping[str, Billing] = field(default_factory=dict)
    """How clouds count what their machines cost, by their names."""
    is_told: bool = False
    """Some cloud has told what it has: what is not among `offers` is not bought, were there none at all."""
    larger: tuple[Shape, ...] = ()
    """Further sizes of hosts, for guests that fit on none of `spec`; the first that holds a guest is bought for it."""

    @property
    def sizes(self) -> tuple[Shape, ...]:
        """Every size that is bought, in the order in which one is looked for that holds a guest."""
        return (self.spec, *self.larger)

    @property
    def names(self) -> tuple[str, ...]:
        """Every cloud that may be bought from."""
        return self.clouds or (self.cloud,)

    def billing_of(self, cloud: str) -> Billing:
        """Return how this cloud counts."""
        return self.billings.get(cloud, self.billing)


def stranded(fleet: Fleet) -> tuple[Runner, ...]:
    """Return the runners that must be moved away, or taken out of the store, and are not on their way yet."""
    leaving = {host.id for host in fleet.hosts if is_leaving(host) and host.state is HostState.DRAINING}
    return tuple(
        one
        for one in fleet.runners
        if (one.is_parked or one.host_id in leaving) and one.state is RunnerState.BUSY and not one.migration_id
    )


def is_surplus(host: Host, fleet: Fleet, policy: CapacityPolicy, now: datetime) -> bool:
    """Say whether this empty host is to be given back now. The caller has seen that no job waits."""
    is_empty = fleet.left(host) == room(host, ())
    others = sum(fleet.takes(one) for one in fleet.hosts if one.id != host.id)
    return (
        fleet.takes(host)
        and is_empty
        and others >= policy.ready_hosts
        and is_at_its_end(host, policy.billing_of(host.cloud), now)
        and not (policy.keeps_room and policy.offers and _is_room(host, fleet, policy))
    )


def _is_room(host: Host, fleet: Fleet, policy: CapacityPolicy) -> bool:
    """Say whether this empty host is where guests would go if some lot were taken back."""
    without = replace(fleet, hosts=tuple(one for one in fleet.hosts if one.id != host.id))
    short, shorter = (
        sum(one.hosts for one in shortages(seats_of(each, policy.offers), policy.sizes)) for each in (fleet, without)
    )
    return shorter > short
