from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.planning.rows import CLASS, MINUTE, NOW, SECOND, a_host, a_runner
from workers.domain.host import Host, HostState, fits
from workers.domain.names import HostId, MigrationId, RunnerId
from workers.domain.runner import Runner, RunnerState, Shape
from workers.planning.evacuation import HELD_MIB_S, MOVE_MARGIN, Move, moves_from, planned
from workers.planning.fleet import Fleet, minus

SOURCE = a_host("a", HostState.DRAINING, NOW + MINUTE)


def moves(*targets: Host, runners: tuple[Runner, ...] = (a_runner(),), source: Host = SOURCE) -> tuple[Move, ...]:
    return moves_from(source, Fleet((source, *targets), runners), NOW)


def test_a_busy_runner_goes_to_the_fullest_host_that_has_room() -> None:
    runners = (a_runner("r"), a_runner("x", "half"))
    assert moves(a_host("empty"), a_host("half"), runners=runners) == (Move(RunnerId("r"), HostId("half")),)


@pytest.mark.parametrize("state", [state for state in RunnerState if state is not RunnerState.BUSY])
def test_only_a_busy_runner_is_moved(state: RunnerState) -> None:
    assert moves(a_host("b"), runners=(a_runner(state=state),)) == ()


def test_a_runner_that_is_on_its_way_is_not_moved_again() -> None:
    assert moves(a_host("b"), runners=(replace(a_runner(), migration_id=MigrationId("m")),)) == ()


def test_nothing_goes_to_a_host_that_leaves_or_is_of_another_class() -> None:
    other = replace(CLASS, vendor="AuthenticAMD")
    unfit = (
        a_host("b", HostState.PREPARING),
        a_host("c", deadline_at=NOW + 2 * MINUTE),
        replace(a_host("d"), host_class=other),
        replace(a_host("e"), host_class=None),
    )
    assert moves(*unfit) == ()


def test_an_older_monitor_is_no_target_and_a_newer_one_is() -> None:
    assert moves(replace(a_host("b"), host_class=replace(CLASS, monitor_version="8.0"))) == ()
    assert len(moves(replace(a_host("b"), host_class=replace(CLASS, monitor_version="10.0")))) == 1


def test_no_move_begins_that_cannot_end_in_time() -> None:
    for left, count in ((MOVE_MARGIN, 1), (MOVE_MARGIN - 0.1 * SECOND, 0)):
        assert len(moves(a_host("b"), source=replace(SOURCE, deadline_at=NOW + left))) == count
    assert moves(a_host("b"), source=replace(SOURCE, deadline_at=None)) == ()


def test_targets_that_have_failed_come_last_the_latest_of_all() -> None:
    fleet = Fleet((SOURCE, a_host("b"), a_host("c"), a_host("d")), (a_runner(),))
    for before, target in (("", "b"), ("b", "c"), ("bc", "d"), ("bcd", "b"), ("cdb", "c")):
        tried = {RunnerId("r"): tuple(HostId(name) for name in before)}
        assert [move.target_id for move in moves_from(SOURCE, fleet, NOW, tried)] == [target], before
    alone = Fleet((SOURCE, a_host("b")), (a_runner(),))
    assert [move.target_id for move in moves_from(SOURCE, alone, NOW, {RunnerId("r"): (HostId("b"),)})] == ["b"]


NEEDED = MOVE_MARGIN + 1024 / HELD_MIB_S * SECOND
"""What the move of one small runner takes of the notice when it begins as late as it may."""


def held_moves(left: timedelta, held: dict[str, timedelta], runners: tuple[Runner, ...]) -> tuple[Move, ...]:
    source = replace(SOURCE, deadline_at=NOW + left)
    until = {RunnerId(key): NOW + span for key, span in held.items()}
    return moves_from(source, Fleet((source, a_host("b"), a_host("c")), runners, held=until), NOW)


def test_a_held_runner_stays_until_its_hold_is_over_and_the_others_go() -> None:
    runners = (a_runner("r"), a_runner("s"))
    held = held_moves(2 * MINUTE, {"r": SECOND}, runners)
    assert [move.runner_id for move in held] == ["s"]
    over = held_moves(2 * MINUTE, {"r": 0 * SECOND}, runners)
    assert [(move.runner_id, move.breaks_hold_until) for move in over] == [("r", None), ("s", None)]


def test_the_deadline_breaks_a_hold_just_in_time() -> None:
    for left, count in ((NEEDED + 0.1 * SECOND, 0), (NEEDED, 1)):
        forced = held_moves(left, {"r": MINUTE}, (a_runner(),))
        assert [(move.runner_id, move.breaks_hold_until) for move in forced] == [("r", NOW + MINUTE)][:count]


def test_held_runners_share_the_line_so_that_several_must_begin_earlier() -> None:
    several = tuple(a_runner(name) for name in "rst")
    everybody = dict.fromkeys("rst", MINUTE)
    needed = MOVE_MARGIN + 3 * 1024 / HELD_MIB_S * SECOND
    assert held_moves(needed + 0.1 * SECOND, everybody, several) == ()
    assert len(held_moves(needed, everybody, several)) == 3


def test_a_held_runner_keeps_the_room_that_it_will_need() -> None:
    """The host has room for two, so that the third waits for another host and not the held one."""
    source = replace(SOURCE, deadline_at=NOW + 2 * MINUTE)
    runners = tuple(a_runner(name) for name in "rst")
    fleet = Fleet((source, a_host("b")), runners, held={RunnerId("r"): NOW + MINUTE})
    assert [move.runner_id for move in moves_from(source, fleet, NOW)] == ["s"]


@given(
    sizes=st.lists(st.integers(256, 3000), max_size=8),
    spaces=st.lists(st.integers(0, 4096), max_size=4),
)
def test_no_target_gets_more_than_it_has_room_for(sizes: list[int], spaces: list[int]) -> None:
    hosts = [replace(a_host(f"t{number}"), spec=Shape(100, space, 1 << 20)) for number, space in enumerate(spaces)]
    shapes = {RunnerId(str(number)): Shape(1, size, 4096) for number, size in enumerate(sizes)}
    runners = tuple(replace(a_runner(key), shape=shape) for key, shape in shapes.items())
    left = {host.id: host.spec for host in hosts}
    planned_moves = moves(*hosts, runners=runners)
    for move in planned_moves:
        left[move.target_id] = minus(left[move.target_id], shapes[move.runner_id])
    assert all(fits(Shape(0, 0, 0), one) for one in left.values())
    moved = {move.runner_id for move in planned_moves}
    for key, shape in shapes.items():
        assert key in moved or not any(fits(shape, one) for one in left.values()), "it would have fitted"


def test_the_row_of_a_move_says_what_comes_after_the_commit() -> None:
    row = planned(Move(RunnerId("r"), HostId("b")), replace(a_runner(), epoch=4), SOURCE, MigrationId("m"), NOW)
    assert (row.source_id, row.target_id, row.epoch) == ("a", "b", 5)
    assert row.deadline_at == SOURCE.deadline_at
