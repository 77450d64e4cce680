from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.planning.rows import MINUTE, NOW, SECOND, SMALL, SPEC, a_host, a_move, a_runner
from workers.domain.host import HostState
from workers.domain.migration import MigrationPhase
from workers.domain.names import HostId
from workers.domain.runner import RunnerState
from workers.planning.fleet import Fleet, is_leaving, is_silent

P = MigrationPhase


def test_what_is_on_its_way_to_a_host_takes_room_there_until_it_is_decided() -> None:
    for phase in P:
        fleet = Fleet((a_host("a"), a_host("b")), (a_runner("r", "a"),), (a_move(phase),))
        taken = SPEC.memory_mib - fleet.left(a_host("b")).memory_mib
        is_coming = phase in {P.PLANNED, P.RECEIVING, P.COPYING, P.PAUSED}
        assert taken == (SMALL.memory_mib if is_coming else 0), phase


def test_a_gone_runner_takes_no_room() -> None:
    fleet = Fleet((a_host(),), (a_runner(state=RunnerState.GONE),))
    assert fleet.left(a_host()) == SPEC


def test_the_fullest_host_that_has_room_comes_first() -> None:
    full = (a_runner("1", "full"), a_runner("2", "full"))
    fleet = Fleet((a_host("empty"), a_host("half"), a_host("full")), (*full, a_runner("3", "half")))
    assert [host.id for host in fleet.candidates(SMALL)] == ["half", "empty"]


@pytest.mark.parametrize("state", [state for state in HostState if state is not HostState.READY])
def test_nothing_is_placed_on_a_host_that_is_not_ready(state: HostState) -> None:
    assert Fleet((a_host(state=state),), ()).candidates(SMALL) == ()


def test_nothing_is_placed_on_a_host_with_a_notice() -> None:
    assert Fleet((a_host(deadline_at=NOW + MINUTE),), ()).candidates(SMALL) == ()


def test_a_host_that_is_taken_back_is_leaving_whatever_its_state_says_yet() -> None:
    assert is_leaving(a_host(deadline_at=NOW))
    assert not is_leaving(a_host(state=HostState.PREPARING))
    assert is_leaving(a_host(state=HostState.DRAINING))


def test_a_host_is_silent_only_after_it_was_heard() -> None:
    host = a_host()
    assert is_silent(host, NOW + 11 * SECOND, 10 * SECOND)
    assert not is_silent(host, NOW + 10 * SECOND, 10 * SECOND)
    assert not is_silent(replace(host, heartbeat_at=None), NOW + MINUTE, 10 * SECOND)


def test_a_host_that_is_not_open_is_not_found() -> None:
    assert Fleet((a_host(),), ()).host(HostId("b")) is None
