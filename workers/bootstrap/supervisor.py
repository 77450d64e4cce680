"""Starts child processes, starts them again when they die, and leaves none behind.

    start ──▶ running ──▶ died ──▶ (a second later) start …   five deaths within a minute: give up, end all
                 │
              SIGTERM, SIGINT ──▶ SIGTERM to all ──▶ ten seconds ──▶ SIGKILL to what is left

The kernel kills the children when the supervisor itself is killed. Each child leads a session of its own, so Ctrl-C
reaches the supervisor alone and the end has one order.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

log: Final = structlog.get_logger(__name__)

RESTART_DELAY_S: Final = 1.0
DEATHS_MAX: Final = 5
DEATHS_WITHIN_S: Final = 60.0
# Requests and tasks end within a lease's ten seconds; who has not ended then never will.
STOP_LIMIT_S: Final = 10.0
# How late a chore may be; dead children and signals wake the loop at once.
_TICK_S: Final = 1.0
_SIGNALS: Final = frozenset({signal.SIGCHLD, signal.SIGTERM, signal.SIGINT})
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Child:
    """One process to keep running."""

    name: str
    command: tuple[str, ...]


@dataclass
class Chore:
    """Something quick that the supervisor does itself now and then, for the first time after one interval."""

    interval_s: float
    work: Callable[[], object]
    due_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.due_at = time.monotonic() + self.interval_s


@dataclass
class _Place:
    """Where one child runs, or will run again."""

    child: Child
    running: subprocess.Popen[bytes] | None = None
    due_at: float = 0.0
    deaths: deque[float] = field(default_factory=lambda: deque(maxlen=DEATHS_MAX))

    @property
    def is_hopeless(self) -> bool:
        return len(self.deaths) == DEATHS_MAX and self.deaths[-1] - self.deaths[0] < DEATHS_WITHIN_S


def supervise(children: Sequence[Child], chores: Sequence[Chore] = ()) -> int:
    """Keep the children running until SIGTERM or SIGINT; return 0, or 1 if one of them cannot be kept running.

    Must be called from the main thread: the kernel ties the children to the life of the thread that starts them.
    """
    places = [_Place(child) for child in children]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        return _keep_running(places, chores)
    finally:
        _stop(places)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _keep_running(places: Sequence[_Place], chores: Sequence[Chore]) -> int:
    while True:
        for place in places:
            _look_after(place)
            if place.is_hopeless:
                log.error("gave_up", child=place.child.name, why=f"it ended {DEATHS_MAX} times within a minute")
                return 1
        for chore in chores:
            _run_if_due(chore)
        received = signal.sigtimedwait(_SIGNALS, _TICK_S)
        if received is not None and received.si_signo != signal.SIGCHLD:
            return 0


def _look_after(place: _Place) -> None:
    now = time.monotonic()
    if place.running is not None and (status := place.running.poll()) is not None:
        log.warning("child_ended", child=place.child.name, status=status)
        place.running, place.due_at = None, now + RESTART_DELAY_S
        place.deaths.append(now)
    if place.running is None and now >= place.due_at:
        place.running = _start(place.child)


def _start(child: Child) -> subprocess.Popen[bytes]:
    supervisor = os.getpid()

    def tie() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != supervisor:  # it died before we were tied to it
            os._exit(1)

    # Before an exec nothing else ties a child to us, and the supervisor has no threads that could hold a lock.
    running = subprocess.Popen(child.command, start_new_session=True, preexec_fn=tie)  # noqa: PLW1509 - said above
    log.info("child_started", child=child.name, pid=running.pid)
    return running


def _run_if_due(chore: Chore) -> None:
    if time.monotonic() < chore.due_at:
        return
    chore.due_at = time.monotonic() + chore.interval_s
    try:
        chore.work()
    except Exception:
        log.exception("chore_failed")


def _stop(places: Sequence[_Place]) -> None:
    running = [place.running for place in places if place.running is not None]
    for process in running:
        process.terminate()
    end = time.monotonic() + STOP_LIMIT_S
    for process in running:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, end - time.monotonic()))
        # Its children are in its session; a group that is gone already is what we want.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
