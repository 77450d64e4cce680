"""`spot-runner demo`: play the story on a stage of its own, report, and leave nothing behind."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from dataclasses import replace

from workers.rehearsal.clouds.play import CloudStory
from workers.rehearsal.clouds.stage import CloudStage
from workers.rehearsal.preflight import check_clouds
from workers.rehearsal.pulse import Pulse
from workers.rehearsal.report import Seen, report, verdict
from workers.rehearsal.screen import Screen
from workers.rehearsal.stage import GITHUB_URL, MARKET_URL, WEBHOOK_URL, Kit, Stage, Terms
from workers.rehearsal.story import Options, Story
from workers.rehearsal.theatre import Told, cleared_place, cleared_stage, perform


def run_rehearsal(options: Options, make_kit: Callable[[], Kit], screen: Screen | None = None) -> int:
    """Play the story and return the exit status. Raises a `GiveUp`, before anything is started, if it cannot be."""
    screen = screen or Screen()
    with cleared_stage(
        options.name, options.jobs, Terms(options.hosts, with_overlay=options.overlay), make_kit, screen
    ) as stage:
        return _perform(stage, options, screen, Story(stage, options, screen))


def run_clouds(options: Options, make_kit: Callable[[], Kit], screen: Screen | None = None) -> int:
    """Play it with AWS and Hetzner in the place of the spot market. Raises as `run_rehearsal` does."""
    check_clouds()
    screen = screen or Screen()
    terms = Terms(options.hosts, with_overlay=True)
    with cleared_place(options.name, options.jobs, terms, make_kit, screen) as (places, kit):
        stage = CloudStage(places, kit, terms)
        return _perform(stage, options, screen, CloudStory(stage, options, screen))


def _perform(stage: Stage, options: Options, screen: Screen, story: Story) -> int:
    def play(pulse: Pulse) -> Seen:
        seen = replace(story.play(), stalls=tuple(pulse.stalls))
        if options.keep:
            _stay(screen, seen, options)
        return seen

    played = perform(stage, screen, play)
    if played.result is None:
        screen.line(f"left behind: {', '.join(played.leftovers) or 'nothing'}")
        return played.exit_status
    return _conclude(screen, replace(played.result, leftovers=played.leftovers), options)


def _conclude(screen: Screen, seen: Seen, options: Options) -> int:
    result = report(seen)
    screen.table(result)
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return verdict(seen).exit_status


def _stay(screen: Screen, seen: Seen, options: Options) -> None:
    """Leave everything running until Ctrl-C."""
    _conclude(screen, seen, options)
    screen.line(f"GitHub simulator: {GITHUB_URL}/_simulator/jobs")
    screen.line(f"spot market: {MARKET_URL}/instances")
    screen.line(f"webhook: {WEBHOOK_URL}/github, health: {WEBHOOK_URL}/healthz")
    screen.line("everything is left running; Ctrl-C ends it")
    with contextlib.suppress(Told):
        threading.Event().wait()
    screen.line("ending everything")
