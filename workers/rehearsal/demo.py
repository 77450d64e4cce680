"""`spot-runner demo`: play the story on a stage of its own, report, and leave nothing behind.

    checked ──▶ alone ──▶ remains swept ──▶ played ──▶ taken down ──▶ verified gone ──▶ reported

Whatever happens on the way, Ctrl-C included, all that was made is removed at the end.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from workers.domain.errors import SpotError
from workers.rehearsal.places import Places
from workers.rehearsal.preflight import check_machine, check_names
from workers.rehearsal.pulse import watched_machine
from workers.rehearsal.remains import alone, sweep
from workers.rehearsal.report import Seen, Verdict, report, verdict
from workers.rehearsal.screen import Screen
from workers.rehearsal.stage import GITHUB_URL, MARKET_URL, WEBHOOK_URL, Kit, Stage
from workers.rehearsal.story import Options, Story

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# What a shell reports of a program that Ctrl-C has ended.
EXIT_TOLD: Final = 130


class Told(KeyboardInterrupt):
    """Somebody has asked us to end: Ctrl-C, or a signal."""


def run_rehearsal(options: Options, make_kit: Callable[[], Kit], screen: Screen | None = None) -> int:
    """Play the story and return the exit status. Raises a `GiveUp`, before anything is started, if it cannot be."""
    screen, places = screen or Screen(), Places(options.name)
    check_machine(places, options.jobs)
    with alone(places), ended_by_signals():
        sweep(places)
        shutil.rmtree(places.logs, ignore_errors=True)
        check_names(places)
        with screen.waiting("looking at this machine and unpacking the runner package"):
            kit = make_kit()
        return _perform(Stage(places, kit, options.hosts), options, screen)


def _perform(stage: Stage, options: Options, screen: Screen) -> int:
    seen, status = None, Verdict.FAILED.exit_status
    try:
        with watched_machine() as pulse:
            seen = Story(stage, options, screen).play()
        seen = replace(seen, stalls=tuple(pulse.stalls))
        if options.keep:
            _stay(screen, seen, options)
    except Told:
        status = EXIT_TOLD
        screen.line("ending everything")
    except SpotError as error:
        screen.line(f"it failed: {error}")
    finally:
        with undisturbed(), screen.waiting("ending every program and removing what was made"):
            leftovers = stage.take_down()
    if seen is None:
        screen.line(f"left behind: {', '.join(leftovers) or 'nothing'}")
        return status
    return _conclude(screen, replace(seen, leftovers=leftovers), options)


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
    threading.Event().wait()


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let the first SIGINT, SIGTERM or SIGHUP raise `Told` in the main thread."""

    def tell(_number: int, _frame: object) -> None:
        raise Told

    with _answering(tell):
        yield


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore those signals, so that an impatient second Ctrl-C does not leave half behind."""
    with _answering(signal.SIG_IGN):
        yield


@contextlib.contextmanager
def _answering(answer: Callable[[int, object], None] | signal.Handlers) -> Iterator[None]:
    before = {number: signal.signal(number, answer) for number in SIGNALS}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
