"""Who looks at which row, and when: hints one by one, sweeps over all, and the evacuation's own watch.

    hint ───────────────▶ look_at      ┐
    beat, every 15 s ───▶ sweep(queue) ┤   a row that is being looked at is left alone
    no beat for 30 s ───▶ sweep(queue) ├─▶ looks: a pool of threads, one of them at most for each row
    every second ───────▶ watch        ┤   hosts with a notice and migrations that have not ended; needs no broker
    "later, at …" ──────▶ agenda ──────┘   a row whose look was told when it is worth to be tried again

Whoever looks at a row leases it first, so that looks of several processes are harmless.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import wait
from contextlib import contextmanager
from typing import Final

import structlog

from workers.app import EVACUATION, SWEEP_INTERVAL_S
from workers.bootstrap.agenda import Agenda
from workers.bootstrap.looks import Looks, Row
from workers.domain.errors import GiveUp, TryLater

log: Final = structlog.get_logger(__name__)

# A whole host's guests are moved at once, and each look may wait some seconds for a host that does not answer.
LOOKS_AT_ONCE: Final = 24
# How long a look may wait for others while there is more to look at than threads: a runner's has a job waiting already
# and makes room for the next, a notice does not wait at all, and a sweep only finds what was not told.
PATIENCE_S: Final[Mapping[str, float]] = {"runner": 0.0, "migration": 0.0, "host": 0.0}
PATIENCE_OF_OTHERS_S: Final = 1.0
SWEEPS_PATIENCE_S: Final = SWEEP_INTERVAL_S
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
        self._looks = Looks(self._look, LOOKS_AT_ONCE)
        self._agenda = Agenda[Row](self._looks.soon)

    def look_at(self, kind: str, ids: Iterable[str]) -> None:
        """Begin to look at these rows as soon as there is a thread for each, and do not wait for it; raises nothing.

        Of a row there is one look for all who tell of it until then. A process that ends forgets which: whoever comes
        next, or works beside it, finds them by its sweep.
        """
        for one in ids:
            self._looks.soon((kind, one), PATIENCE_S.get(kind, PATIENCE_OF_OTHERS_S))

    def sweep(self, queue: str) -> None:
        """Look at every row that this queue is for; returns when all were looked at or the time is over."""
        with _logged("sweep", queue):
            if queue in self._refresh:
                self._refresh[queue]()
            rows = self._due[queue]()
            wait([self._looks.unless_under_way(row, SWEEPS_PATIENCE_S) for row in rows], SWEEP_LIMIT_S)

    def watch(self) -> None:
        """Start a look at all that cannot wait for a hint, and do not wait for its end."""
        with _logged("watch", EVACUATION):
            for row in self._due[EVACUATION]():
                self._looks.unless_under_way(row)

    def close(self) -> None:
        """Begin no look any more; whoever waits for one waits no longer."""
        self._agenda.close()
        if dropped := self._looks.close():
            log.info("looks_dropped", rows=dropped, why="this process ends; the next one's first sweep finds them")

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
