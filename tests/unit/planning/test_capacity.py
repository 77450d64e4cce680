from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.unit.planning.rows import MINUTE, NOW, SECOND, SMALL, SPEC, a_host, a_job, a_runner
from workers.domain.host import Host, HostState
from workers.domain.labels import Interrupt
from workers.domain.names import MigrationId, PackageDigest
from workers.domain.overlay import GuestNetwork
from workers.domain.pools import Policy, Terms
from workers.domain.runner import RunnerState, Shape
from workers.planning.buying import orders
from workers.planning.capacity import CapacityPolicy, is_surplus
from workers.planning.fleet import Fleet

POLICY = CapacityPolicy("fake", SPEC, ready_hosts=0, hosts_max=3)
LEAVING = a_host("a", HostState.DRAINING, NOW + MINUTE)


def wanted(*hosts: Host, waiting: int = 0, policy: CapacityPolicy = POLICY, busy: int = 0) -> int:
    runners = tuple(a_runner(str(number), "a") for number in range(busy))
    return asked_for(Fleet(hosts, runners), [SMALL] * waiting, policy)


def asked_for(fleet: Fleet, shapes: Sequence[Shape], policy: CapacityPolicy) -> int:
    """Return how many hosts are asked for when jobs of these shapes wait."""
    terms = [
        Terms("ci", PackageDigest("sha256:00"), "debian-12", one, GuestNetwork.RELAY, Interrupt.MOVE) for one in shapes
    ]
    jobs = [replace(a_job(number), terms=one) for number, one in enumerate(terms)]
    return len(orders(fleet, jobs, policy, Policy((), ()), NOW))


@pytest.mark.parametrize(("waiting", "hosts"), [(0, 0), (1, 1), (2, 1), (3, 2), (100, 3)])
def test_hosts_are_wanted_for_what_waits_up_to_the_limit(waiting: int, hosts: int) -> None:
    assert wanted(waiting=waiting) == hosts


@pytest.mark.parametrize("state", [HostState.REQUESTED, HostState.LAUNCHING, HostState.PREPARING])
def test_a_host_that_is_coming_is_not_asked_for_again(state: HostState) -> None:
    assert wanted(a_host(state=state), waiting=2) == 0
    assert wanted(a_host(state=state), waiting=3) == 1


def test_what_fits_on_a_ready_host_wants_no_other() -> None:
    assert wanted(a_host(), waiting=1, busy=1) == 0
    assert wanted(a_host(), waiting=2, busy=1) == 1


def test_ready_hosts_are_kept_and_those_with_a_notice_do_not_count() -> None:
    policy = replace(POLICY, ready_hosts=2)
    assert wanted(policy=policy) == 2
    assert wanted(a_host("b"), policy=policy) == 1
    assert wanted(a_host("b"), LEAVING, policy=policy) == 1
    assert wanted(a_host("b"), a_host("c", HostState.PREPARING), policy=policy) == 0


def test_a_guest_that_must_leave_and_fits_nowhere_wants_a_host() -> None:
    assert wanted(LEAVING, busy=1) == 1
    assert wanted(LEAVING, a_host("b"), busy=2) == 0
    assert wanted(LEAVING, a_host("b"), busy=3) == 1


def test_the_last_allowed_host_can_be_evacuated() -> None:
    assert wanted(LEAVING, busy=1, policy=replace(POLICY, hosts_max=1)) == 1


def test_a_guest_that_is_on_its_way_or_has_no_job_wants_no_host() -> None:
    moving = replace(a_runner(), migration_id=MigrationId("m"))
    assert asked_for(Fleet((LEAVING,), (moving, a_runner("i", state=RunnerState.IDLE))), [], POLICY) == 0


def test_what_no_host_could_hold_wants_none() -> None:
    huge = Shape(vcpus=64, memory_mib=1, disk_mib=1)
    assert asked_for(Fleet((), ()), [huge], POLICY) == 0


def test_an_empty_host_that_nobody_needs_goes_at_the_end_of_its_period() -> None:
    fleet = Fleet((a_host(),), ())
    assert is_surplus(a_host(), fleet, POLICY, NOW + 14 * MINUTE + 30 * SECOND)
    assert not is_surplus(a_host(), fleet, POLICY, NOW + 13 * MINUTE)
    assert not is_surplus(a_host(), fleet, POLICY, NOW + 15 * MINUTE)


def test_a_host_that_is_used_or_kept_ready_stays() -> None:
    ends = NOW + 14 * MINUTE + 30 * SECOND
    assert not is_surplus(a_host(), Fleet((a_host(),), (a_runner(),)), POLICY, ends)
    kept = replace(POLICY, ready_hosts=1)
    assert not is_surplus(a_host(), Fleet((a_host(),), ()), kept, ends)
    assert is_surplus(a_host(), Fleet((a_host(), a_host("b")), ()), kept, ends)
