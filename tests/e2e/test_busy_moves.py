"""Guests that write faster than their line carries, and many guests on one line: all of them arrive in time."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
import structlog

from tests.e2e.busy_guest import busy_script
from tests.e2e.engine_rig import END_OF_MOVE, Rig, eventually, runner_package
from tests.e2e.scripted_guest import scripted_package
from tests.integration.wires import run
from tests.unit.planning.rows import CLASS
from workers.domain.messages import BootOrder, Load, StartOrder
from workers.domain.migration import LINE_FIGURE, Migration, MigrationPhase
from workers.domain.names import RunnerId
from workers.domain.runner import Shape
from workers.host.pressing import DOWNTIME_MAX_MS
from workers.planning.estimates import load_or_guess, move_time
from workers.planning.evacuation import Move, Situation, moves_now, plan
from workers.planning.lanes import Guest, Target

pytestmark = [pytest.mark.root, pytest.mark.guest, pytest.mark.timeout(600)]
# On a machine with nothing else to do the guest writes some 75 MiB in a second, while it is moved beside other tests
# an eighth of that: the line must carry less, or nobody has to press it.
SLOW_LINE = "80mbit"
TBF = ("burst", "128kb", "latency", "50ms")
BUSY = {"memory_mib": 96, "disk_mib": 1, "toil_bytes": 200}
NOTICE = timedelta(seconds=60)
GUESTS = 6
GIGABIT_MIB_S = 119.0

log = structlog.get_logger()


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig(scripted_package(runner_package()), ("a", "b"))
    yield rig
    rig.end()


def boot(rig: Rig, number: int) -> BootOrder:
    order = rig.order(number)
    rig["a"].inside.run(rig["a"].engine.boot(order))
    return order


def slow_down(rig: Rig, rate: str) -> None:
    """Let host a send no more than that, as `tc` has it: `200mbit`."""
    place = rig["a"].place.name
    run("tc", "-n", place, "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", rate, *TBF)


def busy(rig: Rig, seconds: float) -> BootOrder:
    order = boot(rig, 1)
    rig["a"].inside.run(
        rig["a"].engine.start_runner(order.runner_id, StartOrder(1, busy_script(seconds=seconds, **BUSY)))
    )
    return order


def load_of(rig: Rig, order: BootOrder) -> Load | None:
    report = rig["a"].report(order.runner_id)
    return report.load if report else None


def writes(rig: Rig, order: BootOrder) -> float:
    load = load_of(rig, order)
    return 0.0 if load is None else load.dirty_mib_s or 0.0


def quota(rig: Rig, order: BootOrder) -> str | None:
    """What the guest's processors may use of every period, as the kernel has it."""
    group = rig["a"].microvm(order.runner_id)._group
    place = group.hierarchy.mounts["cpu"] / group.name / "vcpus"
    file = place / ("cpu.cfs_quota_us" if group.hierarchy.version == 1 else "cpu.max")
    return file.read_text().split()[0] if file.exists() else None


def is_capped(rig: Rig, order: BootOrder) -> bool:
    return quota(rig, order) not in {None, "-1", "max"}


def test_a_guest_that_outruns_its_line_arrives_before_the_deadline(rig: Rig) -> None:
    order = busy(rig, seconds=100.0)
    eventually(lambda: writes(rig, order) > 30, "it was measured while it is busy")
    log.info("measured", load=load_of(rig, order))
    slow_down(rig, SLOW_LINE)
    row = rig.begin(order, "a", "b", seconds=150.0)
    phase = rig.rows.wait(row.id, *END_OF_MOVE, limit_s=180.0).phase
    figures = rig.rows.figures
    log.info("moved", phase=phase, reasons=rig.rows.reasons, **figures)
    assert phase is MigrationPhase.FINISHED, rig.rows.reasons
    assert figures["cap_percent"] < 100
    assert figures["resumed_at"] - figures["stopped_at"] < 2 * DOWNTIME_MAX_MS / 1000
    assert rig["b"].wait_ended(order.runner_id, limit_s=180.0) == 0


def test_a_guest_that_was_pressed_is_let_go_when_its_move_ends_or_its_daemon_does(rig: Rig) -> None:
    order = busy(rig, seconds=180.0)
    eventually(lambda: writes(rig, order) > 30, "it was measured while it is busy")
    slow_down(rig, SLOW_LINE)
    for attempt in (1, 2):
        row = rig.begin(order, "a", "b", attempt, seconds=180.0)
        eventually(lambda: is_capped(rig, order), "it is pressed", limit_s=150.0)
        if attempt == 1:
            rig.rows.abort(row.id)
        else:
            rig["a"].restart()
        eventually(lambda: not is_capped(rig, order), "it is let go", limit_s=10.0)
        rig.rows.wait(row.id, MigrationPhase.ABORTED)
        rig.settle(order.runner_id)
    assert rig["a"].call(order.runner_id, "RunnerStatus")


def is_sending(rig: Rig, order: BootOrder) -> bool:
    return rig["a"].inside.run(rig["a"].microvm(order.runner_id).qemu.migration()).get("status") == "active"


def test_a_target_whose_source_dies_says_what_it_did_not_take(rig: Rig) -> None:
    order = boot(rig, 1)
    slow_down(rig, SLOW_LINE)
    row = rig.begin(order, "a", "b")
    eventually(lambda: is_sending(rig, order), "memory is being sent")
    rig.rows.deaf.add(rig["a"].id)
    os.kill(rig["a"].pid(order.runner_id), signal.SIGKILL)
    assert rig.rows.wait(row.id, *END_OF_MOVE).phase is MigrationPhase.ABORTED
    (reason,) = rig.rows.reasons
    assert reason.startswith("target: the target's monitor refused what came: "), reason


def test_a_guest_that_takes_memory_into_use_while_it_is_moved_survives_it(rig: Rig) -> None:
    """What was read as zeros of the package counts beside what the guest writes there afterwards."""
    order = boot(rig, 1)
    slow_down(rig, "200mbit")  # so that the copy takes longer than the work waits
    script = busy_script(seconds=1.0, memory_mib=700, disk_mib=1, pace_s=5.0)
    rig["a"].inside.run(rig["a"].engine.start_runner(order.runner_id, StartOrder(1, script)))
    row = rig.begin(order, "a", "b", seconds=150.0)
    assert rig.rows.wait(row.id, *END_OF_MOVE, limit_s=180.0).phase is MigrationPhase.FINISHED, rig.rows.reasons
    assert rig["b"].wait_ended(order.runner_id, limit_s=180.0) == 0


# ---------------------------------------------------------------- many at once


@dataclass
class Evacuation:
    """The reconciler's part, by the plan itself: what begins now, and anew what was given up, again and again."""

    rig: Rig
    orders: list[BootOrder]
    loads: dict[RunnerId, Load]
    deadline_at: datetime
    rows: dict[RunnerId, Migration] = field(default_factory=dict)
    shares: dict[RunnerId, float | None] = field(default_factory=dict)
    attempts: Counter[RunnerId] = field(default_factory=Counter)

    def run(self) -> None:
        with ThreadPoolExecutor(GUESTS) as hands:
            while not self._is_over():
                assert datetime.now(UTC) < self.deadline_at, ("the notice is over", self.rig.rows.reasons)
                self._forget_what_was_given_up()
                list(hands.map(self._begin, self._due()))
                time.sleep(0.2)

    def _due(self) -> tuple[Move, ...]:
        now = datetime.now(UTC)
        guests = tuple(
            Guest(order.runner_id, order.shape, self.loads[order.runner_id])
            for order in self.orders
            if order.runner_id not in self.rows
        )
        target = Target(self.rig["b"].id, CLASS, Shape(64, 1 << 20, 1 << 20), line_mib_s=GIGABIT_MIB_S)
        seen = Situation(CLASS, self.deadline_at, guests, (target,), tuple(self._under_way(now)))
        decisions = plan(seen, now)
        assert all(isinstance(decision, Move) for decision in decisions), decisions
        return moves_now(decisions, seen, now)

    def _forget_what_was_given_up(self) -> None:
        """A machine that has other things to do can stand still for longer than a source waits for its target."""
        for runner, row in list(self.rows.items()):
            if self.rig.rows.get(row.id).phase is MigrationPhase.ABORTED:
                self.rig.settle(runner)
                del self.rows[runner]

    def _under_way(self, now: datetime) -> Iterator[datetime]:
        for runner, planned in self.rows.items():
            row = self.rig.rows.get(planned.id)
            if row.phase not in END_OF_MOVE | {MigrationPhase.COMMITTED}:
                takes = move_time(load_or_guess(self.loads[runner], self.orders[0].shape), GIGABIT_MIB_S / 2)
                yield max(row.planned_at + takes, now + timedelta(seconds=1))

    def _begin(self, move: Move) -> None:
        order = next(order for order in self.orders if order.runner_id == move.runner_id)
        left = (self.deadline_at - datetime.now(UTC)).total_seconds()
        self.attempts[order.runner_id] += 1
        self.shares[order.runner_id] = move.share_mib_s
        self.rows[order.runner_id] = self.rig.begin(
            order, "a", "b", self.attempts[order.runner_id], left, move.share_mib_s
        )

    def _is_over(self) -> bool:
        rows = [self.rig.rows.get(row.id) for row in self.rows.values()]
        return len(rows) == len(self.orders) and all(row.phase is MigrationPhase.FINISHED for row in rows)


def test_a_host_with_six_guests_is_evacuated_over_a_gigabit_within_its_notice(rig: Rig) -> None:
    orders = [boot(rig, number) for number in range(GUESTS)]
    eventually(lambda: all(load_of(rig, order) for order in orders), "all are measured")
    loads = {order.runner_id: load for order in orders if (load := load_of(rig, order))}
    slow_down(rig, "1gbit")
    began = time.monotonic()
    evacuation = Evacuation(rig, orders, loads, datetime.now(UTC) + NOTICE)
    evacuation.run()
    took_s = time.monotonic() - began
    told = [rig.rows.figures_of[row.id] for row in evacuation.rows.values()]
    pauses_ms = sorted(round((one["resumed_at"] - one["stopped_at"]) * 1000) for one in told)
    sent = round(sum(one["memory_mib_sent"] for one in told))
    expected = round(sum(load.memory_mib for load in loads.values()))
    best = max(one.get(LINE_FIGURE, 0.0) for one in told)
    log.info("evacuated", took_s=took_s, sent_mib=sent, expected_mib=expected, pauses_ms=pauses_ms, line_mib_s=best)
    log.info("one_by_one", total_s=[one["total_s"] for one in told], shares=list(evacuation.shares.values()))
    log.info("attempts", of_each=sorted(evacuation.attempts.values()), reasons=rig.rows.reasons)
    for order in orders:
        rig.settle(order.runner_id)
        assert rig["b"].call(order.runner_id, "RunnerStatus")
        assert rig["a"].report(order.runner_id) is None
    assert all(share is not None for share in evacuation.shares.values())
    assert best <= GIGABIT_MIB_S * 1.1
    assert sent <= expected, "less was reckoned with than was sent"
