"""Rows that are to be looked at again at a moment that is known, because a budget is free then or a limit is over.

It is forgotten when the process ends: the sweeps look at every row anyway, only less punctually.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

Row = TypeVar("Row", bound=Hashable)

# A clock may be set, and then a wait that was counted in it would be wrong for no longer than this.
NAP_MAX_S: Final = 1.0


class Agenda(Generic[Row]):
    """Calls `look` for each row when its moment has come; its thread starts with the first row."""

    def __init__(self, look: Callable[[Row], object], clock: Callable[[], float] = time.time) -> None:
        """`look` must return at once and raise nothing; `clock` returns Unix time."""
        self._look, self._clock = look, clock
        self._changed = threading.Condition(threading.RLock())
        self._at: dict[Row, float] = {}
        self._order: list[tuple[float, int, Row]] = []
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def put(self, row: Row, at: float) -> None:
        """Look at this row then; what was put down for it before is forgotten."""
        with self._changed:
            self._at[row] = at
            heapq.heappush(self._order, (at, next(self._numbers), row))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="agenda", daemon=True)
                self._thread.start()
            self._changed.notify()

    def due(self) -> list[Row]:
        """Return and forget the rows whose moment has come, the earliest first."""
        with self._changed:
            found = []
            while self._order and self._order[0][0] <= self._clock():
                at, _, row = heapq.heappop(self._order)
                if self._at.get(row) == at:  # else it was put down anew meanwhile
                    del self._at[row]
                    found.append(row)
            return found

    def close(self) -> None:
        """Look at nothing any more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while not self._is_closed:
                for row in self.due():
                    self._look(row)
                self._changed.wait(self._nap())

    def _nap(self) -> float:
        if not self._order:
            return NAP_MAX_S
        return min(NAP_MAX_S, max(0.0, self._order[0][0] - self._clock()))
