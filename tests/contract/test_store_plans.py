"""What grows for ever is asked through an index: how a database would answer, in its own words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
from sqlalchemy import event

from tests.contract.store_rows import CLASS, START, a_host, a_job, a_runner
from workers.domain.messages import GuestRunnerState, MonitorState, RunnerReport
from workers.domain.names import HostId
from workers.store.repository import SqlStore

H = HostId("a")
Ask = Callable[[SqlStore], object]


@contextmanager
def hearing(store: SqlStore) -> Iterator[list[tuple[str, Any]]]:
    """Give every statement, and what it was told, that the database is asked meanwhile."""
    asked = list[tuple[str, Any]]()

    def hear(_connection: object, _cursor: object, statement: str, told: object, *_: object) -> None:
        asked.append((statement, told))

    engines = store._database.reader, store._database.writer
    for engine in engines:
        event.listen(engine, "before_cursor_execute", hear)
    try:
        yield asked
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", hear)


def plans(store: SqlStore, ask: Ask) -> list[str]:
    """Return how the database would answer each question of `ask`."""
    with hearing(store) as asked:
        ask(store)
    with store._database.writer.connect() as connection:
        if store._database.is_postgresql:  # what is short it reads as a whole
            for way in ("seqscan", "bitmapscan"):
                connection.exec_driver_sql(f"SET LOCAL enable_{way} = off")
        explain = "EXPLAIN " if store._database.is_postgresql else "EXPLAIN QUERY PLAN "
        return [
            str(connection.exec_driver_sql(explain + statement, told).all())
            for statement, told in asked
            if statement.startswith("SELECT")
        ]


def report(store: SqlStore) -> None:
    """Let a host have told of a runner whose load it has not measured."""
    store.hosts.add(a_host(H))
    store.jobs.add(a_job())
    store.runners.add(a_runner(1, H))
    runner_id = store.runners.open()[0].id
    store.note_heartbeat(H, START, CLASS, [RunnerReport(runner_id, 1, MonitorState.RUNNING, GuestRunnerState.RUNNING)])


QUESTIONS: Final[dict[str, tuple[str, Ask]]] = {
    "the runners of one host": ("ix_runners_host_id", lambda store: store.runners_on(H)),
    "the timeline of one host": ("ix_events_host_id", lambda store: store.timeline_of(H)),
    "jobs of which a fact is in no row": ("ix_facts_unseen", lambda store: store.jobs_with_unseen_facts()),
    "a load that a former host has measured": (
        "ix_reports_runner_id",
        lambda store: store.report_of(store.runners.open()[0].id),
    ),
}


@pytest.mark.parametrize(("index", "ask"), QUESTIONS.values(), ids=QUESTIONS)
def test_an_index_answers(sql_store: SqlStore, index: str, ask: Ask) -> None:
    report(sql_store)
    plan = plans(sql_store, ask)[-1]
    assert index in plan


def test_the_timeline_of_one_host_is_not_sorted_for_its_order(sql_store: SqlStore) -> None:
    (plan,) = plans(sql_store, lambda store: store.timeline_of(H))
    assert "Sort" not in plan
    assert "TEMP B-TREE" not in plan
