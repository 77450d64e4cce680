"""`spot-runner drill`: play it on a stage of its own, report, and leave nothing behind.

A drill that was stopped goes on from its report: what was counted stays, and the same seed gives the same rest.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from workers.domain.errors import BadInput
from workers.rehearsal.drill.doubles import watched_copies
from workers.rehearsal.drill.play import READY_HOSTS, Drill, DrillOptions
from workers.rehearsal.drill.tally import Tally
from workers.rehearsal.pulse import Pulse
from workers.rehearsal.screen import Screen
from workers.rehearsal.stage import Kit, Terms
from workers.rehearsal.theatre import cleared_stage, perform

# Longer than a notice, so that a job that was saved late is not failed by a lock that GitHub does not have.
JOB_LOCK_S: Final = 120
# A host's own disk, which can be full; a guest's overlay grows by what its job writes.
DISK_MIB: Final = 768
TERMS: Final = Terms(READY_HOSTS, JOB_LOCK_S, DISK_MIB)
# What is shorter here than where it counts, and how long it is there.
SHORTENED: Final = {
    "job_lock_s": {"here": TERMS.job_lock_s, "github": 600},
    "park_limit_s": {"here": TERMS.park_limit_s, "default": 510},
}


def run_drill(options: DrillOptions, make_kit: Callable[[], Kit], screen: Screen | None = None) -> int:
    """Drill and return the exit status. Raises a `GiveUp`, before anything is started, if it cannot be."""
    screen, tally = screen or Screen(), earlier(options)
    with cleared_stage(options.name, options.jobs, TERMS, make_kit, screen) as stage:

        def play(pulse: Pulse) -> bool:
            with watched_copies(stage.kit.look_at_copies) as doubles:
                try:
                    Drill(stage, options, screen, tally, pulse).play()
                finally:
                    tally.double_runs += doubles.found
            return True

        played = perform(stage, screen, play)
        tally.leftovers += [one for one in played.leftovers if one not in tally.leftovers]
    report = tally.report(options.seed, SHORTENED)
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    screen.survival(report)
    return played.exit_status or (0 if tally.is_clean else 1)


def earlier(options: DrillOptions) -> Tally:
    """Return what an earlier drill with the same report has counted. Raises `BadInput` if that was another one."""
    file = options.json
    if file is None or not file.exists():
        return Tally()
    report = json.loads(file.read_text())
    if report.get("seed") != options.seed:
        raise BadInput(f"{_short(file)} is of seed {report.get('seed')}, not {options.seed}: choose another file")
    return Tally.of(report)


def _short(file: Path) -> str:
    return f"--json {file}"
