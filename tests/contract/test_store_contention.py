"""Several threads and several processes at once: what must happen once happens once."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Barrier
from threading import Event as Flag
from typing import TypeVar

import pytest
from sqlalchemy import text

from tests.contract.store_contenders import WAIT_S, count_up, decide_all, open_and_add, place, place_all
from tests.contract.store_rows import (
    START,
    ManualClock,
    WholeStore,
    a_delivery,
    a_host,
    a_job,
    a_migration,
    a_runner,
    moving,
    room_for,
)
from workers.domain.errors import LeaseLost, NoRoom
from workers.domain.events import Event, Happening
from workers.domain.migration import Migration, MigrationPhase, Role, Said, decide
from workers.domain.names import HostId, JobId
from workers.domain.runner import Quota, RunnerState
from workers.store.connection import Database
from workers.store.repository import SqlStore, open_store

T = TypeVar("T")
P = MigrationPhase
ROUNDS = 200
NEW_FILES = 150
QUOTAS = 40


def at_once(*calls: Callable[[], T]) -> list[T]:
    """Make these calls in threads that start together; return what they returned, in the order of the calls."""
    barrier = Barrier(len(calls))

    def started(call: Callable[[], T]) -> T:
        barrier.wait(WAIT_S)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(WAIT_S) for future in [pool.submit(started, call) for call in calls]]


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    """Processes that share nothing with this one but the database."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.contract.store_contenders"])
    with ProcessPoolExecutor(4, mp_context=context) as pool:
        yield pool


class TestOpening:
    def test_processes_that_open_an_empty_database_at_once_all_find_their_tables(
        self, processes: Executor, store_url: str
    ) -> None:
        opened = [processes.submit(open_and_add, store_url) for _ in range(12)]
        assert Counter(future.result(WAIT_S) for future in opened) == {True: 1, False: 11}

    def test_so_do_threads(self, store_url: str) -> None:
        assert sum(at_once(*[partial(open_and_add, store_url)] * 8)) == 1

    def test_a_new_file_refuses_nobody_who_opens_it_while_others_do(self, tmp_path: Path) -> None:
        def reads(url: str) -> bool:
            database = Database(url)
            try:
                with database.reading() as connection:
                    return bool(connection.execute(text("SELECT 1")).scalar_one())
            finally:
                database.close()

        for number in range(NEW_FILES):
            assert sum(at_once(*[partial(reads, f"sqlite:///{tmp_path}/{number}.sqlite")] * 8)) == 8


class TestLeases:
    def test_one_of_many_takers_gets_the_lease(self, store: WholeStore) -> None:
        store.jobs.add(a_job())

        def take(everybody_tried: Barrier) -> bool:
            try:
                with store.jobs.lease(a_job().id):
                    everybody_tried.wait(WAIT_S)
                    return True
            except LeaseLost:
                everybody_tried.wait(WAIT_S)
                return False

        for _ in range(20):
            assert sum(at_once(*[partial(take, Barrier(8))] * 8)) == 1

    def test_no_processs_work_is_written_over(self, processes: Executor, sql_store: SqlStore, store_url: str) -> None:
        sql_store.jobs.add(replace(a_job(), run_attempt=0))
        counting = [processes.submit(count_up, store_url, a_job().id, 50) for _ in range(4)]
        refused = sum(future.result(WAIT_S) for future in counting)
        counted = sql_store.jobs.get(a_job().id)
        assert counted is not None
        assert counted.run_attempt == 200
        assert refused > 0, "nobody ever competed, so nothing was tested"


def paused(store: WholeStore, count: int) -> list[Migration]:
    return [moving(store, number, P.PAUSED) for number in range(count)]


def told_of(store: WholeStore) -> list[str | None]:
    return [event.migration_id for _, event in store.timeline()]


def assert_each_was_decided_once(store: WholeStore, rows: list[Migration], heard: list[list[P]]) -> None:
    assert heard[0] == heard[1], "the two sides heard different decisions"
    for row, phase in zip(rows, heard[0], strict=True):
        runner = store.runners.get(row.runner_id)
        assert runner is not None
        assert (runner.host_id, runner.epoch, runner.migration_id) == (
            ("b", 2, None) if phase is P.COMMITTED else ("a", 1, None)
        )
    assert sorted(map(str, told_of(store))) == sorted(row.id for row in rows), "a decision was told twice or never"


class TestDecisions:
    def test_commit_and_abort_from_two_threads_have_one_winner(self, store: WholeStore) -> None:
        rows = paused(store, ROUNDS)

        def say(row: Migration, phase: P) -> P:
            told = Event(Happening(f"migration_{phase}"), START, migration_id=row.id)
            return store.decide(row, replace(row, phase=phase), told).phase

        def contend(row: Migration) -> list[P]:
            return at_once(partial(say, row, P.COMMITTED), partial(say, row, P.ABORTED))

        pairs = [contend(row) for row in rows]
        assert_each_was_decided_once(store, rows, [[pair[0] for pair in pairs], [pair[1] for pair in pairs]])

    def test_commit_and_abort_from_two_processes_have_one_winner(
        self, processes: Executor, sql_store: SqlStore, store_url: str
    ) -> None:
        rows = paused(sql_store, ROUNDS)
        with multiprocessing.Manager() as shared:
            deciding = [
                processes.submit(decide_all, store_url, rows, phase, together)
                for together in [shared.Barrier(2)]
                for phase in (P.COMMITTED, P.ABORTED)
            ]
            heard = [future.result(WAIT_S) for future in deciding]
        assert_each_was_decided_once(sql_store, rows, heard)

    def test_the_last_words_of_both_hosts_finish_every_migration(self, store: WholeStore) -> None:
        for row in [moving(store, number, P.COMMITTED) for number in range(50)]:
            at_once(
                partial(store.decide, row, decide(row, Role.TARGET, Said.RUNNING, START)),
                partial(store.decide, row, decide(row, Role.SOURCE, Said.WIPED, START)),
            )
        assert store.migrations.open() == []


def is_placed(add: Callable[[T], bool], row: T) -> bool:
    try:
        return add(row)
    except NoRoom:
        return False


class TestRoom:
    def test_ten_that_place_at_once_take_no_more_than_there_is(self, store: WholeStore) -> None:
        for number in range(10):
            host = a_host(f"host-{number}", room_for(3))
            store.hosts.add(host)
            placing = [partial(is_placed, store.runners.add, a_runner(number * 10 + i, host.id)) for i in range(10)]
            assert sum(at_once(*placing)) == 3
            assert len(store.runners_on(host.id)) == 3

    def test_runners_and_migrations_compete_for_the_same_room(self, store: WholeStore) -> None:
        for number in range(0, 40, 4):
            source, target = a_host(f"source-{number}"), a_host(f"target-{number}", room_for(1))
            store.hosts.add(source)
            store.hosts.add(target)
            runner = a_runner(number, source.id)
            store.runners.add(runner)
            came = at_once(
                partial(is_placed, store.migrations.add, a_migration(runner, target.id)),
                partial(is_placed, store.runners.add, a_runner(number + 1, target.id)),
            )
            assert sum(came) == 1

    def test_one_number_goes_to_one_runner(self, store: WholeStore) -> None:
        store.hosts.add(a_host("a"))
        same = [replace(a_runner(number, "a"), number=7) for number in range(8)]
        assert sum(at_once(*[partial(is_placed, store.runners.add, runner) for runner in same])) == 1


class TestQuotas:
    def test_of_many_that_place_at_once_as_many_as_the_quota_allows_succeed(self, store: WholeStore) -> None:
        for number in range(6):
            quota, host = Quota("ci", f"octo/hello-{number}", 2), a_host(f"host-{number}")
            store.hosts.add(host)
            jobs = [a_job(number * 10 + i) for i in range(8)]
            for job in jobs:
                store.jobs.add(job)
            assert sum(at_once(*[partial(place, store, job, quota, host.id) for job in jobs])) == 2
            assert len(store.runners_on(host.id)) == 2

    def test_two_workers_together_never_exceed_a_quota(
        self, processes: Executor, sql_store: SqlStore, store_url: str
    ) -> None:
        """On hosts of their own, so that no host's row keeps them apart."""
        quotas = [Quota("ci", f"octo/hello-{number}", 1) for number in range(QUOTAS)]
        for number in range(QUOTAS):
            for side in (0, 1):
                sql_store.hosts.add(a_host(f"host-{number}-{side}"))
                sql_store.jobs.add(a_job(2 * number + side))
        with multiprocessing.Manager() as shared:
            together = shared.Barrier(2)
            placing = [processes.submit(place_all, store_url, quotas, side, together) for side in (0, 1)]
            placed = [future.result(WAIT_S) for future in placing]
        assert [sum(pair) for pair in zip(*placed, strict=True)] == [1] * QUOTAS

    def test_what_is_gone_or_elsewhere_does_not_count(self, store: WholeStore) -> None:
        store.hosts.add(a_host("a"))
        others = [
            a_runner(1, "a", RunnerState.GONE),
            replace(a_runner(2, "a"), pool="other"),
            replace(a_runner(3, "a"), repository="octo/other"),
        ]
        for runner in others:
            store.runners.add(runner)
        for number, is_there in ((4, True), (5, False)):
            store.jobs.add(a_job(number))
            assert place(store, a_job(number), Quota("ci", "OCTO/Hello", 1), HostId("a")) is is_there


class TestOnce:
    def test_deliveries_that_come_in_many_batches_at_once_count_once(self, store: WholeStore) -> None:
        guids = [f"{number:03}" for number in range(400)]
        batches = [guids, guids[::-1], guids[20:] + guids[:20], guids[::2] + guids[1::2]] * 2
        at_once(
            *[lambda batch=batch: store.write_deliveries([a_delivery(guid) for guid in batch]) for batch in batches]
        )
        assert sorted(fact.delivery for fact in store.facts_of(JobId(7))) == guids

    def test_a_token_works_for_one_of_many(self, store: WholeStore) -> None:
        token = store.issue_token(HostId("a"), START.replace(year=2027))
        burned = at_once(*[partial(store.burn_token, token, "10.90.0.16")] * 8)
        assert Counter(burned) == {"a": 1, None: 7}

    def test_who_follows_the_timeline_misses_nothing(self, sql_store: SqlStore, store_url: str) -> None:
        written, each = 6, 40
        done = Flag()

        def write(number: int) -> None:
            for _ in range(each):
                sql_store.record(Event(Happening.JOB_QUEUED, START, job_id=JobId(number)))

        def follow() -> list[int]:
            reader, seen = open_store(store_url, ManualClock()), [0]
            while True:
                is_last = done.is_set()
                seen += [number for number, _ in reader.timeline(after=seen[-1])]
                if is_last:
                    reader.close()
                    return seen[1:]

        with ThreadPoolExecutor(1) as pool:
            following = pool.submit(follow)
            at_once(*[partial(write, number) for number in range(written)])
            done.set()
            seen = following.result(WAIT_S)
        assert seen == [number for number, _ in sql_store.timeline()]
        assert len(seen) == written * each
