"""The migration's row decides: one of two wins, everybody hears the same, and no word is lost."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import permutations

import pytest

from tests.contract.store_rows import START, WholeStore, a_migration, a_runner, moving
from workers.domain.errors import Bug, IllegalMove
from workers.domain.events import Event, Happening
from workers.domain.migration import Migration, MigrationPhase, Ports, Role, Said, decide, seen
from workers.domain.names import HostId
from workers.domain.runner import Runner

P = MigrationPhase
LATER = START + timedelta(seconds=5)


def runner_of(store: WholeStore, row: Migration) -> Runner:
    runner = store.runners.get(row.runner_id)
    assert runner is not None
    return runner


def say(store: WholeStore, row: Migration, role: Role, said: Said) -> Migration:
    """Let a host that has read `row` say a word."""
    happening = Event(Happening(f"migration_{said}"), LATER, migration_id=row.id) if said is not Said.WIPED else None
    return store.decide(row, decide(row, role, said, LATER), *([happening] if happening else []))


def told(store: WholeStore) -> list[Happening]:
    return [event.happening for _, event in store.timeline()]


class TestOneWins:
    def test_the_commit_gives_the_runner_to_the_target_in_the_same_stroke(self, store: WholeStore) -> None:
        row = moving(store, 1, P.PAUSED)
        stands = say(store, row, Role.TARGET, Said.COMMITTED)
        assert stands.phase is P.COMMITTED
        assert stands == store.migrations.get(row.id)
        assert runner_of(store, row) == replace(a_runner(1, "a"), host_id=HostId("b"), epoch=2, migration_id=None)
        assert told(store) == [Happening.MIGRATION_COMMITTED]

    @pytest.mark.parametrize("phase", [P.PLANNED, P.RECEIVING, P.COPYING, P.PAUSED])
    def test_an_abort_leaves_the_runner_where_it_is_and_free_to_be_moved_again(
        self, store: WholeStore, phase: MigrationPhase
    ) -> None:
        row = moving(store, 1, phase)
        assert say(store, row, Role.SOURCE, Said.ABORTED).phase is P.ABORTED
        assert runner_of(store, row) == a_runner(1, "a")

    @pytest.mark.parametrize("first", [Said.COMMITTED, Said.ABORTED])
    def test_the_second_word_hears_the_first_and_leaves_no_trace(self, store: WholeStore, first: Said) -> None:
        row = moving(store, 1, P.PAUSED)
        second = Said.ABORTED if first is Said.COMMITTED else Said.COMMITTED
        stands = say(store, row, Role.TARGET, first)
        runner = runner_of(store, row)
        assert say(store, row, Role.TARGET, second) == stands == store.migrations.get(row.id)
        assert runner_of(store, row) == runner
        assert told(store) == [Happening(f"migration_{first}")]

    def test_a_word_that_was_said_twice_is_told_once(self, store: WholeStore) -> None:
        row = moving(store, 1, P.COMMITTED)
        for _ in range(2):
            assert say(store, row, Role.TARGET, Said.RUNNING).running_at == LATER
        assert told(store) == [Happening.MIGRATION_RUNNING]

    def test_the_first_moment_of_a_word_stays(self, store: WholeStore) -> None:
        row = moving(store, 1, P.COMMITTED)
        for wait in (1, 2):
            store.decide(row, decide(row, Role.TARGET, Said.RUNNING, LATER + timedelta(seconds=wait)))
        stands = store.migrations.get(row.id)
        assert stands is not None
        assert stands.running_at == LATER + timedelta(seconds=1)

    def test_a_late_commit_does_not_take_a_runner_of_a_higher_epoch_back(self, store: WholeStore) -> None:
        row = moving(store, 1, P.PAUSED)
        with store.runners.lease(row.runner_id) as lease:
            lease.write(replace(lease.row, epoch=5))
        before = runner_of(store, row)
        say(store, row, Role.TARGET, Said.COMMITTED)
        assert runner_of(store, row) == before

    def test_a_move_that_the_lifecycle_does_not_know_is_a_bug(self, store: WholeStore) -> None:
        row = moving(store, 1, P.COPYING)
        with pytest.raises(IllegalMove):
            store.decide(row, replace(row, phase=P.COMMITTED))
        assert store.migrations.get(row.id) == row

    def test_what_was_never_planned_cannot_be_decided(self, store: WholeStore) -> None:
        row = a_migration(a_runner(1, "a"), "b")
        with pytest.raises(Bug, match="never planned"):
            store.decide(row, replace(row, phase=P.ABORTED))


class TestNoWordIsLost:
    """Both hosts read the row and only then speak."""

    @pytest.mark.parametrize("order", list(permutations([(Role.TARGET, Said.RUNNING), (Role.SOURCE, Said.WIPED)])))
    def test_running_and_wiped_finish_in_any_order(
        self, store: WholeStore, order: tuple[tuple[Role, Said], ...]
    ) -> None:
        row = moving(store, 1, P.COMMITTED)
        stands = [say(store, row, role, said) for role, said in order][-1]
        assert stands == store.migrations.get(row.id)
        assert (stands.phase, stands.running_at, stands.wiped_at) == (P.FINISHED, LATER, LATER)
        assert sorted(told(store)) == [Happening.MIGRATION_FINISHED, Happening.MIGRATION_RUNNING]

    def test_the_end_is_told_once_when_the_second_has_read_the_first(self, store: WholeStore) -> None:
        row = say(store, moving(store, 1, P.COMMITTED), Role.TARGET, Said.RUNNING)
        after = decide(row, Role.SOURCE, Said.WIPED, LATER)
        assert after.phase is P.FINISHED
        store.decide(row, after, Event(Happening.MIGRATION_FINISHED, LATER))
        assert told(store) == [Happening.MIGRATION_RUNNING, Happening.MIGRATION_FINISHED]

    def test_figures_of_both_add_up(self, store: WholeStore) -> None:
        row = moving(store, 1, P.COMMITTED)
        store.decide(row, replace(row, figures={"sent_mib": 17.25, "stopped_at": 1.0}))
        store.decide(row, replace(row, figures={"sent_mib": 18.0, "resumed_at": 2.0}))
        stands = store.decide(row, replace(row, figures={**row.figures, "copied_ms": 3.0}))
        assert stands.figures == {"sent_mib": 18.0, "stopped_at": 1.0, "resumed_at": 2.0, "copied_ms": 3.0}

    def test_a_figure_is_kept_and_told_although_the_row_has_moved_on(self, store: WholeStore) -> None:
        row = moving(store, 1, P.PAUSED)
        say(store, row, Role.TARGET, Said.COMMITTED)
        told_of = Event(Happening.RELAY_POINTED, LATER)
        stands = store.decide(row, replace(row, figures={**row.figures, "relay_pointed_at": 1.0}), told_of)
        assert (stands.phase, stands.figures["relay_pointed_at"]) == (P.COMMITTED, 1.0)
        assert told(store) == [Happening.MIGRATION_COMMITTED, Happening.RELAY_POINTED]

    def test_a_word_wins_although_the_other_side_was_seen_since(self, store: WholeStore) -> None:
        row = moving(store, 1, P.COPYING)
        store.decide(row, seen(row, Role.TARGET, LATER))
        stands = say(store, row, Role.SOURCE, Said.PAUSED)
        assert (stands.phase, stands.target_seen_at) == (P.PAUSED, LATER)

    def test_ports_and_sight_do_not_push_each_other_out(self, store: WholeStore) -> None:
        row = moving(store, 1, P.RECEIVING)
        store.decide(row, replace(row, phase=P.COPYING, ports=Ports(1, 2)))
        stands = store.decide(row, seen(row, Role.SOURCE, LATER))
        assert (stands.phase, stands.ports, stands.source_seen_at) == (P.COPYING, Ports(1, 2), LATER)


class TestSight:
    @pytest.mark.parametrize("role", Role)
    def test_being_seen_never_brings_an_old_phase_back(self, store: WholeStore, role: Role) -> None:
        row = moving(store, 1, P.PAUSED)
        say(store, row, Role.TARGET, Said.COMMITTED)
        stands = store.decide(row, seen(row, role, LATER))
        assert stands.phase is P.COMMITTED
        assert (stands.source_seen_at, stands.target_seen_at) == (
            (LATER, START) if role is Role.SOURCE else (START, LATER)
        )

    def test_a_loser_was_seen_nevertheless(self, store: WholeStore) -> None:
        row = moving(store, 1, P.PAUSED)
        say(store, row, Role.TARGET, Said.COMMITTED)
        stands = store.decide(row, seen(replace(row, phase=P.ABORTED, reason="late"), Role.SOURCE, LATER))
        assert (stands.phase, stands.reason, stands.source_seen_at) == (P.COMMITTED, None, LATER)

    def test_sight_only_goes_forward(self, store: WholeStore) -> None:
        row = moving(store, 1, P.COPYING)
        store.decide(row, seen(row, Role.SOURCE, LATER))
        stands = store.decide(row, seen(row, Role.SOURCE, START + timedelta(seconds=1)))
        assert stands.source_seen_at == LATER

    def test_noting_sight_touches_one_moment_and_shows_the_row(self, store: WholeStore) -> None:
        row = moving(store, 1, P.COPYING)
        assert store.note_seen(row.id, Role.SOURCE, LATER) == replace(row, source_seen_at=LATER)
        assert store.note_seen(row.id, Role.SOURCE, START) == replace(row, source_seen_at=LATER)
        stands = replace(row, source_seen_at=LATER, target_seen_at=LATER)
        assert store.note_seen(row.id, Role.TARGET, LATER) == stands == store.migrations.get(row.id)
        assert store.note_seen(a_migration(a_runner(9, "a"), "b").id, Role.TARGET, LATER) is None
