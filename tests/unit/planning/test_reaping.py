from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.planning.rows import NOW, SECOND, a_runner
from workers.domain.listed import RunnerListed, Scope
from workers.domain.messages import MonitorState, RunnerReport
from workers.domain.names import HostId, MigrationId, RunnerId
from workers.domain.runner import Level, Runner, RunnerState
from workers.planning.reaping import (
    AskJob,
    Deregister,
    NoteVanished,
    Reap,
    Retire,
    Sides,
    StopMicrovm,
    is_ours,
    ripe,
    scope_of,
    suspicions,
)

HERE = Scope(1, "octo/hello")
A = HostId("a")
MARK = "spot-runner-3fa9c2-"
OVER = {RunnerState.GONE}
WITH_MICROVM = {RunnerState.BOOTING, RunnerState.IDLE, RunnerState.BUSY, RunnerState.RETIRING}


def report(name: str, epoch: int = 1) -> RunnerReport:
    return RunnerReport(RunnerId(name), epoch, MonitorState.RUNNING)


def registered(name: str, number: int = 7, *, busy: bool = False) -> RunnerListed:
    return RunnerListed(number, name, busy)


def row(state: RunnerState, name: str = "r", number: int | None = 7) -> Runner:
    return replace(a_runner(name, state=state), github_id=number)


def sides(*rows: Runner, here: tuple[str, ...] | None = None, listed: tuple[RunnerListed, ...] | None = None) -> Sides:
    """Host `a` says that it has `here`, GitHub lists `listed`; None: neither was heard."""
    return Sides(
        reported={} if here is None else {A: [report(name) for name in here]},
        listed={} if listed is None else {HERE: listed},
        rows={one.id: one for one in rows},
        mark=MARK,
    )


def found(seen: Sides) -> list[Reap]:
    return list(suspicions(seen))


@pytest.mark.parametrize("state", [RunnerState.BOOTING, RunnerState.IDLE, RunnerState.BUSY, RunnerState.RETIRING])
def test_where_all_three_agree_nothing_is_suspected(state: RunnerState) -> None:
    assert found(sides(row(state), here=("r",), listed=(registered("r"),))) == []


def test_a_registration_without_an_open_row_is_leaked() -> None:
    assert found(sides(row(RunnerState.GONE), listed=(registered("r"),))) == [Deregister(HERE, 7, RunnerId("r"))]
    unknown = MARK + "0123456789"
    assert found(sides(listed=(registered(unknown),))) == [Deregister(HERE, 7, RunnerId(unknown))]


@pytest.mark.parametrize("name", ["spot-runner-0123456789", "spot-runner-ffffff-0123456789", "somebodys"])
def test_a_registration_of_another_deployment_is_let_alone(name: str) -> None:
    assert found(sides(listed=(registered(name),))) == []


def test_a_microvm_without_an_open_row_is_left_over() -> None:
    orphan = [StopMicrovm(A, RunnerId("r"), 1)]
    assert found(sides(here=("r",), listed=())) == orphan
    assert found(sides(row(RunnerState.GONE), here=("r",), listed=())) == orphan
    assert found(sides(row(RunnerState.STOPPING), here=("r",), listed=())) == [], "that is being done already"


def test_a_microvm_is_not_ended_before_github_has_said_that_it_is_not_busy() -> None:
    assert found(sides(row(RunnerState.GONE), here=("r",))) == []
    elsewhere = replace(sides(here=("r",), listed=()), unheard=frozenset({Scope(2, "other/one")}))
    assert found(elsewhere) == [], "it may be registered there"


def test_an_idle_runner_whose_registration_is_gone_retires_and_a_busy_ones_job_is_asked_about() -> None:
    another = (registered("another", 8),)
    assert found(sides(row(RunnerState.IDLE), here=("r",), listed=())) == [Retire(HERE, 7, RunnerId("r"))]
    assert found(sides(row(RunnerState.BUSY), here=("r",), listed=another)) == [AskJob(HERE, 7, RunnerId("r"))]
    assert found(sides(row(RunnerState.IDLE), here=("r",))) == [], "GitHub was not asked"
    assert found(sides(row(RunnerState.BOOTING, number=None), here=("r",), listed=())) == [], "it has none yet"


@pytest.mark.parametrize("state", list(RunnerState))
def test_a_row_whose_microvm_its_host_does_not_have_has_vanished(state: RunnerState) -> None:
    expected = [NoteVanished(A, RunnerId("r"), 1)] if state in WITH_MICROVM else []
    assert found(sides(row(state), here=())) == expected
    assert found(sides(row(state))) == [], "its host was not heard"


def test_a_guest_on_its_way_is_let_alone() -> None:
    moving = replace(row(RunnerState.BUSY), migration_id=MigrationId("m"))
    assert found(sides(moving, here=())) == []
    assert found(replace(sides(here=("r",), listed=()), moving=frozenset({RunnerId("r")}))) == []
    assert found(sides(replace(row(RunnerState.BUSY), host_id=None), here=())) == [], "it is parked"


def test_a_guest_whose_migration_is_committed_is_at_the_target_or_nowhere() -> None:
    there = replace(sides(row(RunnerState.BUSY), here=("r",)), moving=frozenset({RunnerId("r")}))
    assert found(there) == []
    nowhere = replace(sides(row(RunnerState.BUSY), here=()), moving=frozenset({RunnerId("r")}))
    assert found(nowhere) == [NoteVanished(A, RunnerId("r"), 1)]


# ---------------------------------------------------------------- grace


def test_a_suspicion_is_acted_on_once_it_has_been_held_for_its_grace() -> None:
    one = Deregister(HERE, 7, RunnerId("r"))
    asked = frozenset({HERE})
    acts, held = ripe([one], {}, asked, NOW)
    assert (acts, held) == ([], {one: NOW})
    acts, held = ripe([one], held, asked, NOW + 59 * SECOND)
    assert (acts, held) == ([], {one: NOW})
    acts, _ = ripe([one], held, asked, NOW + 60 * SECOND)
    assert acts == [one]


def test_a_suspicion_that_was_not_confirmed_begins_anew() -> None:
    one, asked = NoteVanished(A, RunnerId("r"), 1), frozenset({HERE})
    _, held = ripe([one], {}, asked, NOW)
    _, held = ripe([], held, asked, NOW + 10 * SECOND)
    acts, held = ripe([one], held, asked, NOW + 25 * SECOND)
    assert (acts, held) == ([], {one: NOW + 25 * SECOND})


def test_a_suspicion_about_github_is_kept_while_github_is_not_asked() -> None:
    one = Deregister(HERE, 7, RunnerId("r"))
    _, held = ripe([one], {}, frozenset({HERE}), NOW)
    acts, held = ripe([], held, frozenset(), NOW + 15 * SECOND)
    assert (acts, held) == ([], {one: NOW})
    assert ripe([one], held, frozenset({HERE}), NOW + 61 * SECOND)[0] == [one]
    assert ripe([], held, frozenset({HERE}), NOW + 61 * SECOND) == ([], {})


# ---------------------------------------------------------------- whatever the three sides say

NAMES = st.sampled_from(["r", "s", MARK + "1", MARK + "2", "others"])
SCOPES = st.sampled_from([HERE, Scope(2, "other/one")])
HOSTS = st.sampled_from([A, HostId("b")])
ROWS = st.builds(
    lambda name, state, host, number, scope, moves: replace(
        a_runner(name, state=state),
        host_id=host,
        github_id=number,
        installation_id=scope.installation_id,
        repository=scope.repository,
        migration_id=MigrationId("m") if moves else None,
    ),
    NAMES,
    st.sampled_from(list(RunnerState)),
    st.none() | HOSTS,
    st.none() | st.integers(1, 4),
    SCOPES,
    st.booleans(),
)
LISTED = st.builds(RunnerListed, st.integers(1, 4), NAMES, st.booleans())
WORLDS = st.builds(
    Sides,
    reported=st.dictionaries(HOSTS, st.lists(st.builds(report, NAMES, st.integers(1, 3)), max_size=4)),
    listed=st.dictionaries(SCOPES, st.lists(LISTED, max_size=4)),
    rows=st.lists(ROWS, max_size=4).map(lambda rows: {one.id: one for one in rows}),
    moving=st.frozensets(NAMES.map(RunnerId), max_size=2),
    unheard=st.frozensets(SCOPES, max_size=1),
    mark=st.just(MARK),
)


@given(WORLDS)
def test_what_github_calls_busy_is_never_ended(seen: Sides) -> None:
    busy = {one.name for runners in seen.listed.values() for one in runners if one.is_busy}
    ended = [one for one in suspicions(seen) if isinstance(one, Deregister | StopMicrovm)]
    assert not {one.runner_id for one in ended} & busy


@given(WORLDS)
def test_only_what_no_open_row_stands_for_is_ended_and_only_what_is_ours(seen: Sides) -> None:
    for one in suspicions(seen):
        known = seen.rows.get(one.runner_id)
        if isinstance(one, Deregister | StopMicrovm):
            assert known is None or known.state in OVER
        if isinstance(one, Deregister):
            assert is_ours(one.runner_id, seen)
            assert known is not None or one.runner_id.startswith(MARK)


@given(WORLDS)
def test_nothing_is_said_of_a_side_that_was_not_heard(seen: Sides) -> None:
    for one in suspicions(seen):
        match one:
            case Deregister() | Retire() | AskJob():
                assert one.scope in seen.listed
            case NoteVanished():
                assert all(each.runner_id != one.runner_id for each in seen.reported[one.host_id])
            case StopMicrovm():
                assert any(each.runner_id == one.runner_id for each in seen.reported[one.host_id])
                known = seen.rows.get(one.runner_id)
                assert scope_of(known) in seen.listed if known else not seen.unheard


@given(WORLDS)
def test_a_guest_in_a_migration_is_never_touched(seen: Sides) -> None:
    for one in suspicions(seen):
        known = seen.rows.get(one.runner_id)
        if isinstance(one, StopMicrovm | NoteVanished | Retire | AskJob):
            assert one.runner_id not in seen.moving or isinstance(one, NoteVanished)
            assert known is None or known.state in OVER or known.migration_id is None


@given(WORLDS, st.lists(st.integers(0, 90), min_size=1, max_size=6))
def test_nothing_is_acted_on_before_its_grace(seen: Sides, pauses: list[int]) -> None:
    doubts, now, held = found(seen), NOW, dict[Reap, object]()
    first = NOW
    for pause in pauses:
        acts, held = ripe(doubts, held, frozenset(seen.listed), now)  # type: ignore[assignment,arg-type]
        assert set(acts) == {one for one in doubts if now - first >= one.grace}
        now += timedelta(seconds=pause)


def test_a_runner_is_looked_for_where_it_was_registered() -> None:
    shared = replace(row(RunnerState.IDLE), level=Level.ORGANIZATION)
    whole = Scope(1, "octo")
    assert scope_of(shared) == whole
    seen = sides(shared, listed=())
    assert list(suspicions(seen)) == [], "the repository's list says nothing about it"
    assert list(suspicions(replace(seen, listed={whole: ()}))) == [Retire(whole, 7, shared.id)]
