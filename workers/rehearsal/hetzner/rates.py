"""Hetzner's rate limit: so many requests per hour and project, given back one by one."""

from __future__ import annotations

import math
import threading
from datetime import datetime, timedelta
from typing import Final

from workers.ports import Clock

REQUESTS_PER_HOUR: Final = 3600
HOUR: Final = timedelta(hours=1)


class RateLimit:
    """One project's requests; the limit grows back by `limit` in an hour and is never more than `limit`."""

    def __init__(self, clock: Clock, limit: int = REQUESTS_PER_HOUR) -> None:
        self._clock, self._limit = clock, limit
        self._lock = threading.Lock()
        self._left, self._seen_at = float(limit), clock.now()
        self.refused = 0
        self.admitted = 0

    def admit(self) -> bool:
        """Count one request; False if there is none left."""
        with self._lock:
            self._grow(self._clock.now())
            if self._left < 1:
                self.refused += 1
                return False
            self._left -= 1
            self.admitted += 1
            return True

    def leave(self, left: int) -> None:
        """Let only so many requests be left now."""
        with self._lock:
            self._left, self._seen_at = float(left), self._clock.now()

    def headers(self) -> dict[str, str]:
        """Return what every answer says of the limit."""
        with self._lock:
            now = self._clock.now()
            self._grow(now)
            full_at = now + HOUR * ((self._limit - self._left) / self._limit)
            return {
                "RateLimit-Limit": str(self._limit),
                "RateLimit-Remaining": str(math.floor(self._left)),
                "RateLimit-Reset": str(math.ceil(full_at.timestamp())),
            }

    def _grow(self, now: datetime) -> None:
        self._left = min(float(self._limit), self._left + self._limit * ((now - self._seen_at) / HOUR))
        self._seen_at = now
