"""Looks at rows, in a pool of threads: at each row by one thread at a time, and once for all who asked before it began.

    asked for ──▶ waits ──▶ under way ──▶ done
                    ▲           │
                    └───────────┘ asked for again meanwhile: what that tells of may have come after the look began

A busy fleet tells of the same row many times before anybody has come to look at it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

Row = tuple[str, str]
"""Kind and id."""


class Looks:
    """The looks that were asked for and are not over; safe for threads."""

    def __init__(self, look: Callable[[Row], None], at_once: int) -> None:
        """`look` must raise nothing; there are `at_once` threads."""
        self._look = look
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="look")
        self._lock = threading.Lock()
        self._waiting: dict[Row, Future[None]] = {}
        self._under_way: dict[Row, Future[None]] = {}
        self._is_closed = False

    def soon(self, row: Row) -> Future[None]:
        """Ask for a look that begins after this call; what is returned is done when that look is over."""
        with self._lock:
            return self._waiting.get(row) or self._asked(row)

    def unless_under_way(self, row: Row) -> Future[None]:
        """Ask for a look, or take the one that is under way for it."""
        with self._lock:
            return self._waiting.get(row) or self._under_way.get(row) or self._asked(row)

    def close(self) -> None:
        """Begin no look any more; those that waited are done without one."""
        with self._lock:
            self._is_closed = True
            for asked in self._waiting.values():
                asked.set_result(None)
            self._waiting = {}
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _asked(self, row: Row) -> Future[None]:
        asked = Future[None]()
        if self._is_closed:
            asked.set_result(None)
            return asked
        self._waiting[row] = asked
        if row not in self._under_way:  # else its thread asks for a turn as soon as it is done
            self._pool.submit(self._run, row)
        return asked

    def _run(self, row: Row) -> None:
        with self._lock:
            asked = self._waiting.pop(row, None)
            if asked is None:
                return  # closed
            self._under_way[row] = asked
        self._look(row)
        with self._lock:
            del self._under_way[row]
            if row in self._waiting:  # at the end of the line, since others wait, too
                self._pool.submit(self._run, row)
        asked.set_result(None)
