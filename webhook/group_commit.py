"""Group commit: one writer for all deliveries of a process, so that many share the cost of one durable commit.

    put ──▶ the open batch ──writer──▶ one transaction ──▶ everybody who waits for it is let go
            (fills while the one before it is being written)

A request waits for its own row and no longer than the limit, whatever has become of the store. Under gevent the thread,
the lock and the event are a greenlet and gevent's own, because gunicorn's worker has put them in place of Python's.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from workers.domain.errors import TryLater, Unreachable
from workers.domain.events import Delivery

log: Final = structlog.get_logger(__name__)

# GitHub gives up after ten seconds, and lists what was not answered as failed: so our refusal gets there in time.
ANSWER_LIMIT_S: Final = 5.0
# A transaction of so many rows takes some hundredths of a second, for which all others wait.
ROWS_MAX: Final = 256
# A commit costs as much as some tens of rows, so whoever comes soon after another joins; nobody is waited for longer
# than the first of these.
GATHERING_S: Final = 0.01
SOON_S: Final = 0.001
# What waits longer than its request takes memory until the store answers again.
WAITING_MAX: Final = 10_000


@dataclass(eq=False)
class _Place:
    """One request's part in a batch; None asks only whether a transaction gets through."""

    row: Delivery | None
    error: Exception | None = None


@dataclass(eq=False)
class _Batch:
    """What is written together."""

    places: list[_Place] = field(default_factory=list)
    is_over: threading.Event = field(default_factory=threading.Event)


class GroupCommit:
    """Writes what all requests of this process bring, one transaction after the other."""

    def __init__(
        self,
        write: Callable[[Sequence[Delivery]], None],
        after_commit: Callable[[Sequence[Delivery]], None],
        limit_s: float = ANSWER_LIMIT_S,
    ) -> None:
        """`write` writes rows all or none; `after_commit` is told what is durable, before anybody is answered.

        The writer starts with the first row, so the object may be made before a fork.
        """
        self._write, self._after_commit, self._limit_s = write, after_commit, limit_s
        self._lock = threading.Lock()
        self._waiting: deque[_Batch] = deque()
        self._has_work = threading.Event()
        self._writer: threading.Thread | None = None

    def put(self, row: Delivery | None) -> None:
        """Return once the row is durable. Raises what its own writing raised, `Unreachable` if it takes too long.

        None asks whether a transaction gets through, and writes nothing.
        """
        place = _Place(row)
        with self._lock:
            batch = self._joined(place)
        self._has_work.set()
        if not batch.is_over.wait(self._limit_s):
            raise Unreachable(f"the store has taken no delivery for {self._limit_s:g} s; is it running?")
        if place.error is not None:
            raise place.error

    def _joined(self, place: _Place) -> _Batch:
        if self._writer is None:
            self._writer = threading.Thread(target=self._run, name="group-commit", daemon=True)
            self._writer.start()
        if len(self._waiting) * ROWS_MAX > WAITING_MAX:
            raise Unreachable(f"more than {WAITING_MAX} deliveries wait for the store; is it running?")
        if not self._waiting or len(self._waiting[-1].places) >= ROWS_MAX:
            self._waiting.append(_Batch())
        self._waiting[-1].places.append(place)
        return self._waiting[-1]

    def _run(self) -> None:
        while True:
            self._has_work.wait()
            self._gather()
            with self._lock:
                batch = self._waiting.popleft()
                if not self._waiting:
                    self._has_work.clear()
            self._finish(batch)

    def _gather(self) -> None:
        """Let the others run as long as each look finds more rows than the one before it."""
        end, seen = time.monotonic() + GATHERING_S, 0
        while (found := self._rows_waiting()) > seen and time.monotonic() < end:
            seen = found
            time.sleep(SOON_S)

    def _rows_waiting(self) -> int:
        with self._lock:
            return sum(len(batch.places) for batch in self._waiting)

    def _finish(self, batch: _Batch) -> None:
        """Write a batch and let its requests go. Whatever goes wrong, the writer lives: it is the only one there is."""
        try:
            self._write_all(batch.places)
            self._after_commit([one.row for one in batch.places if one.row is not None and one.error is None])
        except Exception:  # what is durable is accepted, and the sweep finds what nobody was told of
            log.exception("after_commit_failed", deliveries=len(batch.places))
        finally:
            batch.is_over.set()

    def _write_all(self, places: Sequence[_Place]) -> None:
        """Write rows together; if one of them is at fault, halve them until it stands alone."""
        try:
            self._write([place.row for place in places if place.row is not None])
        except TryLater as error:  # no row's fault, and the store would only be asked in vain again
            for place in places:
                place.error = Unreachable(str(error))
        except Exception as error:  # noqa: BLE001 - whatever a database says of a value that it cannot take
            if len(places) > 1:
                half = len(places) // 2
                self._write_all(places[:half])
                self._write_all(places[half:])
            else:
                places[0].error = error
