"""The requests of an hour, as Hetzner's answers count them: whoever has used them up is refused before it asks.

    left ──────────── RESERVE ──────────── 0        grows back by `limit` in an hour
       everything       only what ends or looks for machines

The hour's requests are the project's, so every process of the control plane uses them, and whoever else has a token.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

HOUR: Final = timedelta(hours=1)
# A few hundred hosts can be looked for and ended with them when nothing else works any more.
RESERVE: Final = 300
# A limit that is so low that the reserve would be most of it.
RESERVE_SHARE: Final = 0.1


class Budget:
    """What is left of the hour. Before the first answer nothing is known, and everything is allowed."""

    def __init__(self) -> None:
        self._limit, self._left = 0, 0.0
        self._seen_at: datetime | None = None

    def note(self, headers: Mapping[str, str], now: datetime) -> None:
        """Take in what an answer says; one that does not say it changes nothing."""
        limit, left = headers.get("RateLimit-Limit", ""), headers.get("RateLimit-Remaining", "")
        if limit.isdecimal() and left.isdecimal() and int(limit) > 0:
            self._limit, self._left, self._seen_at = int(limit), float(left), now

    def free_at(self, now: datetime, *, is_urgent: bool) -> datetime | None:
        """Return when the next request may be made, None if at once."""
        if self._seen_at is None:
            return None
        floor = 1.0 if is_urgent else 1 + min(RESERVE, self._limit * RESERVE_SHARE)
        left = self._left + self._limit * ((now - self._seen_at) / HOUR)
        return None if left >= floor else now + HOUR * ((floor - left) / self._limit)

    def __str__(self) -> str:
        return f"{self._left:.0f} of {self._limit} requests of this hour"
