"""The job's lock: renewed three times within its life, or the job is lost."""

from __future__ import annotations

import threading
from typing import Final

from rehearsal_runner.broker import PATIENCE_S, Broker, Refused, Stopped, Unanswered

# actions/runner renews every 60 s.
RENEWAL_MAX_S: Final = 60.0


class Loss:
    """Set once when the job is not ours any more; wakes whoever waits on `stopping`."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self.reason: str | None = None

    def report(self, reason: str) -> None:
        """Say why; the first reason stays."""
        if self.reason is None:
            self.reason = reason
        self.stopping.set()


class Lock:
    """Keeps one job ours, by a thread that ends with the program."""

    def __init__(self, broker: Broker, job_id: int, lock_seconds: float, loss: Loss) -> None:
        self._broker = broker
        self._path = f"/_runner/jobs/{job_id}/renew"
        self._lock_seconds = lock_seconds
        self._loss = loss
        self._thread = threading.Thread(target=self._renew_all, name="lock", daemon=True)

    def start(self) -> None:
        """Start renewing."""
        self._thread.start()

    def _renew_all(self) -> None:
        interval = min(self._lock_seconds / 3, RENEWAL_MAX_S)
        while not self._loss.stopping.wait(interval):
            try:
                self._broker.call("POST", self._path, {}, patience_s=max(self._lock_seconds, PATIENCE_S))
            except (Refused, Unanswered) as error:
                self._loss.report(f"the lock is lost: {error}")
            except Stopped:
                return
