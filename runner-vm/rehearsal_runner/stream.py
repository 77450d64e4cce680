"""Everything that is said of a running job, in order, numbered, in batches, each event counted once.

A batch is sent until it is acknowledged, and only then is the next one made, so a lost answer repeats a batch that the
broker already knows by its number. What waits is bounded: whoever says more has to wait, down to the step that prints.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from typing import Final

from rehearsal_runner.broker import Broker, Json, Refused, Stopped, Unanswered

BATCH_INTERVAL_S: Final = 0.5
BATCH_BYTES_MAX: Final = 256 * 1024
WAITING_BYTES_MAX: Final = 4 * 1024 * 1024


class Stream:
    """The events of one job."""

    def __init__(self, broker: Broker, job_id: int, patience_s: float) -> None:
        self._broker = broker
        self._path = f"/_runner/jobs/{job_id}/events"
        self._patience_s = patience_s
        self._changed = threading.Condition()
        self._waiting: deque[tuple[int, Json]] = deque()
        self._waiting_bytes = 0
        self._sent = 0
        self._is_urgent = False
        self._closing = False
        self._broken: Exception | None = None
        self._thread = threading.Thread(target=self._send_all, name="events", daemon=True)

    def start(self) -> None:
        """Start sending."""
        self._thread.start()

    def say(self, kind: str, step: int, **more: str) -> None:
        """Add one event; waits while too much is waiting, unless nothing can be sent any more."""
        event: Json = {"kind": kind, "step": step, "at": time.time(), **more}
        size = len(json.dumps(event))
        with self._changed:
            self._changed.wait_for(lambda: self._waiting_bytes < WAITING_BYTES_MAX or self._broken is not None)
            if self._broken is None:
                self._waiting.append((size, event))
                self._waiting_bytes += size
                self._is_urgent = self._is_urgent or kind != "line"
                self._changed.notify_all()

    def close(self) -> None:
        """Return when everything was acknowledged; raises what made that impossible."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        if self._broken is not None:
            raise self._broken

    def _send_all(self) -> None:
        try:
            while batch := self._next_batch():
                body = {"first": self._sent, "events": batch}
                self._broker.call("POST", self._path, body, patience_s=self._patience_s)
                self._sent += len(batch)
        except (Refused, Unanswered, Stopped) as error:
            with self._changed:
                self._broken = error
                self._waiting.clear()
                self._changed.notify_all()

    def _is_due(self) -> bool:
        """Say whether nothing is gained by waiting for more: lines may wait, a step's start and end may not."""
        return self._closing or self._is_urgent or self._waiting_bytes >= BATCH_BYTES_MAX

    def _next_batch(self) -> list[Json]:
        """Wait for something to say and a little longer for more of it; an empty batch is the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            self._changed.wait_for(self._is_due, timeout=BATCH_INTERVAL_S)
            self._is_urgent = False
            batch: list[Json] = []
            taken = 0
            while self._waiting and taken < BATCH_BYTES_MAX:
                size, event = self._waiting.popleft()
                taken += size
                batch.append(event)
            self._waiting_bytes -= taken
            self._changed.notify_all()
            return batch
