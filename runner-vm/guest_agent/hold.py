"""A job's wish not to be moved for a while: what the job gets for it, and what the host hears of it.

The control plane keeps the budget by its own clock and has the last word; this is the same rule by the guest's clock,
so that a job is told at once what it gets.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any, Final

LEAST_S: Final = 10.0
"""What a hold costs at least, however soon it is let go."""


# A number too large for a clock means: as long as I may.
WISH_MAX_S: Final = 1e6


class BadWish(ValueError):
    """What was asked for is no number of seconds; the text is one sentence for the job."""


class Hold:
    """The hold of this guest's job; the job asks in its threads, the host in another."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._limit_s = 0.0
        self._number = 0
        self._began_at = 0.0
        self._granted_s = 0.0
        self._spent_s = 0.0

    def allow(self, limit_s: float) -> None:
        """Set how many seconds all holds of this job may last together; the host says so after each move."""
        with self._lock:
            self._limit_s = float(limit_s)

    def ask(self, wish: object) -> dict[str, Any]:
        """Take `{"seconds": N}` as the wish from now on, 0 to let go; return what it came to. Raises `BadWish`."""
        wanted = _seconds(wish)
        with self._lock:
            now = self._clock()
            self._spent_s = self._spent(now)
            self._granted_s = min(wanted, max(0.0, self._limit_s - self._spent_s))
            self._number, self._began_at = self._number + 1, now
            return self._view() | {"said": self._said(wanted)}

    def view(self) -> dict[str, Any]:
        """Return how many seconds are left of the hold, of the budget, and what the budget was."""
        with self._lock:
            return self._view()

    def wish(self) -> dict[str, Any]:
        """Return what the host is told beside the runner's status: nothing as long as the job has asked for nothing."""
        with self._lock:
            return {"hold": {"number": self._number, "seconds": self._granted_s}} if self._number else {}

    def _view(self) -> dict[str, Any]:
        now = self._clock()
        return {
            "seconds_left": round(max(0.0, self._began_at + self._granted_s - now), 1),
            "budget_left_s": round(max(0.0, self._limit_s - self._spent(now)), 1),
            "limit_s": self._limit_s,
        }

    def _spent(self, now: float) -> float:
        if not self._granted_s:
            return self._spent_s
        return self._spent_s + max(LEAST_S, min(now - self._began_at, self._granted_s))

    def _said(self, wanted: float) -> str:
        if not wanted:
            return "the job may be moved again"
        if self._granted_s == wanted:
            return f"the job is not moved for {wanted:g} s, unless its host goes before that"
        return (
            f"{wanted:g} s were asked for and {self._granted_s:g} s are granted: this pool allows a job "
            f"{self._limit_s:g} s in all, and {self._spent_s:g} s of them are spent"
        )


def _seconds(wish: object) -> float:
    seconds = wish.get("seconds") if isinstance(wish, dict) and set(wish) == {"seconds"} else None
    if seconds is None:
        raise BadWish('hold: the body is not {"seconds": N}; send a number of seconds, 0 to let go')
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not is_number or (isinstance(seconds, float) and math.isnan(seconds)):
        raise BadWish("seconds: it is not a number; send how many seconds the job is not to be moved, 0 to let go")
    if seconds < 0:
        raise BadWish(f"seconds: {max(seconds, -WISH_MAX_S):g} is negative; send 0 to let go")
    return float(min(seconds, WISH_MAX_S))
