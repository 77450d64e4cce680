"""Looks at rows, in a pool of threads: at each row by one thread at a time, and once for all who asked before it began.

    asked for ──▶ waits ──▶ under way ──▶ done
                    ▲           │
                    └───────────┘ asked for again meanwhile: what that tells of may have come after the look began

A busy fleet tells of the same row many times before anybody has come to look at it. Who may wait longer lets others
pass, but never for longer than that.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

Row = tuple[str, str]
"""Kind and id."""


@dataclass
class _Asked:
    """A look that was asked for and has not begun."""

    due: float
    """Until when it may wait for others; of the monotonic clock."""
    done: Future[None] = field(default_factory=Future)


class Looks:
    """The looks that were asked for and are not over; safe for threads."""

    def __init__(self, look: Callable[[Row], None], at_once: int) -> None:
        """`look` must raise nothing; there are `at_once` threads."""
        self._look = look
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="look")
        self._lock = threading.Lock()
        self._line: list[tuple[float, int, Row]] = []
        """Until when who may wait, and a number that orders those of one moment; some have had their turn."""
        self._numbers = itertools.count()
        self._waiting: dict[Row, _Asked] = {}
        self._under_way: dict[Row, Future[None]] = {}
        self._is_closed = False

    def soon(self, row: Row, patience_s: float = 0.0) -> Future[None]:
        """Ask for a look that begins after this call; what is returned is done when that look is over.

        As long as there is more to look at than threads, it is the turn of whoever's patience ends first.
        """
        with self._lock:
            return self._asked(row, patience_s)

    def unless_under_way(self, row: Row, patience_s: float = 0.0) -> Future[None]:
        """Ask for a look, or take the one that is under way for it."""
        with self._lock:
            return self._under_way.get(row) or self._asked(row, patience_s)

    def close(self) -> int:
        """Begin no look any more; those that waited are done without one. Return how many."""
        with self._lock:
            self._is_closed = True
            dropped = len(self._waiting)
            for asked in self._waiting.values():
                asked.done.set_result(None)
            self._waiting = {}
        self._pool.shutdown(wait=False, cancel_futures=True)
        return dropped

    def _asked(self, row: Row, patience_s: float) -> Future[None]:
        due, known = time.monotonic() + patience_s, self._waiting.get(row)
        asked = known or _Asked(due)
        if self._is_closed:
            asked.done.set_result(None)
        elif known is None or due < known.due:
            asked.due, self._waiting[row] = due, asked
            self._line_up(row, due)
        return asked.done

    def _line_up(self, row: Row, due: float) -> None:
        heapq.heappush(self._line, (due, next(self._numbers), row))
        self._pool.submit(self._take_turn)

    def _take_turn(self) -> None:
        with self._lock:
            row = self._next()
            if row is None:
                return
            done = self._under_way[row] = self._waiting.pop(row).done
        self._look(row)
        with self._lock:
            del self._under_way[row]
            if again := self._waiting.get(row):  # its turn may have come meanwhile
                self._line_up(row, again.due)
        done.set_result(None)

    def _next(self) -> Row | None:
        """Return the row whose turn it is, None if none waits that is not under way."""
        while self._line:
            row = heapq.heappop(self._line)[-1]
            if row in self._waiting and row not in self._under_way:
                return row
        return None
