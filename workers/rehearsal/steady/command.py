"""`spot-runner demo valkey`: play it on a stage of its own, report, and leave nothing behind."""

from __future__ import annotations

import json
from collections.abc import Callable

from workers.rehearsal.pulse import Pulse
from workers.rehearsal.screen import Screen
from workers.rehearsal.stage import Kit, Terms
from workers.rehearsal.steady.play import READY_HOSTS, Json, Steady, SteadyOptions
from workers.rehearsal.theatre import cleared_stage, perform


def run_steady(options: SteadyOptions, make_kit: Callable[[], Kit], screen: Screen | None = None) -> int:
    """Play and return the exit status: 0 if no request failed and every move was made."""
    screen = screen or Screen()
    with cleared_stage(options.name, 1, Terms(READY_HOSTS), make_kit, screen) as stage:

        def play(pulse: Pulse) -> Json:
            return Steady(stage, options, screen, pulse).play()

        played = perform(stage, screen, play)
    if played.result is None:
        screen.line(f"left behind: {', '.join(played.leftovers) or 'nothing'}")
        return played.exit_status
    report = {**played.result, "leftovers": list(played.leftovers)}
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    screen.facts(report)
    return 0 if not report["failed"] and not played.leftovers and report["moves"] >= options.moves else 1
