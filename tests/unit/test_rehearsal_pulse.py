"""A processor that is taken from us is noticed."""

from __future__ import annotations

import os
import threading
import time

from workers.rehearsal.pulse import PRIORITY, stalled_ms, watched_machine


def hog(processor: int, seconds: float) -> None:
    """Keep a processor from every program of a lower priority, as another guest of the same machine would."""
    os.sched_setaffinity(0, {processor})
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY + 1))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_a_processor_that_was_taken_away_is_noticed_with_its_moment() -> None:
    processor = min(os.sched_getaffinity(0))
    with watched_machine() as pulse:
        pid = os.fork()
        if pid == 0:
            hog(processor, 0.4)
            os._exit(0)
        began_at = time.time()
        os.waitpid(pid, 0)
        ended_at = time.time()
    assert any(stall.processor == processor for stall in pulse.stalls)
    assert stalled_ms([one for one in pulse.stalls if one.processor == processor], began_at, ended_at + 1) > 250


def test_nothing_is_left_watching() -> None:
    before = threading.active_count()
    with watched_machine():
        assert threading.active_count() == before + len(os.sched_getaffinity(0))
    assert threading.active_count() == before
