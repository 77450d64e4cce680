from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.fakes.classes import VIRTUALIZED
from tests.unit.planning.rows import MINUTE, NOW, SMALL, SPEC, a_host, a_move, a_runner
from workers.domain.host import Host, HostState
from workers.domain.market import SpotPool
from workers.domain.names import HostId, RunnerId
from workers.domain.offer import Offer
from workers.domain.overlay import GuestNetwork
from workers.domain.runner import Runner, RunnerState
from workers.domain.whereabouts import Machine
from workers.planning.capacity import CapacityPolicy
from workers.planning.emptying import empty_by, to_empty
from workers.planning.fleet import Fleet

POLICY = CapacityPolicy("fake", SPEC, ready_hosts=0, hosts_max=9)
# Its quarter of an hour ends in two and a half minutes; those that came a minute later have time.
SOON = NOW + 12 * MINUTE + MINUTE / 2


def later(name: str) -> Host:
    return replace(a_host(name), requested_at=NOW + 5 * MINUTE)


def emptied(*hosts: Host, runners: tuple[Runner, ...] = (a_runner("r", "a"),), policy: CapacityPolicy = POLICY) -> str:
    found = to_empty(Fleet(hosts, runners), policy, SOON)
    return found.id if found is not None else ""


def test_a_host_whose_period_ends_is_emptied_if_its_guests_fit_elsewhere() -> None:
    assert emptied(a_host(), later("b")) == "a"
    assert empty_by(a_host(), POLICY, SOON) == NOW + 14 * MINUTE
    assert emptied(later("a"), later("b")) == ""
    assert emptied(a_host()) == ""
    full = (a_runner("r", "a"), a_runner("s", "b"), a_runner("t", "b"))
    assert emptied(a_host(), later("b"), runners=full) == ""
    assert emptied(a_host(), a_host("b")) == "", "the other one goes as soon"


def test_the_emptiest_goes_first_and_an_empty_one_needs_no_moves() -> None:
    runners = (a_runner("r", "a"), a_runner("s", "a"), a_runner("t", "b"))
    assert emptied(a_host(), a_host("b"), later("c"), runners=runners) == "b"
    assert emptied(a_host(), a_host("b"), later("c"), runners=runners[:2]) == "a"


@pytest.mark.parametrize(
    "change",
    [
        lambda one: replace(one, network=GuestNetwork.NAT),
        lambda one: replace(one, state=RunnerState.BOOTING),
    ],
)
def test_a_guest_that_a_move_would_hurt_stays(change: Callable[[Runner], Runner]) -> None:
    assert emptied(a_host(), later("b"), runners=(change(a_runner("r", "a")),)) == ""


def test_a_guest_that_is_held_stays() -> None:
    fleet = Fleet((a_host(), later("b")), (a_runner("r", "a"),), held={RunnerId("r"): SOON + MINUTE})
    assert to_empty(fleet, POLICY, SOON) is None


def test_nothing_is_emptied_while_anything_else_moves() -> None:
    fleet = Fleet((a_host(), later("b")), (a_runner("r", "a"),))
    assert to_empty(fleet, POLICY, SOON) is not None
    assert to_empty(replace(fleet, migrations=(a_move(),)), POLICY, SOON) is None
    leaving = replace(later("c"), state=HostState.DRAINING, deadline_at=SOON + MINUTE)
    busy = replace(fleet, hosts=(*fleet.hosts, leaving), runners=(*fleet.runners, a_runner("s", "c")))
    assert to_empty(busy, POLICY, SOON) is None


def test_guests_go_only_where_their_class_goes() -> None:
    other = replace(VIRTUALIZED, processor=replace(VIRTUALIZED.processor, vendor="AuthenticAMD"))
    assert emptied(a_host(), replace(later("b"), host_class=other)) == ""


def test_hosts_that_are_kept_ready_stay() -> None:
    assert emptied(a_host(), later("b"), policy=replace(POLICY, ready_hosts=1)) == "a"
    assert emptied(a_host(), later("b"), policy=replace(POLICY, ready_hosts=2)) == ""


def test_what_a_notice_may_take_away_keeps_its_room_elsewhere() -> None:
    """Each of the two is where the other one's guest would go."""

    def of(zone: str, host: Host) -> Host:
        return replace(host, machine=Machine(zone=zone, instance_type="large", lifecycle="spot"))

    offers = tuple(Offer("fake", "r", zone, "large", SPEC, 0.1, is_spot=True) for zone in "xy")
    assert offers[0].lot.pool == SpotPool("large", "x")
    hosts, policy = (of("x", a_host()), of("y", later("b"))), replace(POLICY, offers=offers)
    assert emptied(*hosts, policy=policy) == ""
    assert emptied(*hosts, policy=replace(policy, keeps_room=False)) == "a"
    assert emptied(*hosts, of("x", later("c")), policy=policy) == "a", "room enough without it"
    assert SMALL.memory_mib * 2 == SPEC.memory_mib


def test_only_the_last_minutes_count() -> None:
    fleet = Fleet((a_host(), later("b")), (a_runner("r", "a"),))
    due = [minute for minute in range(16) if to_empty(fleet, POLICY, NOW + timedelta(minutes=minute))]
    assert due == [12, 13]
    assert HostId("a") == a_host().id
