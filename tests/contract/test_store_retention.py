"""What has ended long ago is removed with all that belongs to it, and nothing else is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.contract.store_rows import (
    CLASS,
    START,
    ManualClock,
    a_delivery,
    a_fact,
    a_host,
    a_job,
    a_migration,
    a_runner,
)
from workers.domain.errors import TryLater
from workers.domain.events import Event, Happening
from workers.domain.host import HOST, HostState
from workers.domain.job import JOB, JobState
from workers.domain.messages import MonitorState, RunnerReport
from workers.domain.migration import MIGRATION, MigrationPhase
from workers.domain.names import HostId, RunnerId
from workers.domain.runner import RUNNER, RunnerState
from workers.reconcilers.retention import BATCH, BATCHES_MAX, DELIVERIES_KEPT, INTERVAL, Retention
from workers.store.repository import SqlStore, open_store

LONG_AFTER = START + timedelta(days=100)
KEPT = timedelta(days=90)
DAY = timedelta(days=1)


@pytest.fixture
def sql(store_url: str, clock: ManualClock) -> Iterator[SqlStore]:
    with closing(open_store(store_url, clock)) as opened:
        yield opened


def forgotten(sql: SqlStore) -> int:
    removed, some = 0, 1
    while some:
        removed += (some := sql.attic.forget(LONG_AFTER - KEPT, 2))
    return removed


@pytest.mark.parametrize("state", JobState)
def test_a_job_goes_with_what_github_said_of_it_once_it_has_ended(sql: SqlStore, state: JobState) -> None:
    old, late = a_job(1, state), replace(a_job(2, state), queued_at=LONG_AFTER)
    sql.jobs.add(old)
    sql.jobs.add(late)
    for job in (old, late):
        fact = replace(a_fact(f"g{job.id}"), job_id=job.id)
        sql.write_deliveries([replace(a_delivery(fact.delivery), fact=fact)])
    forgotten(sql)
    has_ended = state in JOB.last
    assert (sql.jobs.get(old.id) is None) == has_ended
    assert len(sql.facts_of(old.id)) == (0 if has_ended else 1)
    assert sql.jobs.get(late.id) == late
    assert len(sql.facts_of(late.id)) == 1
    assert sql.known_deliveries([f"g{old.id}"]), "deliveries have a time of their own"


@pytest.mark.parametrize("state", RunnerState)
def test_a_runner_goes_with_what_its_host_said_of_it(sql: SqlStore, state: RunnerState) -> None:
    sql.hosts.add(a_host("a"))
    runner = a_runner(1, "a", state)
    sql.runners.add(runner)
    sql.note_heartbeat(HostId("a"), START, CLASS, [RunnerReport(runner.id, 1, MonitorState.RUNNING)])
    said = sql.reported(START)[HostId("a")]
    assert len(said) == 1
    forgotten(sql)
    is_left = state not in RUNNER.last
    assert (sql.runners.get(runner.id) is not None) == is_left
    assert len(sql.reported(START)[HostId("a")]) == is_left


@pytest.mark.parametrize("phase", MigrationPhase)
def test_a_migration_goes_once_it_has_ended(sql: SqlStore, phase: MigrationPhase) -> None:
    for name in ("a", "b"):
        sql.hosts.add(a_host(name))
    runner = a_runner(1, "a")
    sql.runners.add(runner)
    row = a_migration(runner, "b", phase)
    sql.migrations.add(row)
    forgotten(sql)
    assert (sql.migrations.get(row.id) is None) == (phase in MIGRATION.last)


@pytest.mark.parametrize("state", HostState)
def test_a_host_goes_with_its_token_and_leaves_its_place_on_the_overlay(sql: SqlStore, state: HostState) -> None:
    host = replace(a_host("a"), state=state)
    sql.hosts.add(host)
    token = sql.issue_token(host.id, START)
    sql.seat(host.id, "a key", None)
    forgotten(sql)
    is_left = state not in HOST.last
    assert (sql.hosts.get(host.id) is not None) == is_left
    assert (sql.token(token) is not None) == is_left
    if not is_left:
        sql.seat(HostId("b"), "a key", None)  # would be refused as another's


def test_the_timeline_loses_its_oldest_entries(sql: SqlStore) -> None:
    for day in (0, 1, 2, 20):
        sql.record(Event(Happening.JOB_QUEUED, START + day * DAY, runner_id=RunnerId(f"r{day}")))
    assert forgotten(sql) == 3
    assert [event.runner_id for _, event in sql.timeline()] == ["r20"]


def test_deliveries_stay_for_a_week_and_are_looked_for_once_an_hour(sql: SqlStore, clock: ManualClock) -> None:
    sql.write_deliveries([replace(a_delivery(f"g{number}"), fact=None) for number in range(BATCH + 1)])
    retention = Retention(sql.attic, clock, KEPT)
    assert list(retention.due())
    retention.look()
    assert not list(retention.due())
    clock.move(INTERVAL)
    assert list(retention.due())
    assert sql.known_deliveries(["g0", f"g{BATCH}"])
    clock.move(DELIVERIES_KEPT)
    retention.look()
    assert not sql.known_deliveries(["g0", f"g{BATCH}"])


def test_who_has_much_to_forget_lets_others_have_their_turn(clock: ManualClock) -> None:
    class Endless:
        asked = 0

        def forget(self, _before: object, limit: int) -> int:
            self.asked += 1
            return limit

        def forget_deliveries(self, _before: object, limit: int) -> int:
            return limit

    attic = Endless()
    with pytest.raises(TryLater, match="and there are more") as caught:
        Retention(attic, clock, KEPT).look()
    assert attic.asked == BATCHES_MAX
    assert caught.value.at is not None
    assert caught.value.at > clock.now()
