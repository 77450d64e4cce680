"""Real guests parked in a real store behind the real listener, and taken out of it again on another host."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.e2e.busy_guest import busy_script
from tests.e2e.engine_rig import END_OF_MOVE, EngineHost, eventually, runner_package
from tests.e2e.park_rig import ParkRig
from tests.e2e.scripted_guest import scripted_package
from workers.domain.messages import BootOrder, MonitorState, StartOrder
from workers.domain.migration import MigrationPhase
from workers.domain.overlay import GUEST_MTU
from workers.domain.park import MANIFEST, Stream, object_name, part_name
from workers.host.microvm import fresh_identity

pytestmark = [pytest.mark.root, pytest.mark.guest, pytest.mark.timeout(600)]
PAUSED, COMMITTED = MigrationPhase.PAUSED, MigrationPhase.COMMITTED
FINISHED, ABORTED = MigrationPhase.FINISHED, MigrationPhase.ABORTED
NAMES = (MANIFEST, *(part_name(stream, number) for stream in Stream for number in range(64)))


@pytest.fixture(scope="module")
def rig() -> Iterator[ParkRig]:
    rig = ParkRig(scripted_package(runner_package()), ("a", "b"))
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
    host.inside.run(host.engine.start_runner(order.runner_id, StartOrder(order.epoch, busy_script(**work))))


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


def test_a_guest_of_1_gib_is_parked_over_a_line_of_1_gbit(rig: ParkRig, order: BootOrder) -> None:
    """Half of the memory is random, so that nothing makes it smaller; the line is shaped, not assumed.

    A notice of 30 s is enough for it (what is printed); a machine that others use at the same time may need more.
    """
    before = overlay_mib(rig["a"], order)
    start(rig["a"], order, seconds=35.0, memory_mib=16, disk_mib=48, random_mib=500, pace_s=0.2)
    # It writes its disk only after the whole of its memory.
    eventually(lambda: overlay_mib(rig["a"], order) - before > 16, "the guest holds what it was told to", 240.0)
    rig["a"].place.call(shape_line, "1gbit")
    try:
        began = time.monotonic()
        row = rig.begin_park(order, "a", seconds=120.0)
        rig.commit(row.id)
        took_s = time.monotonic() - began
    finally:
        rig["a"].place.call(shape_line, None)
    eventually(lambda: rig.rows.get(row.id).wiped_at, "the source has wiped what it parked")
    figures = rig.rows.figures
    stood_s = figures["stored_at"] - figures["stopped_at"]
    print(f"parked in {took_s:.1f} s, stood still for {stood_s:.2f} s of it, {figures}")  # noqa: T201 what is measured
    assert figures["stored_mib"] > 500
    resume = rig.begin_resume(rig.rows.get(row.id), order, "b")
    assert rig.rows.wait(resume.id, COMMITTED, *END_OF_MOVE).phase is not ABORTED, rig.rows.reasons
    assert rig["b"].wait_ended(order.runner_id, 180.0) == 0


def overlay_mib(host: EngineHost, order: BootOrder) -> float:
    """What this guest's own disk holds."""
    return host.microvm(order.runner_id).overlay.stat().st_blocks / 2048


def shape_line(rate: str | None) -> None:
    """Give the host that the calling thread is in a line of this rate, or its own again."""
    subprocess.run(["tc", "qdisc", "del", "dev", "eth0", "root"], check=False, capture_output=True, timeout=10)
    if rate is not None:
        limits = ("rate", rate, "burst", "128kb", "latency", "50ms")
        subprocess.run(["tc", "qdisc", "add", "dev", "eth0", "root", "tbf", *limits], check=True, timeout=10)


def test_a_part_that_was_changed_in_the_store_is_refused_and_the_guest_is_not_lost(
    rig: ParkRig, order: BootOrder
) -> None:
    park = rig.park(order, "a")
    name = object_name(park.id, "memory-000000")
    whole = rig.store.read(name)
    assert whole is not None
    rig.store.write(name, whole[:-1] + bytes([whole[-1] ^ 1]))
    row = rig.begin_resume(park, order, "b")
    assert rig.rows.wait(row.id, COMMITTED, *END_OF_MOVE).phase is ABORTED
    assert any("memory-000000: its hash is not the manifest's" in reason for reason in rig.rows.reasons)
    rig.settle(order.runner_id)
    assert rig["b"].report(order.runner_id) is None, "nothing is left of the attempt"
    rig.store.write(name, whole)
    again = rig.begin_resume(park, order, "b", attempt=3)
    assert rig.rows.wait(again.id, COMMITTED, *END_OF_MOVE).phase is not ABORTED, rig.rows.reasons
    eventually(lambda: rig.rows.get(again.id).running_at, "the guest runs")
    runs_alone_on(rig, "b", order, 3)


def test_a_store_that_takes_nothing_leaves_the_guest_where_it_is(rig: ParkRig, order: BootOrder) -> None:
    start(rig["a"], order, seconds=5.0, memory_mib=8, disk_mib=8)
    rig.rows.sign = lambda *_: dict.fromkeys(NAMES, "/v1/objects/parks/x/memory-000000?expires=1&signature=00")
    try:
        row = rig.begin_park(order, "a")
        assert rig.rows.wait(row.id, *END_OF_MOVE).phase is ABORTED
    finally:
        rig.rows.sign = rig.signed
    assert any("signature" in reason for reason in rig.rows.reasons), rig.rows.reasons
    assert rig["a"].wait_ended(order.runner_id) == 0
    runs_alone_on(rig, "a", order, 1)


@pytest.mark.parametrize("moment", ["copying", "paused"])
def test_the_sources_daemon_is_restarted_while_it_parks(rig: ParkRig, order: BootOrder, moment: str) -> None:
    """Before PAUSED was said the park is given up; after it, the row alone decides."""
    start(rig["a"], order, seconds=5.0, memory_mib=8, disk_mib=32)
    row = rig.begin_park(order, "a")
    if moment == "paused":
        rig.rows.wait(row.id, PAUSED)
    rig["a"].restart()
    if moment == "paused":
        rig.commit(row.id)
        eventually(lambda: rig.rows.get(row.id).wiped_at, "the source has wiped what it parked")
        rig.settle(order.runner_id)
        assert rig["a"].report(order.runner_id) is None
        return
    assert rig.rows.wait(row.id, *END_OF_MOVE).phase is ABORTED
    runs_alone_on(rig, "a", order, 1)
    assert rig["a"].wait_ended(order.runner_id) == 0
    journal = (rig["a"].parts.home / "journal" / f"{order.runner_id}.json").read_text()
    assert (row.key or "no key") not in journal


def test_the_targets_daemon_is_restarted_while_it_fetches(rig: ParkRig, order: BootOrder) -> None:
    park = rig.park(order, "a")
    row = rig.begin_resume(park, order, "b")
    rig["b"].restart()
    journal = (rig["b"].parts.home / "journal" / f"{order.runner_id}.json").read_text()
    assert park.key is not None
    assert park.key not in journal
    decided = rig.rows.wait(row.id, COMMITTED, *END_OF_MOVE)
    if decided.phase is ABORTED:  # unless it held the whole guest by then
        rig.settle(order.runner_id)
        again = rig.begin_resume(park, order, "b", attempt=3)
        assert rig.rows.wait(again.id, COMMITTED, *END_OF_MOVE).phase is not ABORTED, rig.rows.reasons
    runs_alone_on(rig, "b", order, 3)


def test_a_park_that_takes_too_long_is_given_up_and_the_guest_runs_on(rig: ParkRig, order: BootOrder) -> None:
    start(rig["a"], order, seconds=10.0, memory_mib=8, disk_mib=64)
    rig["a"].place.call(shape_line, "20mbit")
    try:
        row = rig.begin_park(order, "a", seconds=8.0)
        assert rig.rows.wait(row.id, *END_OF_MOVE).phase is ABORTED
    finally:
        rig["a"].place.call(shape_line, None)
    assert rig["a"].wait_ended(order.runner_id) == 0
    runs_alone_on(rig, "a", order, 1)
