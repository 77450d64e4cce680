"""The frame of every play on this one machine: nothing is in the way before it, and nothing is left behind it.

    checked ──▶ alone ──▶ remains swept ──▶ played ──▶ taken down ──▶ verified gone

Whatever happens on the way, Ctrl-C included, all that was made is removed at the end.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from workers.domain.errors import SpotError
from workers.rehearsal.places import Places
from workers.rehearsal.preflight import check_machine, check_names
from workers.rehearsal.pulse import Pulse, watched_machine
from workers.rehearsal.remains import alone, sweep
from workers.rehearsal.report import Verdict
from workers.rehearsal.screen import Screen
from workers.rehearsal.stage import Kit, Stage, Terms

T = TypeVar("T")

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# What a shell reports of a program that Ctrl-C has ended.
EXIT_TOLD: Final = 130


class Told(KeyboardInterrupt):
    """Somebody has asked us to end: Ctrl-C, or a signal."""


@dataclass(frozen=True)
class Played(Generic[T]):
    """What a play came to; `result` is None if it did not come to its end."""

    result: T | None
    exit_status: int
    leftovers: tuple[str, ...]


@contextlib.contextmanager
def cleared_stage(name: str, jobs: int, terms: Terms, make_kit: Callable[[], Kit], screen: Screen) -> Iterator[Stage]:
    """Yield a stage on which nothing stands yet. Raises a `GiveUp`, before anything is started, if it cannot be."""
    with cleared_place(name, jobs, terms, make_kit, screen) as (places, kit):
        yield Stage(places, kit, terms)


@contextlib.contextmanager
def cleared_place(
    name: str, jobs: int, terms: Terms, make_kit: Callable[[], Kit], screen: Screen
) -> Iterator[tuple[Places, Kit]]:
    """Yield what any stage is made of. Raises as `cleared_stage` does."""
    places = Places(name)
    check_machine(places, jobs, with_overlay=terms.with_overlay)
    with alone(places), ended_by_signals():
        sweep(places)
        shutil.rmtree(places.logs, ignore_errors=True)
        check_names(places)
        with screen.waiting("looking at this machine and unpacking the runner package"):
            kit = make_kit()
        yield places, kit


def perform(stage: Stage, screen: Screen, play: Callable[[Pulse], T]) -> Played[T]:
    """Play while the machine is watched, and remove everything however it ended."""
    result, status = None, Verdict.FAILED.exit_status
    with watched_machine() as pulse:
        try:
            result, status = play(pulse), 0
        except Told:
            status = EXIT_TOLD
            screen.line("ending everything")
        except SpotError as error:
            screen.line(f"it failed: {error}")
        finally:
            with undisturbed(), screen.waiting("ending every program and removing what was made"):
                leftovers = stage.take_down()
    return Played(result, status, leftovers)


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
