from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.planning.rows import CLASS, MINUTE, NOW, SECOND, a_host, a_move, a_runner
from workers.domain.host import Host, HostState
from workers.domain.messages import Load
from workers.domain.migration import LineSeen, MigrationPhase
from workers.domain.names import HostId, MigrationId, RunnerId
from workers.domain.runner import Runner, RunnerState
from workers.planning.evacuation import Move, Situation, plan
from workers.planning.fleet import Fleet
from workers.planning.leaving import Known, line_between, needs_move, planned, situation

SOURCE = a_host("a", HostState.DRAINING, NOW + MINUTE)
MOVE = Move(RunnerId("r"), HostId("b"), NOW, NOW + MINUTE, 59.5, "it is so")


def seen(*targets: Host, runners: tuple[Runner, ...] = (a_runner(),), known: Known | None = None) -> Situation:
    return situation(SOURCE, NOW + MINUTE, Fleet((SOURCE, *targets), runners), known or Known(), NOW)


@pytest.mark.parametrize("state", list(RunnerState))
def test_only_a_busy_runner_must_leave(state: RunnerState) -> None:
    runners = (a_runner(state=state),)
    assert len(seen(runners=runners).guests) == (state is RunnerState.BUSY) == needs_move(runners[0])


def test_a_runner_that_is_on_its_way_is_not_moved_again() -> None:
    assert seen(runners=(replace(a_runner(), migration_id=MigrationId("m")),)).guests == ()


def test_only_a_host_that_takes_runners_is_a_target_with_what_it_has_left() -> None:
    one = seen(
        a_host("b"),
        a_host("c", HostState.PREPARING),
        a_host("d", deadline_at=NOW + 2 * MINUTE),
        runners=(a_runner("r"), a_runner("s", "b")),
    )
    assert [(target.host_id, target.room.memory_mib) for target in one.targets] == [("b", 1024)]
    assert one.source == CLASS


def test_a_guest_is_what_its_row_its_host_and_its_hold_say() -> None:
    runner, load = replace(a_runner(), idle_at=NOW - MINUTE), Load(300, 5, 1)
    known = Known({runner.id: load}, tried={runner.id: (HostId("b"),)})
    fleet = Fleet((SOURCE,), (runner,), held={runner.id: NOW + SECOND})
    (guest,) = situation(SOURCE, NOW + MINUTE, fleet, known, NOW).guests
    assert (guest.load, guest.tried, guest.job_age) == (load, (HostId("b"),), MINUTE)
    assert guest.hold_until == NOW + SECOND


def test_the_line_is_the_best_from_this_host_or_else_from_its_cloud() -> None:
    lines = [
        LineSeen(HostId("a"), "fake", "fake", 50),
        LineSeen(HostId("a"), "fake", "fake", 60),
        LineSeen(HostId("x"), "fake", "fake", 99),
        LineSeen(HostId("a"), "fake", "other", 7),
    ]
    near, far = a_host("b"), replace(a_host("c"), cloud="other")
    assert line_between(SOURCE, near, lines) == 60
    assert line_between(SOURCE, far, lines) == 7
    assert line_between(SOURCE, near, lines[2:]) == 99
    assert line_between(SOURCE, near, lines[3:]) is None
    assert [target.is_near for target in seen(near, far).targets] == [True, False]


def test_what_is_under_way_keeps_the_line_until_its_commit() -> None:
    row = a_move(MigrationPhase.COPYING)
    runner = replace(a_runner(), migration_id=row.id)
    known = Known({runner.id: Load(119, 0, 0)})
    for phase, ends in ((MigrationPhase.COPYING, [NOW + 3 * SECOND]), (MigrationPhase.COMMITTED, [])):
        fleet = Fleet((SOURCE, a_host("b")), (runner,), (replace(row, phase=phase),))
        assert list(situation(SOURCE, NOW + MINUTE, fleet, known, NOW).under_way) == ends
    late = situation(SOURCE, NOW + MINUTE, Fleet((SOURCE, a_host("b")), (runner,), (row,)), known, NOW + MINUTE / 2)
    assert late.under_way == (NOW + MINUTE / 2 + SECOND,)


def test_from_rows_to_a_move() -> None:
    (move,) = plan(seen(a_host("b")), NOW)
    assert isinstance(move, Move)
    assert (move.runner_id, move.target_id, move.starts_at) == ("r", "b", NOW)


def test_the_row_of_a_move_says_what_comes_after_the_commit() -> None:
    row = planned(MOVE, replace(a_runner(), epoch=4), SOURCE, MigrationId("m"), NOW)
    assert (row.source_id, row.target_id, row.epoch, row.share_mib_s) == ("a", "b", 5, 59.5)
    assert row.deadline_at == SOURCE.deadline_at
