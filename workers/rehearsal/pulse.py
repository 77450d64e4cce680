"""When the machine itself stood still: a beat on every processor that nothing of ours can hold up.

Machines that are themselves guests lose their processors to others for up to a second. Whatever runs here stands still
then, guests and their connections too, and no software on it can help that; so it is measured and told beside them.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

BEAT_S: Final = 0.02
# A beat that is late by less is the kernel's and Python's ordinary inexactness.
STALL_S: Final = 0.05
# Above every ordinary program, below the kernel's own.
PRIORITY: Final = 1


@dataclass(frozen=True)
class Stall:
    """A span in which one processor did nothing for us."""

    processor: int
    ended_at: float
    """Unix time."""
    length_s: float

    def within(self, began_at: float, ended_at: float) -> float:
        """Return how many seconds of it fall between two moments."""
        return max(0.0, min(self.ended_at, ended_at) - max(self.ended_at - self.length_s, began_at))


@dataclass
class Pulse:
    """The stalls of this machine, as far as they are known by now."""

    stalls: list[Stall] = field(default_factory=list)

    def beat(self, processor: int, ended: threading.Event) -> None:
        """Watch one processor until `ended`; the calling thread is bound to it."""
        os.sched_setaffinity(0, {processor})
        with suppress(PermissionError):  # without it the figures also hold what other programs took
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
        last, is_over = time.monotonic(), False
        while not is_over:
            is_over = ended.wait(BEAT_S)
            now = time.monotonic()
            if now - last > BEAT_S + STALL_S:
                self.stalls.append(Stall(processor, time.time(), now - last - BEAT_S))
            last = now


def stalled_ms(stalls: Sequence[Stall], began_at: float, ended_at: float) -> float:
    """Return how long the processor that stood still longest stood still between two moments."""
    taken: dict[int, float] = {}
    for stall in stalls:
        taken[stall.processor] = taken.get(stall.processor, 0.0) + stall.within(began_at, ended_at)
    return round(max(taken.values(), default=0.0) * 1000, 1)


@contextmanager
def watched_machine() -> Iterator[Pulse]:
    """Watch every processor that we may use for the length of the block."""
    pulse, ended = Pulse(), threading.Event()
    watchers = [
        threading.Thread(target=pulse.beat, args=(one, ended), name=f"pulse of processor {one}", daemon=True)
        for one in sorted(os.sched_getaffinity(0))
    ]
    for watcher in watchers:
        watcher.start()
    try:
        yield pulse
    finally:
        ended.set()
        for watcher in watchers:
            watcher.join()
