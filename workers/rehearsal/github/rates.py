"""GitHub's rate limits, enforced as GitHub does, with its headers and its words; and what had to be refused is counted.

Every second limit is a sliding span here: GitHub does not say how it counts, and who never passes a sliding span never
passes any other.
"""

from __future__ import annotations

import math
import threading
from collections import Counter, deque
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from workers.ports import Clock

HOUR: Final = timedelta(hours=1)
MINUTE: Final = timedelta(minutes=1)
REGISTRATIONS_SPAN: Final = timedelta(minutes=5)
READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
RETRY_AFTER_S: Final = 60

Caller = tuple[int, int]
"""An App and its installation; 0: the App itself."""


@dataclass(frozen=True)
class Rates:
    """What is allowed; 0: as much as one likes."""

    requests_per_hour: int = 5000
    """Of one installation."""
    points_per_minute: int = 900
    """Of one App over all its installations: a GET is 1, everything else 5."""
    registrations: int = 1500
    """In five minutes, into one repository or organization."""


NO_RATES: Final = Rates(0, 0, 0)


@dataclass(frozen=True)
class Throttle:
    """An answer instead of a call."""

    message: str
    headers: dict[str, str]


class RateLimits:
    """Counts calls; a refused one costs nothing."""

    def __init__(self, clock: Clock, rates: Rates) -> None:
        self._clock, self._rates = clock, rates
        self._lock = threading.Lock()
        self._spent: dict[object, deque[tuple[datetime, int]]] = {}
        self._hours: dict[Caller, tuple[datetime, int]] = {}
        self.refused: Counter[str] = Counter()
        """How often each limit struck: `primary`, `secondary`, `registrations`."""
        self.admitted: Counter[str] = Counter()
        """How many calls of each kind were let through."""

    def admit(self, caller: Caller, verb: str, registers_in: str | None = None, route: str = "") -> Throttle | None:
        """Count one call, or say what to answer instead; `registers_in` is where it registers a runner."""
        with self._lock:
            now = self._clock.now()
            reset_at, used = self._hour(caller, now)
            if self._rates.requests_per_hour and used >= self._rates.requests_per_hour:
                self.refused["primary"] += 1
                text = f"API rate limit exceeded for installation ID {caller[1]}."
                return Throttle(text, self._headers(caller, now))
            points = 1 if verb in READING else 5
            if self._is_full(("app", caller[0]), points, self._rates.points_per_minute, MINUTE, now):
                return self._secondary("secondary", caller, now)
            if registers_in is not None and self._is_full(
                registers_in, 1, self._rates.registrations, REGISTRATIONS_SPAN, now
            ):
                return self._secondary("registrations", caller, now)
            self._hours[caller] = reset_at, used + 1
            self.admitted[f"{verb} {route}"] += 1
            self._spent[("app", caller[0])].append((now, points))
            if registers_in is not None:
                self._spent[registers_in].append((now, 1))
            return None

    def headers(self, caller: Caller, *, is_free: bool = False) -> dict[str, str]:
        """Return what every answer says of the hour; `is_free`: the call that it answers costs nothing after all."""
        with self._lock:
            now = self._clock.now()
            if is_free:
                reset_at, used = self._hour(caller, now)
                self._hours[caller] = reset_at, max(0, used - 1)
            return self._headers(caller, now)

    def _is_full(self, key: object, amount: int, limit: int, span: timedelta, now: datetime) -> bool:
        spent = self._spent.setdefault(key, deque())
        while spent and spent[0][0] <= now - span:
            spent.popleft()
        return bool(limit) and sum(one for _, one in spent) + amount > limit

    def _secondary(self, which: str, caller: Caller, now: datetime) -> Throttle:
        self.refused[which] += 1
        text = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."
        return Throttle(text, self._headers(caller, now) | {"Retry-After": str(RETRY_AFTER_S)})

    def _hour(self, caller: Caller, now: datetime) -> tuple[datetime, int]:
        reset_at, used = self._hours.get(caller, (now, 0))
        return (now + HOUR, 0) if reset_at <= now else (reset_at, used)

    def _headers(self, caller: Caller, now: datetime) -> dict[str, str]:
        limit = self._rates.requests_per_hour
        if not limit:
            return {}
        reset_at, used = self._hour(caller, now)
        return {
            "X-RateLimit-Limit": str(limit),
            "X-RateLimit-Remaining": str(limit - used),
            "X-RateLimit-Used": str(used),
            "X-RateLimit-Reset": str(math.ceil(reset_at.timestamp())),
            "X-RateLimit-Resource": "core",
        }
