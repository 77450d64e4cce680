"""The spot breaker: two interruptions of a pool within a quarter of an hour, and it rests for half an hour."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fakes.clock import START
from tests.unit.planning.rows import a_host
from workers.domain.host import Host
from workers.domain.market import SpotPool
from workers.domain.whereabouts import Machine
from workers.planning.resting import RestPolicy, resting

POOL = SpotPool("m8i.large", "eu-central-1a")
MACHINE = Machine("eu-central-1", POOL.zone, POOL.instance_type, "spot")
POLICY = RestPolicy()


def taken(minute: float, machine: Machine | None = MACHINE) -> Host:
    return replace(a_host(), machine=machine, deadline_at=START + timedelta(minutes=minute))


@pytest.mark.parametrize(
    ("minutes", "now", "rests"),
    [
        ((), 0, False),
        ((0,), 1, False),
        ((0, 15), 15, True),
        ((0, 15.1), 16, False),
        ((0, 15), 44.9, True),
        ((0, 15), 45, False),
        ((0, 14, 28), 57.9, True),
        ((0, 20, 40), 41, False),
        ((14, 0), 15, True),
    ],
)
def test_a_pool_rests_after_two_interruptions_close_together(
    minutes: tuple[float, ...], now: float, *, rests: bool
) -> None:
    found = resting([taken(one) for one in minutes], POLICY, START + timedelta(minutes=now))
    assert found == (frozenset({POOL}) if rests else frozenset())


def test_pools_are_counted_each_by_itself() -> None:
    elsewhere = [replace(MACHINE, zone="eu-central-1b"), replace(MACHINE, instance_type="m7a.large")]
    assert (
        resting([taken(0), *(taken(1, one) for one in elsewhere)], POLICY, START + timedelta(minutes=2)) == frozenset()
    )


@pytest.mark.parametrize("machine", [None, replace(MACHINE, lifecycle="on-demand"), replace(MACHINE, zone=None)])
def test_only_spot_pools_that_are_known_count(machine: Machine | None) -> None:
    assert resting([taken(0, machine), taken(1, machine)], POLICY, START + timedelta(minutes=2)) == frozenset()


def test_a_host_without_a_notice_does_not_count() -> None:
    hosts = [replace(taken(0), deadline_at=None), taken(1)]
    assert resting(hosts, POLICY, START + timedelta(minutes=2)) == frozenset()


def test_how_many_how_close_and_how_long_can_be_chosen() -> None:
    policy = RestPolicy(3, timedelta(minutes=5), timedelta(minutes=1))
    hosts = [taken(0), taken(2), taken(5)]
    assert resting(hosts, policy, START + timedelta(minutes=5.9)) == {POOL}
    assert resting(hosts, policy, START + timedelta(minutes=6)) == frozenset()
    assert resting(hosts[1:], policy, START + timedelta(minutes=5.9)) == frozenset()


@example([0, 14], 40)
@given(st.lists(st.floats(0, 200), max_size=12), st.floats(0, 250))
def test_what_is_older_than_its_memory_changes_nothing(minutes: list[float], now: float) -> None:
    """So the store need not be asked for more."""
    moment = START + timedelta(minutes=now)
    hosts = [taken(one) for one in minutes if one <= now]
    late = [host for host in hosts if host.deadline_at is not None and host.deadline_at > moment - POLICY.memory]
    assert resting(hosts, POLICY, moment) == resting(late, POLICY, moment)
