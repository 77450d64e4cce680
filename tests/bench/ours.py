"""One move of ours, and the work that every guest of the benchmarks does, whoever moves it."""

from __future__ import annotations

import json
import threading
import time
from typing import Final

from tests.bench.course import sampled
from tests.e2e.engine_rig import END_OF_MOVE, Rig, eventually
from workers.domain.errors import Refused
from workers.domain.messages import BootOrder, StartOrder
from workers.domain.migration import MigrationPhase

# Busy enough that memory and disk change all the time, and still of one opinion when it is checked.
WORK: Final = json.dumps({"seconds": 600.0, "memory_mib": 16, "disk_mib": 64, "pace_s": 0.25})
WARM_UP_S: Final = 3.0


def warm_up() -> None:
    """Let the guest work for a while, as a job does before its host is taken away."""
    threading.Event().wait(WARM_UP_S)


def moved_busy(rig: Rig, order: BootOrder) -> dict[str, float]:
    """Restore a guest, let it work, move it, end it; return what the move took.

    Beside what both sides say: `running_s` from the first order to the guest running at the target, `finished_s` until
    nothing of it is left at the source. Raises `Refused` if the move was aborted.
    """
    source, target, rows = rig["a"], rig["b"], rig.rows
    source.inside.run(source.engine.boot(order))
    source.inside.run(source.engine.start_runner(order.runner_id, StartOrder(1, WORK)))
    warm_up()
    began_at, began = time.time(), time.monotonic()
    row = rig.begin(order, "a", "b")
    if rows.wait(row.id, *END_OF_MOVE).phase is not MigrationPhase.FINISHED:
        raise Refused(f"the move was aborted: {rows.reasons}")
    finished_s = time.monotonic() - began
    rig.settle(order.runner_id)
    target.inside.run(target.engine.stop(order.runner_id, row.epoch))
    seen = rows.figures_of[row.id]
    eventually(lambda: "memory_mib_sent" in seen, "the source has said its figures")
    sample = sampled(seen)
    return {
        "total_s": sample.total_s,
        "running_s": seen["resumed_at"] - began_at,
        "finished_s": finished_s,
        "stopped_ms": sample.stopped_ms,
        "commit_ms": sample.commit_ms,
        "net_ms": sample.net_ms,
        "memory_mib_sent": sample.memory_mib_sent,
        "disk_mib_sent": seen["disk_mib_sent"],
    }
