"""What is put into the store comes out of it as it was."""

from __future__ import annotations

import traceback
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import text

from tests.contract.store_rows import (
    CLASS,
    START,
    TERMS,
    ManualClock,
    WholeStore,
    a_host,
    a_job,
    a_migration,
    a_runner,
    moving,
)
from workers.domain.errors import BadInput, Bug, Unreachable
from workers.domain.events import Event, Happening
from workers.domain.hold import Hold, HoldWish
from workers.domain.host import HostState
from workers.domain.job import JobState
from workers.domain.messages import GuestRunnerState, Load, MonitorState, RunnerReport
from workers.domain.migration import LINE_FIGURE, LineSeen, MigrationPhase
from workers.domain.names import HostId, JobId, MigrationId, RunnerId
from workers.domain.runner import Level, RunnerState
from workers.store.connection import Database
from workers.store.repository import SqlStore, open_store

PASSWORD = "s3cret"


def rows(store: WholeStore) -> list[tuple[Any, Any]]:
    endless = replace(a_job(9), terms=replace(TERMS, max_minutes=None))
    bare_job = replace(
        a_job(8), runner_id=None, conclusion=None, end=None, unserved=None, labels=(), terms=None, started_at=None
    )
    bare_host = replace(
        a_host("c"), instance_id=None, address=None, host_class=None, heartbeat_at=None, deadline_at=None
    )
    bare_runner = replace(a_runner(2, "b"), github_id=None, idle_at=None, end=None)
    shared_runner = replace(a_runner(3, "b"), level=Level.ORGANIZATION, group_id=1 << 33)
    bare_move = replace(
        a_migration(a_runner(2, "b"), "a"),
        ports=None,
        share_mib_s=None,
        source_seen_at=None,
        target_seen_at=None,
        figures={},
    )
    return [
        (store.jobs, a_job()),
        (store.jobs, endless),
        (store.jobs, bare_job),
        (store.hosts, a_host("a")),
        (store.hosts, a_host("b")),
        (store.hosts, bare_host),
        (store.runners, a_runner(1, "a")),
        (store.runners, shared_runner),
        (store.runners, bare_runner),
        (store.migrations, a_migration(a_runner(1, "a"), "b")),
        (store.migrations, bare_move),
    ]


class TestRows:
    def test_every_row_comes_back_equal_with_every_field_set_and_with_none(self, store: WholeStore) -> None:
        for shelf, row in rows(store):
            assert shelf.add(row)
            assert shelf.get(row.id) == row
            assert row in shelf.open()

    def test_a_row_that_is_known_is_neither_written_nor_told_of(self, store: WholeStore) -> None:
        told = Event(Happening.JOB_QUEUED, START)
        for shelf, row in rows(store):
            assert shelf.add(row)
            assert not shelf.add(row, told)
        assert not store.jobs.add(replace(a_job(), name="another"), told)
        assert store.jobs.get(a_job().id) == a_job()
        assert store.timeline() == []

    def test_nothing_is_found_of_what_never_was(self, store: WholeStore) -> None:
        assert store.jobs.get(JobId(1)) is None
        assert store.hosts.get(HostId("x")) is None
        assert store.runners.get(RunnerId("x")) is None
        assert store.runner_named("x") is None
        assert store.migrations.get(MigrationId("x")) is None

    def test_open_leaves_out_what_has_ended_and_is_sorted_by_age(self, store: WholeStore) -> None:
        for number, state in enumerate(JobState):
            store.jobs.add(a_job(20 - number, state))
        found = store.jobs.open()
        assert {job.state for job in found} == set(JobState) - {JobState.COMPLETED, JobState.CANCELLED}
        assert [job.queued_at for job in found] == sorted(job.queued_at for job in found)

    def test_open_knows_the_last_phase_of_each_kind(self, store: WholeStore) -> None:
        moving(store, 1, MigrationPhase.FINISHED)
        moving(store, 2, MigrationPhase.COMMITTED)
        store.runners.add(a_runner(3, "a", RunnerState.GONE))
        store.hosts.add(a_host("old", state=HostState.TERMINATED))
        assert [row.id for row in store.migrations.open()] == ["spot-move-2"]
        assert [row.number for row in store.runners.open()] == [1, 2]
        assert [row.id for row in store.hosts.open()] == ["a", "b"]

    def test_moments_are_utc_whatever_zone_they_came_in(self, sql_store: SqlStore) -> None:
        there = datetime(2026, 11, 23, 9, 30, 0, 5, tzinfo=timezone(timedelta(hours=5, minutes=30)))
        sql_store.jobs.add(replace(a_job(), queued_at=there))
        back = sql_store.jobs.get(a_job().id)
        assert back is not None
        assert back.queued_at == there
        assert back.queued_at.tzinfo is UTC

    def test_a_moment_without_a_zone_is_a_bug_and_not_a_guess(self, sql_store: SqlStore) -> None:
        with pytest.raises(Bug, match="time zone"):
            sql_store.jobs.add(replace(a_job(), queued_at=datetime(2026, 11, 23)))  # noqa: DTZ001 what is tested
        assert sql_store.jobs.get(a_job().id) is None

    def test_hosts_that_were_taken_back_lately_are_found_whether_or_not_they_have_ended(
        self, sql_store: SqlStore, clock: ManualClock
    ) -> None:
        now = clock.now()
        for name, minutes in (("before", -60), ("then", 0), ("later", 1)):
            taken = replace(a_host(name), deadline_at=now + timedelta(minutes=minutes))
            sql_store.hosts.add(taken)
        sql_store.hosts.add(
            replace(a_host("ended", state=HostState.TERMINATED), deadline_at=now + timedelta(minutes=2))
        )
        sql_store.hosts.add(replace(a_host("kept"), deadline_at=None))
        assert {host.id for host in sql_store.hosts_taken_back(now)} == {"later", "ended"}


class TestRunners:
    def test_the_runners_of_a_host_are_those_that_are_not_gone(self, store: WholeStore) -> None:
        for name in ("a", "b"):
            store.hosts.add(a_host(name))
        store.runners.add(a_runner(1, "a"))
        store.runners.add(a_runner(2, "a", RunnerState.GONE))
        store.runners.add(a_runner(3, "b"))
        assert [runner.number for runner in store.runners_on(HostId("a"))] == [1]
        assert store.runner_named("spot-runner-3") == a_runner(3, "b")

    def test_the_smallest_number_is_free_again_once_its_runner_is_gone(self, store: WholeStore) -> None:
        store.hosts.add(a_host("a"))
        assert store.free_number() == 0
        for number in (0, 1, 3):
            store.runners.add(a_runner(number, "a"))
        assert store.free_number() == 2
        with store.runners.lease(RunnerId("spot-runner-0")) as lease:
            lease.write(replace(lease.row, state=RunnerState.GONE))
        assert store.free_number() == 0


class TestHeartbeats:
    REPORT = RunnerReport(
        RunnerId("spot-runner-1"),
        1,
        MonitorState.RUNNING,
        GuestRunnerState.ENDED,
        exit_code=3,
        load=Load(memory_mib=312.5, disk_mib=40.0, dirty_mib_s=2.0),
        hold=HoldWish(2, 60.5),
    )

    def test_a_heartbeat_is_noted_and_the_last_report_counts(self, store: WholeStore) -> None:
        store.hosts.add(replace(a_host("a"), heartbeat_at=None, host_class=None))
        store.runners.add(a_runner(1, "a"))
        assert store.report_of(RunnerId("spot-runner-1")) is None
        first = replace(self.REPORT, guest=GuestRunnerState.UNKNOWN, exit_code=None, load=None, hold=None)
        for report in (first, self.REPORT):
            host = store.note_heartbeat(HostId("a"), START, CLASS, [report])
            assert host == store.hosts.get(HostId("a")) == replace(a_host("a"), heartbeat_at=START)
            assert store.report_of(RunnerId("spot-runner-1")) == report

    def test_a_host_without_runners_is_heard_too_and_a_strange_one_is_not(self, store: WholeStore) -> None:
        store.hosts.add(a_host("a"))
        assert store.note_heartbeat(HostId("a"), START, CLASS, []) is not None
        assert store.note_heartbeat(HostId("x"), START, CLASS, [self.REPORT]) is None

    def test_only_the_host_that_has_the_runner_reports_of_it(self, store: WholeStore) -> None:
        row = moving(store, 1, MigrationPhase.PAUSED)
        store.note_heartbeat(HostId("b"), START, CLASS, [replace(self.REPORT, monitor=MonitorState.INCOMING)])
        assert store.report_of(row.runner_id) is None
        store.note_heartbeat(HostId("a"), START, CLASS, [replace(self.REPORT, monitor=MonitorState.PAUSED)])
        store.decide(row, replace(row, phase=MigrationPhase.COMMITTED))
        report = store.report_of(row.runner_id)
        assert report is not None
        assert report.monitor is MonitorState.INCOMING

    def test_a_guest_that_has_just_come_carries_what_its_former_host_measured(self, store: WholeStore) -> None:
        row = moving(store, 1, MigrationPhase.PAUSED)
        store.hosts.add(a_host("c"))
        earlier = replace(self.REPORT, load=Load(memory_mib=50.0, disk_mib=1.0))
        store.note_heartbeat(HostId("c"), START - timedelta(seconds=1), CLASS, [earlier])
        store.note_heartbeat(HostId("a"), START, CLASS, [self.REPORT])
        incoming = replace(self.REPORT, monitor=MonitorState.INCOMING, load=None)
        store.note_heartbeat(HostId("b"), START + timedelta(seconds=1), CLASS, [incoming])
        store.decide(row, replace(row, phase=MigrationPhase.COMMITTED))
        assert store.report_of(row.runner_id) == replace(incoming, load=self.REPORT.load)
        measured = replace(self.REPORT, load=Load(memory_mib=100.0, disk_mib=8.0))
        store.note_heartbeat(HostId("b"), START + timedelta(seconds=2), CLASS, [measured])
        assert store.report_of(row.runner_id) == measured


class TestLines:
    def test_what_finished_moves_measured_is_known_the_latest_first(self, store: WholeStore) -> None:
        for name, cloud in (("a", "local"), ("b", "other")):
            store.hosts.add(replace(a_host(name), cloud=cloud))
        finished = [
            (1, MigrationPhase.FINISHED, {LINE_FIGURE: 50.5}),
            (2, MigrationPhase.FINISHED, {LINE_FIGURE: 99.0}),
            (3, MigrationPhase.FINISHED, {}),
            (4, MigrationPhase.ABORTED, {LINE_FIGURE: 1.0}),
        ]
        for number, phase, figures in finished:
            row = a_migration(a_runner(number, "a"), "b", phase)
            store.migrations.add(replace(row, planned_at=START + timedelta(seconds=number), figures=figures))
        seen = [LineSeen(HostId("a"), "local", "other", speed) for speed in (99.0, 50.5)]
        assert list(store.lines_seen()) == seen


class TestHolds:
    FIRST = Hold(RunnerId("spot-runner-1"), 1, START, START + timedelta(seconds=60))
    BEGAN = Event(Happening.HOLD_BEGAN, START, runner_id=RunnerId("spot-runner-1"))

    def test_the_last_one_is_kept_and_told_of(self, store: WholeStore) -> None:
        assert store.hold_of(self.FIRST.runner_id) is None
        assert store.change_hold(None, self.FIRST, self.BEGAN)
        assert store.hold_of(self.FIRST.runner_id) == self.FIRST
        second = replace(self.FIRST, number=2, ends_at=START + timedelta(seconds=90), spent_s=12.5)
        assert store.change_hold(self.FIRST, second)
        assert store.hold_of(self.FIRST.runner_id) == second
        assert [event for _, event in store.timeline()] == [self.BEGAN]

    def test_of_two_who_heard_the_same_wish_one_writes(self, store: WholeStore) -> None:
        assert store.change_hold(None, self.FIRST, self.BEGAN)
        assert not store.change_hold(None, replace(self.FIRST, number=7), self.BEGAN)
        second = replace(self.FIRST, number=2)
        assert store.change_hold(self.FIRST, second)
        assert not store.change_hold(self.FIRST, replace(self.FIRST, number=7), self.BEGAN)
        assert store.hold_of(self.FIRST.runner_id) == second
        assert len(store.timeline()) == 1

    def test_whoever_is_held_is_found_until_the_hold_ends(self, store: WholeStore) -> None:
        other = replace(self.FIRST, runner_id=RunnerId("spot-runner-2"), ends_at=START + timedelta(seconds=9))
        for hold in (self.FIRST, other):
            store.change_hold(None, hold)
        assert store.held(START) == {self.FIRST.runner_id: self.FIRST.ends_at, other.runner_id: other.ends_at}
        assert store.held(other.ends_at) == {self.FIRST.runner_id: self.FIRST.ends_at}
        assert store.held(self.FIRST.ends_at) == {}


class TestTimeline:
    def test_entries_come_in_order_and_from_where_one_left_off(self, store: WholeStore) -> None:
        entries = [
            Event(
                Happening.JOB_QUEUED, START, job_id=JobId(1), detail={"a": 1, "b": 1.5, "c": True, "d": None, "e": "x"}
            ),
            Event(Happening.HOST_NOTICE, START, host_id=HostId("a")),
            Event(Happening.RUNNER_GONE, START, runner_id=RunnerId("r"), migration_id=MigrationId("m")),
        ]
        store.record(*entries)
        numbered = store.timeline()
        assert [entry for _, entry in numbered] == entries
        assert store.timeline(after=numbered[1][0]) == numbered[2:]
        assert store.timeline(after=numbered[2][0]) == []

    def test_those_of_one_host_are_found_without_reading_the_others(self, sql_store: SqlStore) -> None:
        names = ("a", None, "b", "a", "ab")
        entries = [
            Event(Happening.HOST_NOTICE, START, JobId(number), host_id=None if name is None else HostId(name))
            for number, name in enumerate(names)
        ]
        sql_store.record(*entries)
        assert sql_store.timeline_of(HostId("a")) == [entries[0], entries[3]]
        assert sql_store.timeline_of(HostId("c")) == []


class TestErrors:
    def test_a_store_that_is_not_there_is_unreachable(self, clock: ManualClock) -> None:
        with pytest.raises(Unreachable, match="does not answer"):
            open_store("sqlite:////nonexistent/directory/store.sqlite", clock)

    @pytest.mark.parametrize("url", ["", "nonsense", "oracle9://x", "mysql+nodriver://x"])
    def test_a_url_that_means_nothing_is_bad_input(self, url: str, clock: ManualClock) -> None:
        with pytest.raises(BadInput, match="database_url"):
            open_store(url, clock)

    @pytest.mark.parametrize("port", [PASSWORD, "", f":{PASSWORD}", f"5432{PASSWORD}", "0x1"])
    def test_a_port_that_is_no_number_is_bad_input_and_not_shown(self, port: str) -> None:
        with pytest.raises(BadInput, match="database_url") as refused:
            Database(f"postgresql+psycopg://user:{PASSWORD}@host:{port}x/name")
        assert PASSWORD not in "".join(traceback.format_exception(refused.value))

    def test_a_password_is_not_shown_wherever_it_stands(self) -> None:
        store = Database(f"postgresql+psycopg://user:{PASSWORD}@127.0.0.1:1/name?password={PASSWORD}")
        told = r"postgresql\+psycopg://user:\*+@127.0.0.1:1/name does not"
        with pytest.raises(Unreachable, match=told) as refused, store.reading():
            pass
        assert PASSWORD not in str(refused.value)

    def test_readers_do_not_wait_for_a_writer(self, sql_store: SqlStore) -> None:
        with sql_store._database.writing() as connection:
            connection.execute(text("UPDATE jobs SET name = name"))
            assert sql_store.jobs.open() == []


class TestOpenRows:
    def test_each_is_told_as_it_is_now_whoever_has_changed_it(self, store: WholeStore) -> None:
        """What was read before is not read again, unless it has changed."""
        host = replace(a_host("a"), heartbeat_at=None)
        store.hosts.add(host)
        store.jobs.add(a_job(1))
        assert list(store.hosts.open()) == [host]
        store.note_heartbeat(host.id, START, CLASS, ())
        assert [one.heartbeat_at for one in store.hosts.open()] == [START]
        before = store.jobs.open()
        with store.jobs.lease(a_job(1).id) as lease:
            lease.write(replace(lease.row, deferred="no room"))
        assert [one.deferred for one in before] == [a_job(1).deferred]
        assert [one.deferred for one in store.jobs.open()] == ["no room"]
        with store.jobs.lease(a_job(1).id) as lease:
            lease.write(replace(lease.row, state=JobState.COMPLETED))
        assert list(store.jobs.open()) == []
