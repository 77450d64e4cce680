"""What a pool's limits and budget allow now: which waiting jobs may get a runner, and which pools may buy a host."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from workers.domain.host import Host
from workers.domain.job import Job
from workers.domain.names import JobId
from workers.domain.pools import Policy, Pool
from workers.domain.runner import Runner
from workers.domain.schedule import day_begin, next_day
from workers.planning.aging import refused_packages
from workers.planning.demand import Balance
from workers.planning.paid_time import Billing

HOUR: Final = timedelta(hours=1)


def within_limits(found: Balance, runners: Iterable[Runner], policy: Policy, now: datetime) -> Balance:
    """Take out of what is missing what is above its pool's limit for one repository, the youngest first.

    What would start from a package whose runner program is too old is taken out, too.
    """
    refused = refused_packages(policy, now)
    there = Counter((one.pool, one.repository.lower()) for one in runners)
    missing, deferred = list[Job](), dict[JobId, str]()
    for job in found.missing:
        pool = policy.pool(job.terms.pool) if job.terms is not None else None
        most = pool.runners_max_at(now) if pool is not None else None
        place = (pool.name if pool is not None else "", job.repository.lower())
        if job.terms is not None and job.terms.package in refused:
            deferred[job.id] = refused[job.terms.package]
        elif pool is not None and most is not None and there[place] >= most:
            deferred[job.id] = (
                f"{job.repository} may have {most} runners at once in pool {pool.name}; it gets one when one of them "
                "is done"
            )
        else:
            there[place] += 1
            missing.append(job)
    return replace(found, missing=tuple(missing), deferred=deferred)


def refusal(pool: Pool, clouds: Sequence[str], left: Mapping[str, float], least: float, now: datetime) -> str | None:
    """Say why no host is bought for a pool now, None if one may be.

    `clouds` are those that the deployment rents at, `left` is what `budgets_left` says, and `least` what the cheapest
    host costs until it can be given back.
    """
    if not any(pool.sources.allows(cloud) for cloud in clouds):
        wanted = ", ".join(pool.sources.providers)
        return f"pool {pool.name} wants hosts of {wanted} only, and this deployment rents at {' and '.join(clouds)}"
    budget, rest = pool.budget, left.get(pool.name, 0.0)
    if budget is None or (rest > 0 and rest >= least):
        return None
    # No amounts that change from look to look: whoever waits is told once.
    but = ", but for less than another host costs" if least > 0 else ""
    again = next_day(now, budget.zone).astimezone(budget.zone)
    return (
        f"pool {pool.name} has spent its {budget} of today{but}; no host is bought for it before "
        f"{again:%Y-%m-%d %H:%M} ({budget.zone}), but where there is room its jobs run"
    )


def budgets_left(
    policy: Policy, hosts: Sequence[Host], billing_of: Callable[[str], Billing], now: datetime
) -> dict[str, float]:
    """Return what each pool that has a budget may still spend today.

    `hosts` are those that cost something today; each is kept for a period at least, so what is left of that is spent.
    `billing_of` says how a cloud counts, by its name.
    """
    found = dict[str, float]()
    for pool in policy.pools:
        if pool.budget is not None:
            since = day_begin(now, pool.budget.zone)
            mine = [host for host in hosts if host.pool == pool.name]
            begun = sum(_begun(host, billing_of(host.cloud).period, now) for host in mine)
            found[pool.name] = max(pool.budget.per_day - spent(pool.name, hosts, since, now) - begun, 0.0)
    return found


def spent(pool: str, hosts: Iterable[Host], since: datetime, now: datetime) -> float:
    """Return what the hosts that were bought for a pool have cost since then."""
    return sum(_cost(host, since, now) for host in hosts if host.pool == pool)


def _cost(host: Host, since: datetime, now: datetime) -> float:
    """A host costs from when it was asked for, which is some seconds too much, until the cloud says that it is gone."""
    time = min(host.ended_at or now, now) - max(host.requested_at, since)
    return max(time / HOUR, 0.0) * (host.price or 0.0)


def _begun(host: Host, period: timedelta, now: datetime) -> float:
    """Return what is still to be paid of a host's first period, whether it is needed or not."""
    rest = max(period - (now - host.requested_at), timedelta())
    return rest / HOUR * (host.price or 0.0) if host.ended_at is None else 0.0
