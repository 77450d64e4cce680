from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.planning.rows import MINUTE, NOW, SECOND, a_host, a_move, a_runner
from workers.domain.errors import IllegalMove
from workers.domain.host import Host, HostState
from workers.domain.migration import Migration, MigrationPhase, Ports
from workers.domain.runner import Runner, RunnerState
from workers.planning.moving import (
    DEADLINE_GRACE,
    RECEIVE_LIMIT,
    Abort,
    MigrationSeen,
    MigrationStep,
    closed,
    copying,
    given_up,
    next_step,
    pointed,
    receiving,
)

P = MigrationPhase
SOURCE = a_host("a", HostState.DRAINING, NOW + MINUTE)
TARGET = a_host("b")
RUNNER = a_runner()
LOST = [HostState.LOST, HostState.TERMINATING]


def seen(
    row: Migration,
    source: Host | None = SOURCE,
    target: Host | None = TARGET,
    runner: Runner | None = RUNNER,
) -> MigrationSeen:
    return MigrationSeen(row, source, target, runner)


def dead(name: str) -> Host:
    return a_host(name, HostState.TERMINATED)


def test_each_phase_has_its_step() -> None:
    assert next_step(seen(a_move(P.PLANNED)), NOW) is MigrationStep.RECEIVE
    assert next_step(seen(a_move(P.RECEIVING)), NOW) is MigrationStep.SEND
    assert next_step(seen(a_move(P.PAUSED)), NOW) is MigrationStep.WAIT
    assert next_step(seen(a_move(P.ABORTED)), NOW) is MigrationStep.WAIT


def test_the_source_is_told_until_it_has_been_seen() -> None:
    assert next_step(seen(a_move(P.COPYING)), NOW) is MigrationStep.SEND
    assert next_step(seen(replace(a_move(P.COPYING), source_seen_at=NOW)), NOW) is MigrationStep.WAIT


@pytest.mark.parametrize("phase", [P.PLANNED, P.RECEIVING, P.COPYING])
@pytest.mark.parametrize("state", LOST)
def test_before_the_pause_the_loss_of_either_host_ends_the_attempt(phase: MigrationPhase, state: HostState) -> None:
    assert next_step(seen(a_move(phase), source=a_host("a", state)), NOW) == Abort("the source is lost")
    assert next_step(seen(a_move(phase), target=a_host("b", state)), NOW) == Abort("the target is lost")


@pytest.mark.parametrize("phase", [P.PLANNED, P.RECEIVING, P.COPYING])
def test_before_the_pause_time_and_need_end_the_attempt(phase: MigrationPhase) -> None:
    row = replace(a_move(phase), planned_at=NOW + MINUTE)
    late = row.deadline_at + DEADLINE_GRACE
    assert not isinstance(next_step(seen(row), late), Abort)
    assert next_step(seen(row), late + SECOND) == Abort("the deadline has passed")
    stopping = a_runner(state=RunnerState.STOPPING)
    assert next_step(seen(row, runner=stopping), NOW) == Abort("the runner is not needed any more")


@pytest.mark.parametrize("phase", [P.PLANNED, P.RECEIVING])
def test_a_target_that_does_not_get_ready_or_leaves_too_is_given_up_early(phase: MigrationPhase) -> None:
    late = NOW + RECEIVE_LIMIT + SECOND
    assert next_step(seen(a_move(phase)), late) == Abort("the target did not get ready")
    leaving = a_host("b", HostState.DRAINING, NOW + MINUTE)
    assert next_step(seen(a_move(phase), target=leaving), NOW) == Abort("the target is taken back too")


def test_what_is_being_copied_goes_on_although_the_target_leaves_too() -> None:
    leaving = a_host("b", HostState.DRAINING, NOW + MINUTE)
    assert next_step(seen(a_move(P.COPYING), target=leaving), NOW + RECEIVE_LIMIT + SECOND) is MigrationStep.SEND


def test_a_paused_guest_waits_for_its_target_even_past_the_deadline_once_its_source_is_gone() -> None:
    late = NOW + 10 * MINUTE
    for source in (dead("a"), a_host("a", HostState.LOST), a_host("a", HostState.TERMINATING)):
        assert next_step(seen(a_move(P.PAUSED), source=source), late) is MigrationStep.WAIT


def test_a_paused_guest_is_given_back_when_its_target_is_lost_or_time_is_over() -> None:
    row = a_move(P.PAUSED)
    assert next_step(seen(row, target=a_host("b", HostState.LOST)), NOW) == Abort("the target is lost")
    assert next_step(seen(row), row.deadline_at + DEADLINE_GRACE + SECOND) == Abort("the deadline has passed")
    assert next_step(seen(row, dead("a"), dead("b")), NOW) == Abort("both hosts are gone")


def test_a_paused_row_without_its_source_is_only_given_up_when_nobody_is_left() -> None:
    row = a_move(P.PAUSED)
    assert given_up(seen(row, source=dead("a")), "no") is row
    assert given_up(seen(row, dead("a"), a_host("b", HostState.LOST)), "no") is row
    assert given_up(seen(row, dead("a"), dead("b")), "no").phase is P.ABORTED
    assert given_up(seen(row), "no").reason == "no"


@pytest.mark.parametrize("phase", [P.COMMITTED, P.FINISHED])
def test_a_committed_row_is_never_given_up(phase: MigrationPhase) -> None:
    row = a_move(phase)
    assert given_up(seen(row, dead("a"), dead("b")), "no") is row
    assert not isinstance(next_step(seen(row, dead("a"), dead("b")), NOW + 10 * MINUTE), Abort)


@pytest.mark.parametrize("phase", [P.COMMITTED, P.FINISHED])
def test_the_relay_is_pointed_once_however_fast_the_hosts_were(phase: MigrationPhase) -> None:
    assert next_step(seen(a_move(phase)), NOW) is MigrationStep.POINT
    assert next_step(seen(pointed(a_move(phase), NOW)), NOW) is MigrationStep.WAIT
    gone = a_runner(state=RunnerState.GONE)
    assert next_step(seen(a_move(phase), runner=gone), NOW) is MigrationStep.WAIT


def test_a_committed_migration_finishes_when_nobody_can_say_more() -> None:
    row = pointed(a_move(P.COMMITTED), NOW)
    runs, wiped = replace(row, running_at=NOW), replace(row, wiped_at=NOW)
    assert next_step(seen(runs), NOW) is MigrationStep.WAIT
    assert next_step(seen(runs, source=dead("a")), NOW) is MigrationStep.FINISH
    assert next_step(seen(runs, source=a_host("a", HostState.LOST)), NOW) is MigrationStep.WAIT
    assert next_step(seen(wiped), NOW) is MigrationStep.WAIT
    assert next_step(seen(wiped, target=a_host("b", HostState.LOST)), NOW) is MigrationStep.FINISH
    assert next_step(seen(wiped, runner=a_runner(state=RunnerState.GONE)), NOW) is MigrationStep.FINISH


def test_the_row_goes_on_only_as_its_lifecycle_allows() -> None:
    row = receiving(a_move(), Ports(1, 2))
    assert (row.phase, row.ports) == (P.RECEIVING, Ports(1, 2))
    assert copying(row).phase is P.COPYING
    with pytest.raises(IllegalMove):
        copying(a_move())
    with pytest.raises(IllegalMove):
        closed(a_move(P.PAUSED))
    assert closed(a_move(P.COMMITTED)).phase is P.FINISHED
