"""Recovery by the real clock: a simulated GitHub as a process, the real adapter, a real store, a twentieth of the time.

The intervals are those of production, multiplied as `SPOT_RUNNER_RECOVERY_PACE` would; graces are not shortened.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Self

import httpx
import pytest

from tests.contract.github.places import Place, PlayedRunner, simulated_github
from tests.contract.store_rows import CLASS, a_host, a_runner
from tests.fakes.hints import LossyHints
from webhook.deliveries import read
from workers.bootstrap.recovery import recovery_of
from workers.clock import SystemClock
from workers.domain.host import Host
from workers.domain.messages import MonitorState, RunnerReport
from workers.domain.names import HostId, JobId, RunnerId
from workers.domain.runner import RunnerState
from workers.ports import HostApi
from workers.reconcilers.recovery import Recovery
from workers.reconcilers.survey import Ours
from workers.store.repository import SqlStore, open_store

LABELS = ["spot-runner"]
STEPS = [("one", "true")]
PACE = 0.05
ACCEPTED, UNAVAILABLE = 202, 503
MARK = "spot-runner-3fa9c2-"
ORPHAN, BUSY = RunnerId(f"{MARK}0000000001"), RunnerId(f"{MARK}0000000002")
HOST = HostId("a")
# Beside what the machine itself was late: one look at a time, and what GitHub takes to answer.
SLACK_S = 3.0
TICK_S = 0.1


class Lateness:
    """How much later than asked for this machine wakes whoever sleeps: it may be busy with others, or stand still."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._count, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _count(self) -> None:
        began = time.monotonic()
        while not self._over.wait(TICK_S):
            now = time.monotonic()
            self.seconds += max(now - began - TICK_S, 0.0)
            began = now


class OneHost:
    """Says every second what it has, and ends what it is told to."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self.here = {ORPHAN, BUSY}

    def beat(self) -> None:
        reports = [RunnerReport(name, 1, MonitorState.RUNNING) for name in sorted(self.here)]
        self._store.note_heartbeat(HOST, SystemClock().now(), CLASS, reports)

    def stop(self, host: Host, runner_id: RunnerId, epoch: int) -> None:
        assert (host.id, epoch) == (HOST, 1)
        self.here.discard(runner_id)


class Worker:
    """Sweeps every second, as a worker does every fifteen, and takes what GitHub delivers."""

    def __init__(self, place: Place, store: SqlStore, host: OneHost, recovery: Recovery) -> None:
        self._place, self._store, self._host, self._recovery = place, store, host, recovery

    def until(self, reached: Callable[[], object], limit_s: float) -> float:
        """Work until this is so, and return how long it took, without what the machine was late."""
        began = time.monotonic()
        with Lateness() as late:
            while not reached():
                assert time.monotonic() - began - late.seconds < limit_s + SLACK_S
                self._host.beat()
                for _, name in list(self._recovery.due()):
                    self._recovery.look(name)
                self._take()
                threading.Event().wait(0.2)
            return time.monotonic() - began - late.seconds

    def _take(self) -> None:
        """Write down what arrived and was answered well."""
        accepted = {one["guid"] for one in self._place.control.deliveries() if one["status_code"] == ACCEPTED}
        for one in self._place.receiver.received:
            if one.headers["x-github-delivery"] in accepted:
                self._store.write_deliveries([read(httpx.Headers(one.headers), one.body, SystemClock().now())])


@pytest.fixture
def github(tmp_path: Path) -> Iterator[Place]:
    with simulated_github(tmp_path) as place:
        yield place
        assert place.control.violations() == []


def test_what_failed_was_lost_or_is_left_over_is_found_in_time(github: Place, tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'store.sqlite'}", SystemClock())
    store.hosts.add(replace(a_host("a"), deadline_at=None))
    over = replace(a_runner(1, "a", RunnerState.GONE), id=BUSY, installation_id=github.installation)
    store.runners.add(replace(over, repository=github.repository))
    port, host = github.port(), OneHost(store)
    hosts: HostApi = host  # type: ignore[assignment]  # nothing else is asked of it here
    recovery = recovery_of(store, port, port.lists, hosts, LossyHints(Random(0)), SystemClock(), Ours(MARK), PACE)
    worker = Worker(github, store, host, recovery)
    running = JobId(github.control.start_jobs(github.repository, LABELS, STEPS)[0])
    busy = port.register(github.installation, github.repository, BUSY, LABELS)
    assert PlayedRunner(github, busy.jit_config).taking() == running
    leaked = port.register(github.installation, github.repository, f"{MARK}0000000003", LABELS)

    took = {"an orphan is gone": worker.until(lambda: ORPHAN not in host.here, 60)}
    assert host.here == {BUSY}, "GitHub calls that one busy"

    github.receiver.statuses.put(UNAVAILABLE)
    failed = JobId(github.control.start_jobs(github.repository, LABELS, STEPS)[0])
    took["a failed delivery is served"] = worker.until(lambda: store.facts_of(failed), 120 * PACE)

    github.control.set_shares(lost=1.0)
    lost = JobId(github.control.start_jobs(github.repository, LABELS, STEPS)[0])
    took["a lost one is served"] = worker.until(lambda: store.facts_of(lost), 300 * PACE)
    assert [one.delivery for one in store.facts_of(lost)] == [f"sweep-{lost}-queued"]

    took["a registration is gone"] = worker.until(lambda: leaked.github_id not in registered(github), 180)
    sys.stdout.write(f"at {PACE} of the intervals, in seconds: {took}\n")
    assert busy.github_id in registered(github)
    store.close()


def registered(github: Place) -> set[int]:
    return {one["id"] for one in github.control.runners() if one["gone_because"] is None}
