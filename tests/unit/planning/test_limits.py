"""Limits and budgets as pure decisions."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.planning.rows import NOW, SMALL, a_host, a_job, a_runner
from workers.domain.host import Host
from workers.domain.job import Job
from workers.domain.labels import Interrupt
from workers.domain.market import Sources
from workers.domain.names import PackageDigest
from workers.domain.overlay import GuestNetwork
from workers.domain.pools import Budget, Policy, Pool, Terms
from workers.planning.buying import orders
from workers.planning.capacity import CapacityPolicy
from workers.planning.demand import Balance
from workers.planning.fleet import Fleet
from workers.planning.limits import budgets_left, refusal, spent, within_limits
from workers.planning.paid_time import BY_THE_HOUR, BY_THE_SECOND

BERLIN = ZoneInfo("Europe/Berlin")
HOUR = timedelta(hours=1)
CAPACITY = CapacityPolicy("fake", a_host().spec, ready_hosts=0, hosts_max=50)


def waiting(number: int, pool: str = "ci", repository: str = "octo/hello") -> Job:
    terms = Terms(pool, PackageDigest("sha256:00"), "debian-12", SMALL, GuestNetwork.RELAY, Interrupt.MOVE)
    return replace(a_job(number), terms=terms, repository=repository)


@given(
    st.lists(st.tuples(st.sampled_from(["ci", "free"]), st.sampled_from(["a/b", "A/B", "c/d"])), max_size=12),
    st.lists(st.tuples(st.sampled_from(["ci", "free"]), st.sampled_from(["a/b", "c/d"])), max_size=6),
    st.integers(1, 4),
)
def test_nobody_gets_more_than_the_limit_and_the_oldest_get_theirs(
    asked: list[tuple[str, str]], there: list[tuple[str, str]], most: int
) -> None:
    policy = Policy((Pool("ci", runners_max=most), Pool("free")), ())
    runners = [
        replace(a_runner(f"r{number}"), pool=pool, repository=repository)
        for number, (pool, repository) in enumerate(there)
    ]
    jobs = [waiting(number, *one) for number, one in enumerate(asked)]
    found = within_limits(Balance(missing=tuple(jobs)), runners, policy, NOW)
    assert {job.id for job in found.missing} | set(found.deferred) == {job.id for job in jobs}
    for repository in ("a/b", "c/d"):
        used = there.count(("ci", repository))
        of_it = [job for job in jobs if job.terms and job.terms.pool == "ci" and job.repository.lower() == repository]
        served = [job for job in of_it if job in found.missing]
        assert served == of_it[: max(0, most - used)], "the oldest come first, and nobody's place is left empty"
    assert all(job in found.missing for job in jobs if job.terms and job.terms.pool == "free")


def test_what_a_host_costs_is_counted_from_midnight_until_it_ends() -> None:
    host = replace(a_host(), pool="ci", price=2.0, requested_at=NOW - 3 * HOUR)
    assert spent("ci", [host], NOW - HOUR, NOW) == pytest.approx(2.0)
    assert spent("ci", [host], NOW - 30 * HOUR, NOW) == pytest.approx(6.0)
    assert spent("ci", [replace(host, ended_at=NOW - HOUR)], NOW - 30 * HOUR, NOW) == pytest.approx(4.0)
    assert spent("ci", [replace(host, ended_at=NOW - 2 * HOUR)], NOW - HOUR, NOW) == 0.0
    assert spent("ci", [replace(host, pool="other"), replace(host, price=None)], NOW - HOUR, NOW) == 0.0


def test_a_budgets_day_is_that_of_its_time_zone() -> None:
    pool = Pool("ci", budget=Budget(3.0, "EUR", BERLIN))
    before_midnight = datetime(2026, 11, 23, 22, 59, tzinfo=UTC)  # 23:59 in Berlin
    host = replace(a_host(), pool="ci", price=1.0, requested_at=before_midnight - 5 * HOUR)
    because = refused(pool, host, before_midnight)
    assert "has spent its 3 EUR of today; no host is bought for it before 2026-11-24 00:00 (Europe/Berlin)" in because
    assert refused(pool, host, before_midnight + timedelta(minutes=2)) == "None"


def refused(pool: Pool, host: Host, now: datetime, least: float = 0.0) -> str:
    left = budgets_left(Policy((pool,), ()), [host], lambda _: BY_THE_SECOND, now)
    return str(refusal(pool, ("fake",), left, least, now))


def test_a_host_is_bought_only_if_the_budget_lasts_until_it_can_be_given_back() -> None:
    pool, host = Pool("ci", budget=Budget(3.0, "EUR")), replace(a_host(), pool="ci", price=4.0)
    assert "has spent its 3 EUR of today, but for less than another host costs;" in refused(pool, host, NOW, 2.5)
    assert refused(pool, host, NOW, 2.0) == "None"
    assert refused(pool, host, NOW + HOUR / 4, 2.0) == "None", "its first quarter of an hour was counted before"
    assert "has spent" in refused(pool, host, NOW + HOUR / 2, 2.0)
    assert refused(pool, host, NOW + HOUR / 2, 1.0) == "None"
    ended = replace(host, ended_at=NOW + HOUR / 10)
    assert budgets_left(Policy((pool,), ()), [ended], lambda _: BY_THE_HOUR, NOW + HOUR / 8) == {
        "ci": pytest.approx(2.6)
    }


def test_clouds_are_told_apart() -> None:
    assert refusal(Pool("ci"), ("fake",), {}, 0.0, NOW) is None
    assert refusal(Pool("ci", sources=Sources(("aws", "fake"))), ("fake",), {}, 0.0, NOW) is None
    assert "wants hosts of aws only" in str(refusal(Pool("ci", sources=Sources(("aws",))), ("fake",), {}, 0.0, NOW))


def test_each_pool_pays_for_what_those_before_it_do_not() -> None:
    policy = Policy((Pool("a"), Pool("b", min_ready=1), Pool("c", min_ready=2)), ())
    jobs = [waiting(number, pool) for number, pool in enumerate(["a", "b", "b", "gone"])]  # two fit on a host
    found = orders(Fleet((), ()), jobs, CAPACITY, policy, NOW)
    assert [order.pool for order in found] == [None, "b", "c"]
    assert [order.pool for order in orders(Fleet((a_host(),), ()), [], CAPACITY, policy, NOW)] == ["c", "c"]


@given(st.lists(st.sampled_from(["a", "b", "c", "gone"]), max_size=12), st.integers(0, 3), st.integers(0, 6))
def test_pools_together_buy_what_is_needed_and_no_more(asked: list[str], ready: int, most: int) -> None:
    policy = Policy((Pool("a"), Pool("b", min_ready=ready), Pool("c")), ())
    jobs = [waiting(number, pool) for number, pool in enumerate(asked)]
    found = orders(Fleet((), ()), jobs, replace(CAPACITY, hosts_max=most), policy, NOW)
    assert len(found) == min(most, max(ready, -(-len(asked) // 2)))
