"""What was heard lately: deliveries by their GUIDs, repositories by their facts, microVMs by the last heartbeat."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from tests.contract.store_rows import CLASS, START, WholeStore, a_delivery, a_fact, a_host, a_job, a_runner
from workers.domain.host import HostState
from workers.domain.listed import Scope
from workers.domain.messages import MonitorState, RunnerReport
from workers.domain.names import HostId, JobId, RunnerId
from workers.domain.runner import RunnerEnd, RunnerState

SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)
A, B = HostId("a"), HostId("b")


def report(number: int) -> RunnerReport:
    return RunnerReport(RunnerId(f"spot-runner-{number}"), 1, MonitorState.RUNNING)


def names(store: WholeStore, host_id: HostId) -> set[str] | None:
    said = store.reported(START).get(host_id)
    return None if said is None else {one.runner_id for one in said}


class TestDeliveries:
    def test_those_that_were_written_down_are_known(self, store: WholeStore) -> None:
        store.write_deliveries([a_delivery("g"), a_delivery("h")])
        assert set(store.known_deliveries({"g", "x"})) == {"g"}
        assert set(store.known_deliveries(())) == set()
        many = {f"m{number}" for number in range(1200)}
        store.write_deliveries([replace(a_delivery(guid), fact=None) for guid in many])
        assert set(store.known_deliveries(many | {"x"})) == many


class TestRepositories:
    def test_those_of_late_facts_are_active_the_latest_first(self, store: WholeStore) -> None:
        for number, (repository, age) in enumerate([("a/old", 60), ("a/x", 5), ("b/y", 3), ("a/x", 1)]):
            fact = replace(a_fact(f"g{number}"), repository=repository, seen_at=START - age * SECOND)
            store.write_deliveries([replace(a_delivery(fact.delivery), fact=fact)])
        assert list(store.active_repositories(START - 30 * SECOND)) == [Scope(11, "a/x"), Scope(11, "b/y")]
        assert list(store.active_repositories(START)) == []


class TestReported:
    def test_only_what_the_last_heartbeat_said_is_there(self, store: WholeStore) -> None:
        store.hosts.add(replace(a_host("a"), deadline_at=None))
        store.hosts.add(replace(a_host("b"), state=HostState.DRAINING))
        store.note_heartbeat(A, START, CLASS, [report(1), report(2)])
        store.note_heartbeat(B, START, CLASS, [report(3)])
        store.note_heartbeat(A, START + SECOND, CLASS, [report(2)])
        assert names(store, A) == {"spot-runner-2"}
        assert names(store, B) == {"spot-runner-3"}
        store.note_heartbeat(A, START + 2 * SECOND, CLASS, [])
        assert names(store, A) == set()

    def test_a_host_that_was_not_heard_lately_or_is_given_up_says_nothing(self, store: WholeStore) -> None:
        store.hosts.add(a_host("a"))
        store.hosts.add(replace(a_host("b"), state=HostState.TERMINATING))
        for host_id in (A, B):
            store.note_heartbeat(host_id, START, CLASS, [report(1)])
        assert names(store, A) == {"spot-runner-1"}
        assert names(store, B) is None
        assert store.reported(START + SECOND) == {}

    def test_a_report_is_whole(self, store: WholeStore) -> None:
        store.hosts.add(a_host("a"))
        store.note_heartbeat(A, START, CLASS, [report(1)])
        assert list(store.reported(START)[A]) == [report(1)]


def test_who_has_run_what_nobody_told_of_is_found_as_long_as_that_is_recent(store: WholeStore) -> None:
    store.hosts.add(a_host(A))
    for number, (state, end, age) in enumerate(
        (
            (RunnerState.GONE, RunnerEnd.UNTOLD, 0),
            (RunnerState.GONE, RunnerEnd.UNTOLD, 2),
            (RunnerState.STOPPING, RunnerEnd.UNTOLD, 0),
            (RunnerState.GONE, RunnerEnd.UNUSED, 0),
        )
    ):
        store.jobs.add(replace(a_job(), id=JobId(number)))
        runner = replace(a_runner(number, A, state), end=end, requested_at=START - age * HOUR)
        assert store.runners.add(runner)
    assert [runner.number for runner in store.untold(START - HOUR)] == [0]
    assert {runner.number for runner in store.untold(START - 2 * HOUR)} == {0, 1}
