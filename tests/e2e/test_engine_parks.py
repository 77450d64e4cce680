"""Real guests parked in a real store behind the real listener, and taken out of it again on another host."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.e2e.busy_guest import busy_package
from tests.e2e.engine_rig import END_OF_MOVE, EngineHost, eventually, runner_package
from tests.e2e.park_rig import ParkRig
from workers.domain.messages import BootOrder, MonitorState, StartOrder
from workers.domain.migration import MigrationPhase
from workers.domain.overlay import GUEST_MTU
from workers.host.microvm import fresh_identity

pytestmark = [pytest.mark.root, pytest.mark.guest, pytest.mark.timeout(600)]
PAUSED, COMMITTED = MigrationPhase.PAUSED, MigrationPhase.COMMITTED
FINISHED, ABORTED = MigrationPhase.FINISHED, MigrationPhase.ABORTED


@pytest.fixture(scope="module")
def rig() -> Iterator[ParkRig]:
    rig = ParkRig(busy_package(runner_package()), ("a", "b"))
    yield rig
    rig.end()


@pytest.fixture
def order(rig: ParkRig, request: pytest.FixtureRequest) -> Iterator[BootOrder]:
    """A guest on host a; each test its own runner, since one that is gone stays gone."""
    order = rig.order(400 + request.session.items.index(request.node))
    rig["a"].inside.run(rig["a"].engine.boot(order))
    yield order
    rig.rows.lost.clear()
    rig.rows.deaf.clear()
    for row in rig.rows.of(order.runner_id):
        if row.phase not in END_OF_MOVE | {COMMITTED}:
            rig.rows.abort(row.id)
    rig.settle(order.runner_id)
    for host in rig.hosts.values():
        report = host.report(order.runner_id)
        host.inside.run(host.engine.stop(order.runner_id, report.epoch if report else 9))


def start(host: EngineHost, order: BootOrder, **work: float) -> None:
    host.inside.run(host.engine.start_runner(order.runner_id, StartOrder(order.epoch, json.dumps(work))))


def runs_alone_on(rig: ParkRig, name: str, order: BootOrder, epoch: int) -> None:
    rig.settle(order.runner_id)
    report = rig[name].report(order.runner_id)
    assert report is not None
    assert (report.monitor, report.epoch) == (MonitorState.RUNNING, epoch)
    assert all(host.report(order.runner_id) is None for other, host in rig.hosts.items() if other != name)
    assert rig[name].call(order.runner_id, "RunnerStatus")


def test_a_busy_guest_is_parked_and_goes_on_elsewhere_and_loses_nothing(rig: ParkRig, order: BootOrder) -> None:
    start(rig["a"], order, seconds=20.0, memory_mib=16, disk_mib=48)
    park = rig.park(order, "a")
    parked_at = time.monotonic()
    assert rig["a"].report(order.runner_id) is None, "nothing is left at the source"
    row = rig.begin_resume(park, order, "b")
    assert rig.rows.wait(row.id, COMMITTED, *END_OF_MOVE).phase is COMMITTED, rig.rows.reasons
    eventually(lambda: rig.rows.get(row.id).running_at, "the guest runs")
    runs_alone_on(rig, "b", order, 3)
    stood_s = time.monotonic() - parked_at
    told = fresh_identity(replace(order, epoch=3), GUEST_MTU)
    step = rig["b"].call(order.runner_id, "AfterResume", "unparked", told)["clock_step_s"]
    assert abs(step) < stood_s / 2, "its clock was stepped before"
    assert rig["b"].wait_ended(order.runner_id) == 0
