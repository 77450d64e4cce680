"""A row is written by whoever has its lease, or not at all."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.contract.store_rows import (
    CLASS,
    PLENTY,
    START,
    ManualClock,
    WholeStore,
    a_host,
    a_job,
    a_migration,
    a_runner,
    moving,
    room_for,
)
from workers.domain.errors import Bug, LeaseLost, NoRoom
from workers.domain.events import Event, Happening
from workers.domain.host import HostState
from workers.domain.job import JobState
from workers.domain.migration import MigrationPhase, Role
from workers.domain.names import HostId
from workers.domain.runner import RunnerState, Shape
from workers.store.shelves import LEASE_LIMIT

EVENT = Event(Happening.JOB_LOST, START)
JOB = a_job()


class TestLease:
    def test_a_second_taker_is_refused_until_the_block_ends(self, store: WholeStore) -> None:
        store.jobs.add(JOB)
        with store.jobs.lease(JOB.id) as lease:
            assert lease.row == JOB
            with pytest.raises(LeaseLost), store.jobs.lease(JOB.id):
                pass
        with store.jobs.lease(JOB.id):
            pass

    def test_a_block_that_raises_releases_too(self, store: WholeStore) -> None:
        store.jobs.add(JOB)
        with pytest.raises(ZeroDivisionError), store.jobs.lease(JOB.id):
            raise ZeroDivisionError
        with store.jobs.lease(JOB.id):
            pass

    def test_what_is_not_there_cannot_be_leased(self, store: WholeStore) -> None:
        with pytest.raises(LeaseLost), store.jobs.lease(JOB.id):
            pass

    def test_a_lease_lasts_ten_seconds_at_most(self, store: WholeStore, clock: ManualClock) -> None:
        assert timedelta(seconds=10) >= LEASE_LIMIT
        store.jobs.add(JOB)
        with store.jobs.lease(JOB.id):
            clock.move(LEASE_LIMIT)
            with pytest.raises(LeaseLost), store.jobs.lease(JOB.id):
                pass
            clock.move(timedelta(microseconds=1))
            with store.jobs.lease(JOB.id):
                pass

    def test_who_has_lost_the_lease_writes_nothing(self, store: WholeStore, clock: ManualClock) -> None:
        store.jobs.add(JOB)
        with store.jobs.lease(JOB.id) as late:
            clock.move(LEASE_LIMIT * 2)
            with store.jobs.lease(JOB.id) as current:
                with pytest.raises(LeaseLost):
                    late.write(replace(JOB, state=JobState.LOST), a_host("a"), EVENT)
                assert late.row == JOB
                current.write(replace(JOB, state=JobState.COMPLETED))
        row = store.jobs.get(JOB.id)
        assert row is not None
        assert row.state is JobState.COMPLETED
        assert store.hosts.get(HostId("a")) is None
        assert store.timeline() == []

    def test_the_end_of_a_lost_lease_does_not_end_the_next_one(self, store: WholeStore, clock: ManualClock) -> None:
        store.jobs.add(JOB)
        late = store.jobs.lease(JOB.id)
        late.__enter__()
        clock.move(LEASE_LIMIT * 2)
        with store.jobs.lease(JOB.id):
            late.__exit__(None, None, None)
            with pytest.raises(LeaseLost), store.jobs.lease(JOB.id):
                pass

    def test_a_lease_writes_as_often_as_it_likes(self, store: WholeStore) -> None:
        store.jobs.add(JOB)
        with store.jobs.lease(JOB.id) as lease:
            lease.write(replace(lease.row, name="one"))
            lease.write(replace(lease.row, run_attempt=2))
            lease.write(lease.row)
            assert lease.row == replace(JOB, name="one", run_attempt=2) == store.jobs.get(JOB.id)

    def test_a_lease_is_on_one_row(self, store: WholeStore) -> None:
        store.jobs.add(JOB)
        with store.jobs.lease(JOB.id) as lease, pytest.raises(Bug):
            lease.write(a_job(9))


class TestWritesTogether:
    def test_the_row_new_rows_and_the_timeline_are_one(self, store: WholeStore) -> None:
        store.jobs.add(JOB)
        store.hosts.add(a_host("a"))
        runner = a_runner(1, "a")
        with store.jobs.lease(JOB.id) as lease:
            lease.write(replace(JOB, state=JobState.LOST), runner, EVENT, a_host("b"))
        assert store.runners.get(runner.id) == runner
        assert store.hosts.get(HostId("b")) == a_host("b")
        assert [event for _, event in store.timeline()] == [EVENT]

    def test_without_room_nothing_at_all_is_written(self, store: WholeStore) -> None:
        store.jobs.add(JOB)
        store.hosts.add(a_host("a", room_for(1)))
        store.runners.add(a_runner(1, "a"))
        with store.jobs.lease(JOB.id) as lease:
            with pytest.raises(NoRoom, match="a has no room for spot-runner-2"):
                lease.write(replace(JOB, state=JobState.LOST), a_host("b"), a_runner(2, "a"), EVENT)
            assert lease.row == JOB
        assert store.jobs.get(JOB.id) == JOB
        assert store.hosts.get(HostId("b")) is None
        assert store.runners.get(a_runner(2, "a").id) is None
        assert store.timeline() == []

    def test_rows_that_are_known_stay_as_they_are(self, store: WholeStore) -> None:
        store.jobs.add(JOB)
        store.hosts.add(a_host("a", room_for(1)))
        store.runners.add(a_runner(1, "a"))
        with store.jobs.lease(JOB.id) as lease:
            lease.write(JOB, replace(a_runner(1, "a"), state=RunnerState.GONE), a_host("a", PLENTY))
        assert store.runners.get(a_runner(1, "a").id) == a_runner(1, "a")
        assert store.hosts.get(HostId("a")) == a_host("a", room_for(1))

    def test_what_is_noted_without_the_lease_is_not_put_back(self, store: WholeStore) -> None:
        store.hosts.add(replace(a_host("a"), heartbeat_at=None, host_class=None))
        later = START + timedelta(seconds=9)
        with store.hosts.lease(HostId("a")) as lease:
            store.note_heartbeat(HostId("a"), later, CLASS, [])
            lease.write(replace(lease.row, state=HostState.DRAINING, host_class=None, heartbeat_at=START))
        assert store.hosts.get(HostId("a")) == replace(a_host("a"), state=HostState.DRAINING, heartbeat_at=later)


class TestRoom:
    def test_every_measure_counts(self, store: WholeStore) -> None:
        shape = a_runner(1, "a").shape
        for name, spec in (
            ("vcpus", Shape(1, 4096, 16384)),
            ("memory", Shape(8, shape.memory_mib, 16384)),
            ("disk", Shape(8, 4096, shape.disk_mib)),
        ):
            store.hosts.add(a_host(name, spec))
        for number, name in enumerate(("vcpus", "memory", "disk")):
            assert store.runners.add(a_runner(number * 2, name))
            with pytest.raises(NoRoom):
                store.runners.add(a_runner(number * 2 + 1, name))

    def test_runners_that_are_gone_take_no_room(self, store: WholeStore) -> None:
        store.hosts.add(a_host("a", room_for(1)))
        store.runners.add(a_runner(1, "a", RunnerState.GONE))
        assert store.runners.add(a_runner(2, "a", RunnerState.STOPPING))
        with pytest.raises(NoRoom):
            store.runners.add(a_runner(3, "a"))

    def test_what_is_on_its_way_takes_room_until_it_is_aborted(self, store: WholeStore) -> None:
        store.hosts.add(a_host("b", room_for(1)))
        row = moving(store, 1, MigrationPhase.PLANNED)
        with pytest.raises(NoRoom):
            store.runners.add(a_runner(2, "b"))
        store.decide(row, replace(row, phase=MigrationPhase.ABORTED))
        assert store.runners.add(a_runner(2, "b"))

    def test_what_has_arrived_is_counted_once_and_leaves_its_old_place(self, store: WholeStore) -> None:
        store.hosts.add(a_host("a", room_for(1)))
        store.hosts.add(a_host("b", room_for(2)))
        row = moving(store, 1, MigrationPhase.PAUSED)
        store.decide(row, replace(row, phase=MigrationPhase.COMMITTED))
        assert store.runners.add(a_runner(2, "b"))
        assert store.runners.add(a_runner(3, "a"))
        with pytest.raises(NoRoom):
            store.runners.add(a_runner(4, "b"))

    def test_a_migration_needs_room_at_its_target(self, store: WholeStore) -> None:
        store.hosts.add(a_host("b", room_for(0)))
        with pytest.raises(NoRoom, match="b has no room for spot-move-1"):
            moving(store, 1, MigrationPhase.PLANNED)
        runner = store.runners.get(a_runner(1, "a").id)
        assert runner is not None
        assert runner.migration_id is None
        assert store.migrations.open() == []

    @pytest.mark.parametrize("state", [HostState.LOST, HostState.TERMINATING, HostState.TERMINATED])
    def test_a_host_that_is_going_away_has_no_room(self, store: WholeStore, state: HostState) -> None:
        store.hosts.add(a_host("a", state=state))
        with pytest.raises(NoRoom):
            store.runners.add(a_runner(1, "a"))

    def test_a_host_that_nobody_knows_has_no_room(self, store: WholeStore) -> None:
        with pytest.raises(NoRoom):
            store.runners.add(a_runner(1, "a"))

    def test_a_number_is_given_to_one_runner_at_a_time(self, store: WholeStore) -> None:
        store.hosts.add(a_host("a"))
        store.runners.add(a_runner(1, "a"))
        other = replace(a_runner(2, "a"), number=1)
        with pytest.raises(NoRoom, match="taken"):
            store.runners.add(other)
        with store.runners.lease(a_runner(1, "a").id) as lease:
            lease.write(replace(lease.row, state=RunnerState.GONE))
        assert store.runners.add(other)

    def test_a_runner_is_on_its_way_to_one_host_at_a_time(self, store: WholeStore) -> None:
        row = moving(store, 1, MigrationPhase.PAUSED)
        another = a_migration(a_runner(1, "a"), "b", name="spot-move-again")
        with pytest.raises(NoRoom, match="taken"):
            store.migrations.add(another)
        store.decide(row, replace(row, phase=MigrationPhase.COMMITTED))
        assert store.migrations.add(another)


class TestLeaseAgainstDecision:
    """The commit changes a runner without its lease, so whoever holds one must not write over it."""

    @pytest.mark.parametrize("phase", [MigrationPhase.COMMITTED, MigrationPhase.ABORTED])
    def test_a_runner_that_was_decided_on_meanwhile_is_not_written(
        self, store: WholeStore, phase: MigrationPhase
    ) -> None:
        row = moving(store, 1, MigrationPhase.PAUSED)
        with store.runners.lease(row.runner_id) as lease:
            store.decide(row, replace(row, phase=phase))
            decided = store.runners.get(row.runner_id)
            with pytest.raises(LeaseLost):
                lease.write(replace(lease.row, state=RunnerState.STOPPING), EVENT)
        assert store.runners.get(row.runner_id) == decided
        assert store.timeline() == []

    def test_a_leased_migration_is_written_only_in_the_phase_that_was_read(self, store: WholeStore) -> None:
        row = moving(store, 1, MigrationPhase.PAUSED)
        with store.migrations.lease(row.id) as lease:
            store.decide(row, replace(row, phase=MigrationPhase.COMMITTED))
            with pytest.raises(LeaseLost):
                lease.write(replace(lease.row, phase=MigrationPhase.ABORTED), EVENT)
        stands = store.migrations.get(row.id)
        assert stands == replace(row, phase=MigrationPhase.COMMITTED)
        assert store.timeline() == []

    def test_a_migration_is_not_written_by_who_has_lost_its_lease(self, store: WholeStore, clock: ManualClock) -> None:
        row = moving(store, 1, MigrationPhase.COPYING)
        with store.migrations.lease(row.id) as late:
            clock.move(LEASE_LIMIT * 2)
            with store.migrations.lease(row.id), pytest.raises(LeaseLost):
                late.write(replace(late.row, phase=MigrationPhase.ABORTED))
        assert store.migrations.get(row.id) == row

    def test_a_leased_migration_that_is_aborted_frees_its_runner(self, store: WholeStore) -> None:
        row = moving(store, 1, MigrationPhase.COPYING)
        with store.migrations.lease(row.id) as lease:
            lease.write(replace(lease.row, phase=MigrationPhase.ABORTED, reason="late"))
        runner = store.runners.get(row.runner_id)
        assert runner is not None
        assert runner.migration_id is None

    def test_being_seen_does_not_cost_anybody_the_lease(self, store: WholeStore) -> None:
        row = moving(store, 1, MigrationPhase.RECEIVING)
        later = START + timedelta(seconds=3)
        with store.migrations.lease(row.id) as lease:
            store.note_seen(row.id, Role.TARGET, later)
            lease.write(replace(lease.row, phase=MigrationPhase.COPYING))
        assert store.migrations.get(row.id) == replace(row, phase=MigrationPhase.COPYING, target_seen_at=later)
