"""Whether a guest ever ran in two places at once, seen from outside: by the processor time of its virtual processors.

    source's vCPU  ▂▂▂▂▂▂▂▂▂▂▂▁
    target's vCPU              ▁▂▂▂▂▂▂▂▂     never both, and never the first again after the second

It trusts neither the row, nor a daemon, nor the monitor's own word: a standing guest takes no processor time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from workers.domain.errors import Bug

SAMPLE_INTERVAL_S: Final = 0.05
# Loading a state takes a virtual processor's thread some of that too, well below what a guest's first run takes.
ADVANCED_NS: Final = 3_000_000

Place = tuple[str, int]
"""Host and process id: a guest that comes back to a host is in a new process there."""
Sample = Mapping[str, Mapping[Place, int]]
"""Runner -> place -> nanoseconds that its virtual processors have run."""


@dataclass
class Doubles:
    """Follows every runner from place to place."""

    found: list[str] = field(default_factory=list)
    _last: dict[str, dict[Place, int]] = field(default_factory=dict)
    _left: dict[str, set[Place]] = field(default_factory=dict)
    _now: dict[str, Place] = field(default_factory=dict)

    def note(self, sample: Sample) -> None:
        """Take one look at everything that runs."""
        for runner, places in sample.items():
            before = self._last.get(runner, {})
            advanced = {one for one, run_ns in places.items() if run_ns - before.get(one, run_ns) >= ADVANCED_NS}
            self._judge(runner, advanced)
            self._last[runner] = dict(places)

    def _judge(self, runner: str, advanced: set[Place]) -> None:
        left = self._left.setdefault(runner, set())
        for place in sorted(advanced & left):
            self.found.append(f"{runner} ran on {place[0]} (process {place[1]}) after it had run elsewhere")
            left.discard(place)
        arrived = advanced - {self._now.get(runner)} - left
        # Within one look both may have run, one after the other: the source is left with the first look after it.
        if arrived:
            left |= {self._now[runner]} if runner in self._now else set()
            self._now[runner] = min(arrived)


class Watcher(threading.Thread):
    """Looks every 50 ms from `start` to `stop`."""

    def __init__(self, look: Callable[[], Sample]) -> None:
        super().__init__(name="copies", daemon=True)
        self.doubles = Doubles()
        self.failure: Exception | None = None
        self._look = look
        self._ended = threading.Event()

    def run(self) -> None:
        """Look until told to stop, or until a look fails."""
        try:
            while not self._ended.wait(SAMPLE_INTERVAL_S):
                self.doubles.note(self._look())
        except Exception as error:  # noqa: BLE001 whatever ended the watch is told by whoever relied on it
            self.failure = error

    def stop(self) -> None:
        """Return once nobody looks any more."""
        self._ended.set()
        self.join()


@contextmanager
def watched_copies(look: Callable[[], Sample]) -> Iterator[Doubles]:
    """Look for the length of the block. Raises `Bug` at its end if nobody has looked for a part of it."""
    watcher = Watcher(look)
    watcher.start()
    try:
        yield watcher.doubles
    finally:
        watcher.stop()
    if watcher.failure is not None:
        raise Bug(f"nobody watched to the end whether a guest ran twice: {watcher.failure!r}") from watcher.failure
