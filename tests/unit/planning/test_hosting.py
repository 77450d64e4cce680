from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.unit.planning.rows import MINUTE, NOW, SECOND, a_host, a_move, a_runner
from workers.domain.host import Host, HostState
from workers.domain.migration import Ports
from workers.domain.runner import Shape
from workers.domain.whereabouts import Machine, Whereabouts
from workers.planning.hosting import (
    ALL_CUT_OFF_LIMIT,
    CUT_OFF_LIMIT,
    LAUNCH_LIMIT,
    PREPARE_LIMIT,
    HostSeen,
    HostStep,
    is_past_deadline,
    next_step,
)
from workers.planning.orders import boot_order, move_order, stood_s, whereabouts

H = HostState


def step(host: Host, after: float = 0, **what: bool) -> HostStep:
    facts = {"is_used": False, "is_surplus": False, "is_told_dead": False} | what
    seen = HostSeen(host, facts["is_used"], facts["is_surplus"], facts["is_told_dead"])
    return next_step(seen, NOW + after * SECOND)


def test_a_host_is_launched_for_so_long_and_then_given_up() -> None:
    assert step(a_host(state=H.REQUESTED)) is HostStep.LAUNCH
    assert step(a_host(state=H.REQUESTED), LAUNCH_LIMIT / SECOND + 1) is HostStep.GIVE_UP


@pytest.mark.parametrize("state", [H.LAUNCHING, H.PREPARING])
def test_a_host_that_never_gets_ready_is_lost(state: HostState) -> None:
    host = replace(a_host(state=state), heartbeat_at=None)
    assert step(host, PREPARE_LIMIT / SECOND) is HostStep.WAIT
    assert step(host, PREPARE_LIMIT / SECOND + 1) is HostStep.LOSE
    assert step(replace(host, deadline_at=NOW + MINUTE)) is HostStep.GIVE_UP


@pytest.mark.parametrize("state", [H.READY, H.DRAINING])
def test_a_host_is_lost_when_the_cloud_says_so(state: HostState) -> None:
    assert step(a_host(state=state), is_told_dead=True) is HostStep.LOSE


@pytest.mark.parametrize("state", [H.READY, H.DRAINING])
def test_a_silent_host_that_the_cloud_calls_running_is_lost_late(state: HostState) -> None:
    """Its jobs go on while it is cut off, or while we are; and if nobody is heard, then it is we who are."""

    def judged(silent_for: timedelta, *, others_are_heard: bool) -> HostStep:
        facts = HostSeen(a_host(state=state), True, False, False, silent_for, others_are_heard)
        return next_step(facts, NOW)

    assert judged(CUT_OFF_LIMIT, others_are_heard=True) is not HostStep.LOSE
    assert judged(CUT_OFF_LIMIT + SECOND, others_are_heard=True) is HostStep.LOSE
    assert judged(ALL_CUT_OFF_LIMIT, others_are_heard=False) is not HostStep.LOSE
    assert judged(ALL_CUT_OFF_LIMIT + SECOND, others_are_heard=False) is HostStep.LOSE


def test_a_ready_host_drains_for_a_notice_or_because_nobody_needs_it() -> None:
    assert step(a_host()) is HostStep.WAIT
    assert step(a_host(deadline_at=NOW + MINUTE)) is HostStep.DRAIN
    assert step(a_host(), is_surplus=True) is HostStep.DRAIN


def test_a_draining_host_is_emptied_and_then_let_go() -> None:
    noticed = a_host(state=H.DRAINING, deadline_at=NOW + MINUTE)
    assert step(noticed, is_used=True) is HostStep.EVACUATE
    assert step(noticed) is HostStep.GIVE_UP


def test_a_host_without_a_notice_that_got_work_while_it_drained_comes_back() -> None:
    assert step(a_host(state=H.DRAINING), is_used=True) is HostStep.REOPEN
    assert step(a_host(state=H.DRAINING)) is HostStep.GIVE_UP


@pytest.mark.parametrize("state", [H.LOST, H.TERMINATING])
def test_a_lost_host_is_terminated_so_that_nothing_keeps_billing(state: HostState) -> None:
    assert step(a_host(state=state), is_used=True) is HostStep.TERMINATE


def test_a_terminated_host_needs_nothing() -> None:
    assert step(a_host(state=H.TERMINATED), 1000) is HostStep.WAIT


def test_a_deadline_is_past_only_after_it() -> None:
    host = a_host(deadline_at=NOW)
    assert not is_past_deadline(host, NOW)
    assert is_past_deadline(host, NOW + SECOND)
    assert not is_past_deadline(a_host(), NOW + MINUTE)


def test_orders_say_what_the_runner_will_be_at_the_commit() -> None:
    runner = replace(a_runner(), epoch=3)
    assert boot_order(runner, a_host()).epoch == 3
    row = replace(a_move(), epoch=4, ports=Ports(1, 2), deadline_at=NOW + MINUTE)
    order = move_order(row, runner, a_host("b"), NOW + 20 * SECOND)
    assert (order.runner.epoch, order.moves, order.seconds_left) == (4, 3, 40.0)
    assert (order.peer, order.peer_address, order.ports) == ("b", "10.90.0.98", Ports(1, 2))
    assert move_order(row, runner, a_host("b"), NOW + 2 * MINUTE).seconds_left == 0.0


MACHINE = Machine("eu-central-1", "eu-central-1b", "c7i.2xlarge", "spot", 0.4)


@pytest.mark.parametrize(
    ("shape", "price"),
    [
        (Shape(1, 512, 1), 0.1),  # a quarter of either
        (Shape(1, 1024, 1), 0.2),  # half of the memory
        (Shape(4, 512, 1), 0.4),
        (Shape(8, 512, 1), 0.4),  # never more than all of it
    ],
)
def test_a_guest_is_told_where_it_is_and_what_its_part_costs(shape: Shape, price: float) -> None:
    told = whereabouts(shape, replace(a_host(), machine=MACHINE))
    assert (told.provider, told.machine) == ("fake", MACHINE)
    assert told.usd_per_hour == pytest.approx(price)


def test_what_is_not_known_of_a_host_is_not_made_up() -> None:
    assert whereabouts(Shape(1, 1, 1), None) == Whereabouts()
    assert whereabouts(Shape(1, 1, 1), a_host()) == Whereabouts("fake")
    priceless = replace(MACHINE, usd_per_hour=None)
    assert whereabouts(Shape(1, 1, 1), replace(a_host(), machine=priceless)).usd_per_hour is None


def test_both_sides_of_a_move_are_told_of_the_host_that_the_guest_comes_to() -> None:
    target = replace(a_host("b"), machine=MACHINE)
    for peer in (a_host("a"), target):
        order = move_order(a_move(), a_runner(), peer, NOW, target=target)
        assert order.runner.whereabouts.machine == MACHINE
        assert order.stood_s is None


def test_a_guest_that_lay_in_the_store_has_stood_since_it_was_stopped() -> None:
    parked = replace(a_runner(), parked_at=NOW)
    park = replace(a_move(), target_id=None, figures={"stopped_at": 5.0, "stored_at": 17.5})
    assert stood_s(parked, park, NOW + MINUTE) == 72.5
    assert stood_s(parked, replace(park, figures={}), NOW + MINUTE) is None
    assert stood_s(a_runner(), park, NOW + MINUTE) is None
    resume = replace(a_move(), source_id=None, park_id=park.id)
    assert move_order(resume, parked, None, NOW + MINUTE, stored=park).stood_s == 72.5
