from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.fakes.classes import OF_ANOTHER_VENDOR
from tests.unit.planning.rows import CLASS, NOW, SECOND, SMALL
from workers.domain.host_class import HostClass
from workers.domain.messages import Load
from workers.domain.names import HostId, RunnerId
from workers.domain.runner import Shape
from workers.planning.lanes import USABLE, Errand, Guest, Target, errands, lane_count, line_speed, schedule

ROOM = Shape(8, 8192, 65536)


def guest(name: str = "r", memory_mib: float = 300, **more: object) -> Guest:
    return replace(Guest(RunnerId(name), SMALL, Load(memory_mib, 0, 0)), **more)  # type: ignore[arg-type]


def target(name: str = "b", **more: object) -> Target:
    return replace(Target(HostId(name), CLASS, ROOM, line_mib_s=100.0), **more)  # type: ignore[arg-type]


def chosen(one: Guest, *targets: Target, source: HostClass | None = CLASS) -> str | None:
    (errand,) = errands(source, [one], targets)
    return None if errand.target is None else errand.target.host_id


def test_the_fullest_host_that_has_room_is_taken() -> None:
    full = replace(SMALL, memory_mib=SMALL.memory_mib - 1)
    assert chosen(guest(), target("empty"), target("half", room=SMALL), target("full", room=full)) == "half"


def test_the_own_cloud_comes_before_another_and_a_fast_line_before_a_slow_one() -> None:
    assert chosen(guest(), target("far", is_near=False, line_mib_s=999.0), target("near")) == "near"
    assert chosen(guest(), target("slow"), target("zoom", line_mib_s=101.0)) == "zoom"


@pytest.mark.parametrize(("before", "then"), [("", "b"), ("b", "c"), ("bc", "d"), ("bcd", "b"), ("cdb", "c")])
def test_targets_that_have_failed_come_last_the_latest_of_all(before: str, then: str) -> None:
    one = guest(tried=tuple(HostId(name) for name in before))
    assert chosen(one, target("b"), target("c"), target("d")) == then
    assert chosen(one, target("b")) == "b"


def test_only_a_host_that_can_run_it_is_taken() -> None:
    other = OF_ANOTHER_VENDOR
    assert chosen(guest(), target("d", host_class=other), target("e", host_class=None)) is None
    assert chosen(guest(), target(), source=None) is None
    assert chosen(guest(), target(host_class=replace(CLASS, monitor_version="8.0"))) is None
    assert chosen(guest(), target(host_class=replace(CLASS, monitor_version="10.0"))) == "b"


def test_two_share_a_line_of_a_gigabit_and_more_a_faster_one() -> None:
    assert [lane_count(119, moves) for moves in (0, 1, 2, 6)] == [1, 1, 2, 2]
    assert lane_count(1192, 20) == 8


def test_the_smallest_goes_first_and_shares_add_up_to_the_usable_line() -> None:
    wanted = [Errand(guest(name, memory), target()) for name, memory in (("c", 500), ("a", 100), ("b", 300))]
    slots = schedule(wanted, 100.0, (), NOW)
    assert [slot.errand.guest.runner_id for slot in slots] == ["a", "b", "c"]
    assert [slot.begins_at for slot in slots] == [NOW, NOW, slots[0].ends_at]
    assert {slot.share_mib_s for slot in slots} == {100 * USABLE / 2}


def test_a_move_that_has_begun_keeps_its_lane() -> None:
    wanted = [Errand(guest(name), target()) for name in "ab"]
    slots = schedule(wanted, 100.0, [NOW + 7 * SECOND], NOW)
    assert [slot.begins_at for slot in slots] == [NOW, NOW + 7 * SECOND]
    both = [NOW + 7 * SECOND, NOW + 9 * SECOND]
    assert [slot.begins_at - NOW for slot in schedule(wanted, 100.0, both, NOW)] == [7 * SECOND, 9 * SECOND]


def test_what_is_put_off_goes_after_the_largest_and_not_before_it_may() -> None:
    later = NOW + timedelta(minutes=5)
    wanted = [Errand(guest("a", 10), None, put_off=True), Errand(guest("b", 900), target())]
    wanted.append(Errand(guest("c", 1), target(), put_off=True, not_before=later))
    slots = schedule(wanted, 100.0, (), NOW, lanes_max=1)
    assert [slot.errand.guest.runner_id for slot in slots] == ["b", "a", "c"]
    assert slots[2].begins_at == later


def test_nobody_gets_more_than_the_way_to_its_target_carries() -> None:
    targets = [target("near", line_mib_s=200.0), target("far", is_near=False, line_mib_s=20.0)]
    (slot,) = schedule([Errand(guest(), targets[1])], line_speed(targets), (), NOW)
    assert slot.share_mib_s == 20
