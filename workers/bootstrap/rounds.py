"""Who looks at which row, and when: hints one by one, sweeps over all, and the evacuation's own watch.

    hint ───────────────▶ look_at          now, in the thread of the task
    beat, every 15 s ───▶ sweep(queue) ┐
    no beat for 30 s ───▶ sweep(queue) ├─▶ a pool of threads; a row that is being looked at is left alone
    every second ───────▶ watch        ┤   hosts with a notice and migrations that have not ended; needs no broker
    "later, at …" ──────▶ agenda ──────┘   a row whose look was told when it is worth to be tried again

Whoever looks at a row leases it first, so that doubled looks are harmless.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Final

import structlog

from workers.app import EVACUATION, SWEEP_INTERVAL_S
from workers.bootstrap.agenda import Agenda
from workers.domain.errors import GiveUp, TryLater

log: Final = structlog.get_logger(__name__)

Row = tuple[str, str]
"""Kind and id."""

# A whole host's guests are moved at once, and each look may wait some seconds for a host that does not answer.
LOOKS_AT_ONCE: Final = 16
# Ends before the broker would hand the task to another.
SWEEP_LIMIT_S: Final = 60.0
BEAT_LIMIT_S: Final = 30.0
WATCH_INTERVAL_S: Final = 1.0


class Rounds:
    """Everything that one worker process looks at."""

    def __init__(
        self,
        look_at: Callable[[str, str], object],
        due: Mapping[str, Callable[[], Iterable[Row]]],
        refresh: Mapping[str, Callable[[], object]],
    ) -> None:
        """`due` names for each queue the rows that it is for, `refresh` what its sweep does beside looking at them."""
        self._advance, self._due, self._refresh = look_at, due, refresh
        self._pool = ThreadPoolExecutor(LOOKS_AT_ONCE, thread_name_prefix="look")
        self._lock = threading.Lock()
        self._looked_at: dict[Row, Future[None]] = {}
        self._agenda = Agenda[Row](self._submit)

    def look_at(self, kind: str, ids: Iterable[str]) -> None:
        """Look at these rows now; raises nothing, since a sweep looks at them again."""
        for one in ids:
            self._look((kind, one))

    def sweep(self, queue: str) -> None:
        """Look at every row that this queue is for; returns when all were looked at or the time is over."""
        with _logged("sweep", queue):
            if queue in self._refresh:
                self._refresh[queue]()
            wait([self._submit(row) for row in self._due[queue]()], SWEEP_LIMIT_S)

    def watch(self) -> None:
        """Start a look at all that cannot wait for a hint, and do not wait for its end."""
        with _logged("watch", EVACUATION):
            for row in self._due[EVACUATION]():
                self._submit(row)

    def close(self) -> None:
        """Begin no look any more."""
        self._agenda.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _submit(self, row: Row) -> Future[None]:
        with self._lock:
            before = self._looked_at.get(row)
            if before is not None and not before.done():
                return before
            self._looked_at = {other: future for other, future in self._looked_at.items() if not future.done()}
            look = self._looked_at[row] = self._pool.submit(self._look, row)
            return look

    def _look(self, row: Row) -> None:
        kind, one = row
        try:
            self._advance(kind, one)
        except TryLater as error:
            log.info("later", kind=kind, id=one, why=str(error))
            if error.at is not None:
                self._agenda.put(row, error.at.timestamp())
        except GiveUp as error:
            log.warning("refused", kind=kind, id=one, why=str(error))
        except Exception:  # a bug in the look at one row must not keep the others from being looked at
            log.exception("look_failed", kind=kind, id=one)


@contextmanager
def _logged(what: str, queue: str) -> Iterator[None]:
    """Turn what goes wrong with a whole round into a line of the log; the next one comes soon."""
    try:
        yield
    except TryLater as error:
        log.warning("later", round=what, queue=queue, why=str(error))
    except Exception:
        log.exception("round_failed", round=what, queue=queue)


class Upkeep:
    """A worker process's own clock: it sweeps first of all and whenever the beat falls silent, and watches."""

    def __init__(self, rounds: Rounds, queue: str) -> None:
        self._rounds, self._queue = rounds, queue
        self._heard_at = self._swept_at = float("-inf")
        self._stopped = threading.Event()

    def hear_beat(self, now: float) -> None:
        """Sweep because the beat says so."""
        self._heard_at = self._swept_at = now
        self._rounds.sweep(self._queue)

    def tick(self, now: float) -> None:
        """Do what is due at this moment."""
        if self._queue == EVACUATION:
            self._rounds.watch()
        if now - self._heard_at > BEAT_LIMIT_S and now - self._swept_at >= SWEEP_INTERVAL_S:
            self._swept_at = now
            self._rounds.sweep(self._queue)

    def run(self) -> None:
        """Tick every second until `stop`."""
        while not self._stopped.is_set():
            self.tick(time.monotonic())
            self._stopped.wait(WATCH_INTERVAL_S)

    def stop(self) -> None:
        """End `run` soon."""
        self._stopped.set()
