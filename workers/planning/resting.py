"""The spot breaker: a pool that keeps taking machines back rests for a while, and the full price is paid instead.

bought ──taken back──▶ … ──again, within the interval──▶ resting ──after the last one's rest──▶ bought again
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from workers.domain.host import Host
from workers.domain.market import SpotPool

SPOT: Final = "spot"


@dataclass(frozen=True)
class RestPolicy:
    """When a pool rests, and how long."""

    interruptions: int = 2
    interval: timedelta = timedelta(minutes=15)
    """So many within so long."""
    rest: timedelta = timedelta(minutes=30)
    """Counted from the last of them."""

    @property
    def memory(self) -> timedelta:
        """How long an interruption matters."""
        return self.interval + self.rest


def resting(hosts: Iterable[Host], policy: RestPolicy, now: datetime) -> frozenset[SpotPool]:
    """Return the pools that rest now, by the hosts that had a notice; its deadline is the moment that counts."""
    taken: dict[SpotPool, list[datetime]] = {}
    for host in hosts:
        pool = pool_of(host)
        if pool is not None and host.deadline_at is not None:
            taken.setdefault(pool, []).append(host.deadline_at)
    return frozenset(pool for pool, moments in taken.items() if _rests(sorted(moments), policy, now))


def pool_of(host: Host) -> SpotPool | None:
    """Return the spot pool that a host is of, None if of none or if that is not known."""
    machine = host.machine
    if machine is None or machine.lifecycle != SPOT or machine.instance_type is None or machine.zone is None:
        return None
    return SpotPool(machine.instance_type, machine.zone)


def _rests(moments: list[datetime], policy: RestPolicy, now: datetime) -> bool:
    spans = zip(moments, moments[policy.interruptions - 1 :], strict=False)
    return any(last - first <= policy.interval and now < last + policy.rest for first, last in spans)
