"""However the words of two hosts and a reconciler overtake each other, the row ends up the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.domain.errors import IllegalMove
from workers.domain.merge import is_news, merged, untold_end
from workers.domain.migration import MIGRATION, Migration, MigrationPhase, Role, Said, aborted, decide, seen
from workers.domain.names import HostId, MigrationId, RunnerId

P = MigrationPhase
START = datetime(2026, 11, 23, 4, tzinfo=UTC)
Change = Callable[[Migration], Migration]


def row_in(phase: MigrationPhase) -> Migration:
    return Migration(
        id=MigrationId("m"),
        runner_id=RunnerId("r"),
        source_id=HostId("a"),
        target_id=HostId("b"),
        phase=phase,
        epoch=2,
        planned_at=START,
        deadline_at=START + timedelta(minutes=1),
    )


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def word(role: Role, said: Said, at: float) -> Change:
    return lambda row: decide(row, role, said, after(at))


def sight(role: Role, at: float) -> Change:
    return lambda row: seen(row, role, after(at))


def figure(name: str, value: float) -> Change:
    return lambda row: replace(row, figures={**row.figures, name: value})


def all_from(row: Migration, changes: list[Change]) -> Migration:
    """Put in changes whose makers have all read the same row."""
    current = row
    for change in changes:
        current = merged(current, row, change(row))
    return current


AFTER_THE_COMMIT = [
    word(Role.TARGET, Said.RUNNING, 1),
    word(Role.SOURCE, Said.WIPED, 2),
    sight(Role.SOURCE, 3),
    sight(Role.TARGET, 4),
    figure("stopped_ms", 5),
    figure("sent_mib", 6),
]

COMPETING = [word(Role.TARGET, Said.COMMITTED, 1), word(Role.SOURCE, Said.ABORTED, 1)]


class TestOrder:
    @given(st.permutations(AFTER_THE_COMMIT))
    def test_words_that_do_not_compete_add_up_in_any_order(self, changes: list[Change]) -> None:
        row = row_in(P.COMMITTED)
        end = all_from(row, changes)
        told = (end.running_at, end.wiped_at, end.source_seen_at, end.target_seen_at)
        assert told == (after(1), after(2), after(3), after(4))
        # A figure that comes after the end is one that comes too late; the rest is there whatever the order.
        assert end.phase is P.FINISHED
        assert set(end.figures) <= {"stopped_ms", "sent_mib"}

    @given(
        st.permutations(
            [word(Role.TARGET, Said.COMMITTED, 1), word(Role.SOURCE, Said.ABORTED, 1), sight(Role.SOURCE, 1)]
        )
    )
    def test_the_first_decision_stays(self, changes: list[Change]) -> None:
        row = row_in(P.PAUSED)
        first = next(phase for phase in (change(row).phase for change in changes) if phase is not P.PAUSED)
        assert all_from(row, changes).phase is first

    @given(st.lists(st.tuples(st.sampled_from(Role), st.integers(0, 100)), min_size=1))
    def test_sight_is_the_latest_moment_of_each_side(self, looks: list[tuple[Role, int]]) -> None:
        end = all_from(row_in(P.COPYING), [sight(role, at) for role, at in looks])
        for role, moment in ((Role.SOURCE, end.source_seen_at), (Role.TARGET, end.target_seen_at)):
            moments = [after(at) for side, at in looks if side is role]
            assert moment == (max(moments) if moments else None)


class TestLate:
    @given(st.sampled_from(P), st.sampled_from(P), st.sampled_from(Role), st.sampled_from(Said))
    def test_a_word_never_takes_a_row_back_or_where_it_could_not_have_gone(
        self, read: MigrationPhase, stands: MigrationPhase, role: Role, said: Said
    ) -> None:
        before, current = row_in(read), row_in(stands)
        end = merged(current, before, seen(decide(before, role, said, after(1)), role, after(1)))
        assert end.phase is current.phase or end.phase in MIGRATION.moves[current.phase]
        if read is not stands:
            assert end == seen(current, role, after(1))

    def test_what_is_late_changes_nothing_that_is_news(self) -> None:
        before, current = row_in(P.PAUSED), row_in(P.COMMITTED)
        late = aborted(before, "too slow", source_is_gone=False)
        assert merged(current, before, late) == current
        assert not is_news(current, seen(current, Role.SOURCE, after(1)))

    def test_a_move_of_our_own_must_be_legal(self) -> None:
        row = row_in(P.COPYING)
        with pytest.raises(IllegalMove):
            merged(row, row, replace(row, phase=P.COMMITTED))


class TestOnce:
    def test_a_word_keeps_its_first_moment(self) -> None:
        row = row_in(P.COMMITTED)
        assert all_from(row, [word(Role.TARGET, Said.RUNNING, at) for at in (1, 2)]).running_at == after(1)

    def test_a_figure_that_was_read_does_not_put_an_older_one_back(self) -> None:
        row = replace(row_in(P.COMMITTED), figures={"sent_mib": 1.0})
        end = all_from(row, [figure("sent_mib", 2.0), figure("stopped_ms", 3.0)])
        assert end.figures == {"sent_mib": 2.0, "stopped_ms": 3.0}


class TestUntoldEnd:
    def test_both_spoke_and_neither_saw_the_other(self) -> None:
        row = row_in(P.COMMITTED)
        current = all_from(row, [word(Role.TARGET, Said.RUNNING, 2)])
        wiped = word(Role.SOURCE, Said.WIPED, 1)(row)
        assert untold_end(current, wiped, merged(current, row, wiped)) == after(2)

    def test_whoever_saw_the_other_tells_it_itself(self) -> None:
        current = all_from(row_in(P.COMMITTED), [word(Role.TARGET, Said.RUNNING, 2)])
        wiped = word(Role.SOURCE, Said.WIPED, 3)(current)
        assert untold_end(current, wiped, merged(current, current, wiped)) is None

    def test_what_goes_on_has_no_end(self) -> None:
        row = row_in(P.COMMITTED)
        running = word(Role.TARGET, Said.RUNNING, 2)(row)
        assert untold_end(row, running, merged(row, row, running)) is None
