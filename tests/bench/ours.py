"""One move of ours, and the work that every guest of the benchmarks does, whoever moves it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from tests.bench.course import sampled
from tests.e2e.busy_guest import busy_script
from tests.e2e.engine_rig import END_OF_MOVE, Rig, eventually
from workers.domain.errors import Refused
from workers.domain.messages import BootOrder, StartOrder
from workers.domain.migration import MigrationPhase
from workers.domain.names import MigrationId

# Busy enough that memory and disk change all the time, and still of one opinion when it is checked.
WORK: Final = busy_script(seconds=600.0, memory_mib=16, disk_mib=64, pace_s=0.25)
WARM_UP_S: Final = 3.0


def warm_up() -> None:
    """Let the guest work for a while, as a job does before its host is taken away."""
    threading.Event().wait(WARM_UP_S)


def moved_busy(rig: Rig, order: BootOrder) -> dict[str, float]:
    """Restore a guest, let it work, move it, end it; return what the move took.

    Beside what both sides say: `running_s` from the first order to the guest running at the target, `finished_s` until
    nothing of it is left at the source, `before_ms` for an answer of the guest's agent before the move, `after_ms` from
    the guest going on to the next one. Raises `Refused` if the move was aborted.
    """
    source, target, rows = rig["a"], rig["b"], rig.rows
    source.inside.run(source.engine.boot(order))
    source.inside.run(source.engine.start_runner(order.runner_id, StartOrder(1, WORK)))
    warm_up()
    asked = time.monotonic()
    source.call(order.runner_id, "RunnerStatus")
    before_s = time.monotonic() - asked
    began_at, began = time.time(), time.monotonic()
    row = rig.begin(order, "a", "b")
    seen = rows.figures_of[row.id]
    with ThreadPoolExecutor(1) as beside:
        answered = beside.submit(_answered_at, rig, order, row.id)
        if rows.wait(row.id, *END_OF_MOVE).phase is not MigrationPhase.FINISHED:
            raise Refused(f"the move was aborted: {rows.reasons}")
        finished_s = time.monotonic() - began
    rig.settle(order.runner_id)
    target.inside.run(target.engine.stop(order.runner_id, row.epoch))
    eventually(lambda: "memory_mib_sent" in seen, "the source has said its figures")
    sample = sampled(seen)
    return {
        "total_s": sample.total_s,
        "running_s": seen["resumed_at"] - began_at,
        "finished_s": finished_s,
        "before_ms": before_s * 1000,
        "after_ms": (answered.result() - seen["resumed_at"]) * 1000,
        "stopped_ms": sample.stopped_ms,
        "commit_ms": sample.commit_ms,
        "net_ms": sample.net_ms,
        "memory_mib_sent": sample.memory_mib_sent,
        "disk_mib_sent": seen["disk_mib_sent"],
    }


def _answered_at(rig: Rig, order: BootOrder, move: MigrationId) -> float:
    """Ask the guest as soon as it runs at the target; return when it has answered, as Unix time."""
    if rig.rows.wait(move, MigrationPhase.COMMITTED, *END_OF_MOVE).phase is not MigrationPhase.ABORTED:
        eventually(lambda: "resumed_at" in rig.rows.figures_of[move], "the guest runs at its target")
        rig["b"].call(order.runner_id, "RunnerStatus")
    return time.time()
