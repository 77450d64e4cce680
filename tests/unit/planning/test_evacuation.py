"""What the plan promises, first in examples, then for whatever hosts, guests and deadlines there may be."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.classes import OF_ANOTHER_VENDOR
from tests.unit.planning.rows import CLASS, MINUTE, NOW, SECOND, SMALL
from workers.domain.host import fits
from workers.domain.host_class import HostClass, mismatch
from workers.domain.messages import Load
from workers.domain.names import HostId, RunnerId
from workers.domain.runner import Shape
from workers.planning.evacuation import (
    LEAST,
    MARGIN,
    Decision,
    LetFinish,
    Move,
    Park,
    Requeue,
    Situation,
    moves_now,
    plan,
    requeues_now,
)
from workers.planning.fleet import minus
from workers.planning.lanes import USABLE, Guest, Target

ROOM = Shape(8, 8192, 65536)
OTHER = OF_ANOTHER_VENDOR


def guest(name: str = "r", memory_mib: float = 300, **more: object) -> Guest:
    return replace(Guest(RunnerId(name), SMALL, Load(memory_mib, 0, 0)), **more)  # type: ignore[arg-type]


def target(name: str = "b", **more: object) -> Target:
    return replace(Target(HostId(name), CLASS, ROOM, line_mib_s=100.0), **more)  # type: ignore[arg-type]


def seen(*guests: Guest, targets: Sequence[Target] = (), left: timedelta = MINUTE, **more: object) -> Situation:
    whole = Situation(CLASS, NOW + left, guests, tuple(targets))
    return replace(whole, **more)  # type: ignore[arg-type]


def only(one: Situation) -> Decision:
    (decision,) = plan(one, NOW)
    return decision


class TestMoves:
    def test_a_guest_with_a_target_moves_now_with_the_whole_usable_line(self) -> None:
        move = only(seen(guest(), targets=[target()]))
        assert isinstance(move, Move)
        assert (move.target_id, move.starts_at, move.share_mib_s) == ("b", NOW, 100 * USABLE)
        assert move.reason == "5 s at 90 MiB/s"

    def test_a_line_that_was_never_measured_is_not_divided(self) -> None:
        move = only(seen(guest(), targets=[target(line_mib_s=None)]))
        assert isinstance(move, Move)
        assert move.share_mib_s is None

    def test_one_that_would_arrive_too_late_is_only_tried(self) -> None:
        one = seen(guest(), targets=[target()], left=5 * SECOND)
        decision = only(one)
        assert decision == Requeue(RunnerId("r"), NOW + 5 * SECOND, "it would arrive 1 s too late", HostId("b"))
        (move,) = moves_now([decision], one, NOW)
        assert (move.target_id, move.starts_at) == ("b", NOW)
        assert moves_now([decision], replace(one, under_way=(NOW + SECOND,)), NOW) == ()
        assert moves_now([decision], one, NOW + 5 * SECOND - LEAST + 0.1 * SECOND) == ()

    def test_only_whose_turn_has_come_begins(self) -> None:
        one = seen(*(guest(name) for name in "abcd"), targets=[target()])
        decisions = plan(one, NOW)
        assert [move.runner_id for move in moves_now(decisions, one, NOW)] == ["a", "b"]
        assert all(isinstance(decision, Move) for decision in decisions)

    def test_one_alone_on_the_line_is_saved_where_two_at_a_time_would_both_be_late(self) -> None:
        one = seen(guest("a", 600), guest("b", 600), targets=[target()], left=11 * SECOND)
        assert [type(decision) for decision in plan(one, NOW)] == [Move, Requeue]


class TestOthers:
    def test_without_room_it_is_parked_as_late_as_is_safe(self) -> None:
        park = only(seen(guest(), can_park=True))
        assert isinstance(park, Park)
        assert NOW + MINUTE / 2 < park.starts_at < park.ends_at < NOW + MINUTE - MARGIN

    @pytest.mark.parametrize(
        ("targets", "why"),
        [
            ([], "no other host takes guests now"),
            ([target(room=replace(SMALL, disk_mib=0))], "no host has room for it"),
            ([target(host_class=OTHER)], f"no host can run it ({mismatch(CLASS, OTHER)})"),
            ([target(host_class=None)], "no host can run it (their class is not known yet)"),
        ],
    )
    def test_without_target_and_store_it_waits_for_a_host_until_the_deadline(
        self, targets: list[Target], why: str
    ) -> None:
        assert only(seen(guest(), targets=targets)) == Requeue(RunnerId("r"), NOW + MINUTE, why)

    def test_a_job_that_ends_before_its_move_would_is_left_alone(self) -> None:
        soon = guest(ends_at=NOW + 3 * SECOND)
        assert isinstance(only(seen(soon, targets=[target()])), LetFinish)
        assert isinstance(only(seen(guest(ends_at=NOW + MINUTE / 2), targets=[target()])), Move)
        assert isinstance(only(seen(guest(ends_at=NOW + MINUTE / 2))), LetFinish)
        assert isinstance(only(seen(guest(ends_at=NOW + MINUTE))), Requeue)

    def test_who_cannot_be_saved_is_not_stopped_before_the_deadline(self) -> None:
        for one in (seen(guest(may_rerun=True)), seen(guest(may_rerun=True), targets=[target()], left=5 * SECOND)):
            assert isinstance(decision := only(one), Requeue)
            assert requeues_now([decision]) == ()

    def test_a_young_job_is_run_again_rather_than_moved_to_another_cloud(self) -> None:
        young = guest(load=Load(1024, 3600, 0), job_age=90 * SECOND, may_rerun=True)
        far = target("far", is_near=False)
        decision = only(seen(young, targets=[far], left=2 * MINUTE))
        assert isinstance(decision, Requeue)
        assert decision.starts_at == NOW
        assert "costs 750 s" in decision.reason
        assert requeues_now([decision]) == (decision,)
        for other in (
            replace(young, job_age=10 * MINUTE),
            replace(young, may_rerun=False),
            replace(young, load=Load(1024, 2000, 0)),
        ):
            assert isinstance(only(seen(other, targets=[far], left=2 * MINUTE)), Move)
        assert isinstance(only(seen(young, targets=[target()], left=2 * MINUTE)), Move)


class TestHolds:
    def test_a_hold_that_ends_in_time_is_kept(self) -> None:
        until = NOW + MINUTE / 2
        move = only(seen(guest(hold_until=until), targets=[target()]))
        assert isinstance(move, Move)
        assert (move.starts_at, move.breaks_hold_until) == (until, None)

    def test_a_hold_that_does_not_is_broken_as_late_as_is_safe(self) -> None:
        until = NOW + 2 * MINUTE
        move = only(seen(guest(hold_until=until), targets=[target()]))
        assert isinstance(move, Move)
        assert move.breaks_hold_until == until
        assert NOW + MINUTE / 2 < move.starts_at < move.ends_at < NOW + MINUTE - MARGIN

    def test_a_hold_that_is_over_is_none(self) -> None:
        move = only(seen(guest(hold_until=NOW), targets=[target()]))
        assert isinstance(move, Move)
        assert (move.starts_at, move.breaks_hold_until) == (NOW, None)

    def test_who_is_held_waits_for_who_is_not(self) -> None:
        held = guest("a", 1, hold_until=NOW + 2 * MINUTE)
        decisions = plan(seen(held, guest("b", 900), targets=[target()]), NOW)
        assert [decision.runner_id for decision in decisions] == ["b", "a"]

    def test_broken_holds_are_out_of_the_way_when_kept_ones_end(self) -> None:
        kept = [guest(name, hold_until=NOW + 40 * SECOND) for name in "ab"]
        broken = [guest(name, hold_until=NOW + 2 * MINUTE) for name in "cd"]
        decisions = plan(seen(*kept, *broken, targets=[target()]), NOW)
        assert line_is_kept(decisions)
        assert [one.runner_id for one in decisions if isinstance(one, Move) and one.breaks_hold_until] == ["c", "d"]


def line_is_kept(decisions: Sequence[Decision], line_mib_s: float = 100) -> bool:
    """Say whether those that are under way at one moment never have more than the line together."""
    moves = [one for one in decisions if isinstance(one, Move)]
    together = ([one for one in moves if one.starts_at <= at.starts_at < one.ends_at] for at in moves)
    return all(sum(one.share_mib_s or 0 for one in some) <= line_mib_s * USABLE + 1e-6 for some in together)


# ---------------------------------------------------------------- for whatever there may be

# Few different values, so that guests and hosts are alike, ties are common, and rooms are just filled.
moments = st.sampled_from([-10, 5, 20, 60, 400]).map(lambda seconds: NOW + seconds * SECOND)
loads = st.builds(Load, st.sampled_from([50, 500, 2000]), st.sampled_from([0, 300]), st.sampled_from([None, 0, 5, 200]))
shapes = st.builds(Shape, st.just(1), st.sampled_from([512, 1024, 1536]), st.just(4096))
guests = st.lists(
    st.builds(
        Guest,
        st.uuids().map(lambda key: RunnerId(str(key))),
        shapes,
        st.none() | loads,
        st.sampled_from([5, 90, 900]).map(lambda seconds: seconds * SECOND),
        st.booleans(),
        st.none() | moments,
        st.none() | moments,
    ),
    min_size=1,
    max_size=7,
    unique_by=lambda one: one.runner_id,
)
targets = st.lists(
    st.builds(
        Target,
        st.sampled_from("bcdef").map(HostId),
        st.sampled_from([CLASS, CLASS, CLASS, OTHER, None]),
        st.builds(Shape, st.integers(1, 4), st.sampled_from([512, 1024, 2048, 3072]), st.sampled_from([4096, 32768])),
        st.booleans(),
        st.sampled_from([None, 20, 100, 100, 1000]),
    ),
    max_size=4,
    unique_by=lambda one: one.host_id,
)
situations = st.builds(
    Situation,
    st.sampled_from([CLASS, CLASS, CLASS, None]),
    st.integers(0, 300).map(lambda seconds: NOW + seconds * SECOND),
    guests.map(tuple),
    targets.map(tuple),
    st.lists(moments, max_size=3).map(tuple),
    st.booleans(),
)


def saved(decisions: Sequence[Decision]) -> int:
    return sum(not isinstance(decision, Requeue) for decision in decisions)


def can_run(source: HostClass | None, other: HostClass | None) -> bool:
    return source is not None and other is not None and mismatch(source, other) is None


@given(situations)
def test_every_guest_gets_exactly_one_decision(one: Situation) -> None:
    decided = [decision.runner_id for decision in plan(one, NOW)]
    assert sorted(decided) == sorted(guest.runner_id for guest in one.guests)


@given(situations)
def test_nothing_is_planned_past_the_deadline(one: Situation) -> None:
    for decision in plan(one, NOW):
        if isinstance(decision, Move | Park):
            assert NOW <= decision.starts_at < decision.ends_at <= one.deadline_at - MARGIN
        if isinstance(decision, LetFinish):
            (guest,) = (guest for guest in one.guests if guest.runner_id == decision.runner_id)
            assert guest.ends_at is not None
            assert guest.ends_at <= one.deadline_at


@settings(max_examples=200)
@given(situations)
def test_no_target_gets_more_than_it_has_room_for_or_cannot_run(one: Situation) -> None:
    left = {target.host_id: target.room for target in one.targets}
    can = {target.host_id: can_run(one.source, target.host_class) for target in one.targets}
    whose = {guest.runner_id: guest for guest in one.guests}
    for decision in plan(one, NOW):
        goes_to = {Move: "target_id", Requeue: "chance"}.get(type(decision))
        if goes_to and (host := getattr(decision, goes_to)):
            left[host] = minus(left[host], whose[decision.runner_id].shape)
            assert can[host]
            assert fits(Shape(0, 0, 0), left[host])


@settings(max_examples=500)
@given(situations, st.integers(1, 200))
def test_more_time_never_saves_fewer_jobs(one: Situation, more: int) -> None:
    later = replace(one, deadline_at=one.deadline_at + more * SECOND)
    assert saved(plan(later, NOW)) >= saved(plan(one, NOW))


@given(situations, st.randoms())
def test_the_same_is_always_decided_in_whatever_order_the_rows_come(one: Situation, chance: random.Random) -> None:
    guests, targets = list(one.guests), list(one.targets)
    chance.shuffle(guests)
    chance.shuffle(targets)
    again = replace(one, guests=tuple(guests), targets=tuple(targets))
    decided = {decision.runner_id: decision for decision in plan(one, NOW)}
    assert {decision.runner_id: decision for decision in plan(again, NOW)} == decided


@settings(max_examples=300)
@given(situations)
def test_moves_that_are_under_way_together_never_share_more_than_the_line(one: Situation) -> None:
    one = replace(one, under_way=(), targets=tuple(replace(each, line_mib_s=80) for each in one.targets))
    assert line_is_kept(plan(one, NOW), 80)


@pytest.mark.parametrize("left", [0, 1, 2])
def test_with_no_time_left_nothing_moves(left: int) -> None:
    one = seen(guest(), targets=[target()], left=left * SECOND)
    assert moves_now(plan(one, NOW), one, NOW) == ()
