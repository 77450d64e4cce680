from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.planning.rows import MINUTE, NOW, SECOND, SMALL, SPEC, a_host, a_runner
from workers.domain.host import Host
from workers.planning.capacity import CapacityPolicy, is_surplus
from workers.planning.fleet import Fleet
from workers.planning.paid_time import (
    BY_THE_HOUR,
    BY_THE_SECOND,
    Billing,
    is_at_its_end,
    is_ending,
    packed,
    paid_for,
)

HOUR = 60 * MINUTE
LOOK = 15 * SECOND
DAYS_LOOK = 30 * SECOND
NAMES = "abcdefgh"
BILLINGS = st.sampled_from([BY_THE_HOUR, BY_THE_SECOND])
MOMENTS = st.timedeltas(timedelta(0), timedelta(days=3)).map(lambda age: NOW + age)


@given(MOMENTS, BILLINGS)
def test_something_is_always_paid_for_and_a_period_at_most(now: datetime, billing: Billing) -> None:
    left = paid_for(a_host(), billing, now)
    assert timedelta(0) < left <= billing.period
    assert (now + left - NOW) % billing.period == timedelta(0), "it ends where a period ends"


@given(MOMENTS, BILLINGS)
def test_whoever_looks_every_quarter_of_a_minute_misses_no_end(now: datetime, billing: Billing) -> None:
    """Of the looks before the end of a period some see it, and those after it do not see it any more."""
    end = now + paid_for(a_host(), billing, now)
    looks = [end - offset * LOOK for offset in range(1, 5)]
    assert all(is_at_its_end(a_host(), billing, one) for one in looks)
    assert not is_at_its_end(a_host(), billing, end)
    assert not is_at_its_end(a_host(), billing, end - billing.last - SECOND)


@given(st.lists(st.integers(0, 59), min_size=1, max_size=8), MOMENTS, BILLINGS)
def test_hosts_that_are_ending_are_filled_last_and_the_others_as_before(
    ages: list[int], now: datetime, billing: Billing
) -> None:
    hosts = [a_host_of(name, age) for name, age in zip(NAMES, ages, strict=False)]
    found = packed(hosts, lambda _: billing, now)
    ending = [is_ending(host, billing, now) for host in found]
    assert ending == sorted(ending)
    for kind in (False, True):
        same = [host for host in hosts if is_ending(host, billing, now) is kind]
        assert [host for host in found if is_ending(host, billing, now) is kind] == same
    if billing is BY_THE_SECOND:
        assert found == hosts


def test_a_job_goes_where_an_hour_is_paid_for_even_if_the_other_host_is_fuller() -> None:
    old, young = a_host("a"), replace(a_host("b"), requested_at=NOW + 40 * MINUTE)
    fleet = Fleet((old, young), (a_runner("r", "a"),))
    now = NOW + 50 * MINUTE
    assert [one.id for one in fleet.candidates(SMALL)] == ["a", "b"]
    assert [one.id for one in packed(fleet.candidates(SMALL), lambda _: BY_THE_HOUR, now)] == ["b", "a"]


@pytest.mark.parametrize(
    ("minute", "goes"), [(14.5, False), (40, False), (56.5, False), (57, True), (59.9, True), (60, False)]
)
def test_an_empty_host_stays_for_the_hour_that_is_paid(minute: float, *, goes: bool) -> None:
    policy = CapacityPolicy("hetzner", SPEC, ready_hosts=0, hosts_max=3, billing=BY_THE_HOUR)
    assert is_surplus(a_host(), Fleet((a_host(),), ()), policy, NOW + minute * MINUTE) is goes


# ---------------------------------------------------------------- a day of work


@dataclass
class Day:
    """Hosts that are filled, emptied and given back by the decisions, a look every half minute."""

    policy: CapacityPolicy
    order: Callable[[Fleet, datetime], list[Host]]
    hosts: list[Host] = field(default_factory=list)
    jobs: dict[str, tuple[str, datetime]] = field(default_factory=dict)
    """Runner -> its host, and when it is done."""
    ended: list[tuple[Host, datetime]] = field(default_factory=list)
    made: int = 0

    def fleet(self) -> Fleet:
        return Fleet(tuple(self.hosts), tuple(a_runner(key, host) for key, (host, _) in self.jobs.items()))

    def look(self, now: datetime, wanted: list[int]) -> None:
        self.jobs = {key: (host, done_at) for key, (host, done_at) in self.jobs.items() if done_at > now}
        for minutes in wanted:
            self.place(now, minutes * MINUTE)
        for host in list(self.hosts):
            if is_surplus(host, self.fleet(), self.policy, now):
                self.hosts.remove(host)
                self.ended.append((host, now))

    def place(self, now: datetime, takes: timedelta) -> None:
        found = self.order(self.fleet(), now)
        if not found:
            found = [replace(a_host(f"a{len(self.ended) + len(self.hosts)}"), requested_at=now)]
            self.hosts += found
        self.made += 1
        self.jobs[f"r{self.made}"] = (found[0].id, now + takes)

    def paid_hours(self) -> int:
        return sum(-((host.requested_at - end) // HOUR) for host, end in self.ended)


def a_host_of(name: str, minutes: float) -> Host:
    return replace(a_host(name), requested_at=NOW - minutes * MINUTE)


def packing(fleet: Fleet, now: datetime) -> list[Host]:
    return packed(fleet.candidates(SMALL), lambda _: BY_THE_HOUR, now)


def filling(fleet: Fleet, now: datetime) -> list[Host]:
    return list(fleet.candidates(SMALL))


def passed(work: list[tuple[int, int]], order: Callable[[Fleet, datetime], list[Host]], ready: int = 0) -> Day:
    """Let six hours pass; `work` is (the minute in which a job comes, how many minutes it takes)."""
    day, idle = Day(CapacityPolicy("hetzner", SPEC, ready, hosts_max=50, billing=BY_THE_HOUR), order), set[str]()
    for step in range(6 * 60 * 2):
        now = NOW + step * DAYS_LOOK
        day.look(now, [takes for minute, takes in work if minute * 2 == step])
        check(day, idle, now)
        idle = {host.id for host in day.hosts if not day.fleet().runners_of(host.id)}
    return day


def check(day: Day, idle: set[str], now: datetime) -> None:
    """`idle` are the hosts that were empty after the look before."""
    there = {host.id for host in day.hosts}
    assert all(host in there for host, _ in day.jobs.values()), "a host was given back under a job"
    begun = [one for one in day.hosts if one.id in idle and (now - one.requested_at) % HOUR < DAYS_LOOK]
    assert len(begun) <= day.policy.ready_hosts, "an hour was begun for a host that nobody needs"


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 230), st.integers(1, 55)), max_size=12), st.integers(0, 1))
def test_no_hour_is_begun_for_an_empty_host_and_none_is_wasted(work: list[tuple[int, int]], ready: int) -> None:
    day = passed(work, packing, ready)
    for host, ended_at in day.ended:
        assert paid_for(host, BY_THE_HOUR, ended_at) <= BY_THE_HOUR.last, "it was given back with time left"
    assert len(day.hosts) <= ready
    assert len(day.ended) + len(day.hosts) <= len(work)


def test_packing_lets_a_host_run_empty_at_the_end_of_its_hour() -> None:
    """In minute 50 the first host is the fuller one, and the second one, made in minute 30, has time left."""
    work = [(0, 52), (20, 25), (30, 5), (50, 20)]
    packs, fills = passed(work, packing), passed(work, filling)
    assert (packs.paid_hours(), fills.paid_hours()) == (2, 3)
