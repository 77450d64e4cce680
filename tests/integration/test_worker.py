"""`spot-runner worker` as it runs: a real Redis, real Celery processes, and both of them taken away."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from tests.contract.store_rows import a_delivery, a_host
from tests.integration.control_plane import (
    PATIENCE_S,
    SPOT_RUNNER,
    ControlPlane,
    a_control_plane,
    children_of,
    ended_at_last,
    eventually,
    is_alive,
)
from workers.app import CONTROL, QUEUES, BackgroundHints, sending_to, worker_app
from workers.bootstrap.rounds import LOOKS_AT_ONCE, SWEEP_LIMIT_S
from workers.domain.host import HostState
from workers.domain.names import HostId, JobId
from workers.store.repository import SqlStore

H = HostId("spot-host-a")
SWEEP_BEGAN = "control sweep of what is swept"
RECORDER = (sys.executable, "-m", "tests.integration.recording_worker")


@pytest.fixture
def control(tmp_path: Path) -> ControlPlane:
    return a_control_plane(tmp_path)


@pytest.fixture
def store(control: ControlPlane) -> Iterator[SqlStore]:
    opened = control.store()
    yield opened
    opened.close()


def looks(control: ControlPlane) -> list[str]:
    record = control.directory / "looks"
    return record.read_text().splitlines() if record.exists() else []


def held(control: ControlPlane) -> list[str]:
    return [look for look in looks(control) if "held" in look]


def logged(control: ControlPlane, what: str) -> bool:
    return what in control.log("worker")


class TestQueues:
    def test_each_process_sweeps_at_its_start_and_a_hint_is_looked_at_once_by_its_own_queue(
        self, control: ControlPlane
    ) -> None:
        hints = BackgroundHints(sending_to(control.redis_url))
        with ExitStack() as stack:
            stack.enter_context(control.redis())
            for queue in QUEUES:
                record = str(control.directory / "looks")
                stack.enter_context(control.running(queue, *RECORDER, queue, control.redis_url, record))
            hints.look_at("job", "1", "2")
            hints.look_at("runner", "r")
            hints.look_at("host", "h")
            hints.look_at("host", "noticed", urgent=True)
            hints.look_at("migration", "m")
            hints.look_at("runner", "last")
            expected = [
                "cloud host h",
                "control job 1",
                "control job 2",
                "control runner last",
                "control runner r",
                "evacuation host noticed",
                "evacuation migration m",
            ]
            swept = [f"{queue} job swept-{queue}" for queue in QUEUES]
            eventually(lambda: {*expected, *swept} <= set(looks(control)))
        assert sorted(look for look in looks(control) if "swept" not in look) == expected

    def test_a_runner_s_hint_is_handed_out_before_jobs_that_were_told_of_earlier(self, control: ControlPlane) -> None:
        send, app = sending_to(control.redis_url), worker_app(control.redis_url)
        with control.redis():
            for kind in ("job", "job", "runner", "installation"):
                send(kind, ("1",), CONTROL)
            with app.connection() as connection, connection.channel() as channel:
                told = [channel.basic_get(CONTROL) for _ in range(4)]
        assert [one.headers["task"].removeprefix("look_at_") for one in told] == [
            "runner",
            "installation",
            "job",
            "job",
        ]


class TestWithoutRedis:
    def test_a_notice_and_a_fact_are_acted_on(self, control: ControlPlane, store: SqlStore) -> None:
        with control.running("worker", *SPOT_RUNNER, "worker") as process:
            eventually(lambda: len(children_of(process.pid)) == len(QUEUES) + 1)
            now = datetime.now(UTC)
            ready = replace(a_host(H, state=HostState.READY), heartbeat_at=now, deadline_at=now + timedelta(hours=1))
            store.hosts.add(ready)
            eventually(lambda: state_of(store) is not HostState.READY)
            assert not control.redis_socket.exists()

    def test_redis_may_go_and_come_back(self, control: ControlPlane, store: SqlStore) -> None:
        with ExitStack() as stack:
            redis = stack.enter_context(control.redis())
            stack.enter_context(control.running("worker", *SPOT_RUNNER, "worker"))
            eventually(lambda: control.log("worker").count(" ready.") == len(QUEUES))
            redis.kill()
            redis.wait(PATIENCE_S)
            control.redis_socket.unlink()
            now = datetime.now(UTC)
            store.hosts.add(replace(a_host(H), heartbeat_at=now, deadline_at=now + timedelta(hours=1)))
            eventually(lambda: state_of(store) is not HostState.READY)
            stack.enter_context(control.redis())
            store.write_deliveries([a_delivery("guid", job=8)])
            hints = BackgroundHints(sending_to(control.redis_url))

            def is_known() -> bool:
                hints.look_at("job", "8")
                return store.jobs.get(JobId(8)) is not None

            eventually(is_known)
            for queue in QUEUES:
                eventually(partial(logged, control, f"sweep-{queue}"))


class TestItsEnd:
    @pytest.mark.parametrize(
        ("number", "has_redis"), [(signal.SIGTERM, True), (signal.SIGTERM, False), (signal.SIGKILL, False)]
    )
    def test_no_process_is_left(self, control: ControlPlane, number: signal.Signals, *, has_redis: bool) -> None:
        with ExitStack() as stack:
            if has_redis:
                stack.enter_context(control.redis())
            process = stack.enter_context(control.running("worker", *SPOT_RUNNER, "worker"))
            eventually(lambda: len(children_of(process.pid)) == len(QUEUES) + 1)
            eventually(lambda: "beat: Starting" in control.log("worker"))
            offspring = children_of(process.pid)
            with ended_at_last(offspring):
                process.send_signal(number)
                assert process.wait(PATIENCE_S) == (-9 if number is signal.SIGKILL else 0)
                eventually(lambda: not any(map(is_alive, offspring)))

    def test_who_is_told_to_end_finishes_the_looks_that_it_has_begun_and_begins_no_other(
        self, control: ControlPlane
    ) -> None:
        hints = BackgroundHints(sending_to(control.redis_url))
        record = str(control.directory / "looks")
        with ExitStack() as stack:
            stack.enter_context(control.redis())
            process = stack.enter_context(control.running(CONTROL, *RECORDER, CONTROL, control.redis_url, record))
            hints.look_at("job", *(f"held-{number}" for number in range(4 * LOOKS_AT_ONCE)))
            eventually(lambda: len(held(control)) == LOOKS_AT_ONCE)
            swept = looks(control).count(SWEEP_BEGAN)
            worker_app(control.redis_url).send_task("sweep", [CONTROL], queue=CONTROL)
            eventually(lambda: looks(control).count(SWEEP_BEGAN) > swept)  # its task ends with its looks, the last ones
            process.send_signal(signal.SIGTERM)
            eventually(lambda: "looks_dropped" in control.log(CONTROL), SWEEP_LIMIT_S / 2)  # else that task ends it
            (control.directory / "released").touch()
            assert process.wait(PATIENCE_S) == 0
        assert len(held(control)) == LOOKS_AT_ONCE

    def test_a_queue_s_process_that_dies_is_started_again(self, control: ControlPlane) -> None:
        with control.running("worker", *SPOT_RUNNER, "worker") as process:
            eventually(lambda: len(children_of(process.pid)) == len(QUEUES) + 1)
            killed = min(children_of(process.pid))
            os.kill(killed, signal.SIGKILL)
            eventually(lambda: len(children_of(process.pid) - {killed}) == len(QUEUES) + 1)


def state_of(store: SqlStore) -> HostState:
    host = store.hosts.get(H)
    assert host is not None
    return host.state
