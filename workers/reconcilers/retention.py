"""What has ended long ago is forgotten, so that the store does not grow for as long as a deployment runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog

from workers.domain.errors import TryLater
from workers.ports import Clock

log: Final = structlog.get_logger(__name__)

INTERVAL: Final = timedelta(hours=1)
# GitHub sends one again for three days at most; what it said of jobs is kept with them.
DELIVERIES_KEPT: Final = timedelta(days=7)
# Rows that are removed at once: a few milliseconds in which nobody else writes.
BATCH: Final = 200
# Then others have their turn.
BATCHES_MAX: Final = 50
PAUSE: Final = timedelta(seconds=5)


class Attic(Protocol):
    """What is old in the store."""

    def forget(self, before: datetime, limit: int) -> int:
        """Remove up to `limit` of each kind that have ended and began before this; return how many were removed."""

    def forget_deliveries(self, before: datetime, limit: int) -> int:
        """Remove up to `limit` deliveries that came before this; return how many were removed."""


class Retention:
    """Looks once an hour for what has become too old."""

    def __init__(self, attic: Attic, clock: Clock, kept: timedelta) -> None:
        """`kept` is how long a job, a runner, a host, a migration and the timeline stay after they began."""
        self._attic, self._clock, self._kept = attic, clock, kept
        self._looked_at: datetime | None = None

    def due(self) -> Iterator[str]:
        """Name the look if its time has come."""
        if self._looked_at is None or self._clock.now() - self._looked_at >= INTERVAL:
            yield "old"

    def look(self) -> None:
        """Forget what is too old. Raises `TryLater` if there is more than is forgotten at once."""
        now = self._clock.now()
        self._looked_at = now
        rows = self._all(lambda limit: self._attic.forget(now - self._kept, limit))
        deliveries = self._all(lambda limit: self._attic.forget_deliveries(now - DELIVERIES_KEPT, limit))
        if rows or deliveries:
            log.info("forgotten", rows=rows, deliveries=deliveries)

    def _all(self, forget: Callable[[int], int]) -> int:
        """Call it until nothing is left to be forgotten; return how many rows were."""
        removed = 0
        for _ in range(BATCHES_MAX):
            some = forget(BATCH)
            if some == 0:
                return removed
            removed += some
        raise TryLater(f"{removed} rows were too old, and there are more", self._clock.now() + PAUSE)
