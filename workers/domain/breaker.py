"""A breaker: it stops the making of runners that get no job, or no registration, although jobs wait for them.

    closed ──in vain, UNUSED_MAX times in a row──▶ open ──retry_at──▶ one probe ──a job──▶ closed
       └──────GitHub never will register it─────────▲                    │
                                                    └──in vain, longer───┘

One for each kind of demand: place (a repository, or an organization and a runner group), pool, package and labels.
Another package is another kind, so whoever sees that the runner in a package is too old builds a new one and waits for
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

# Once or twice it is GitHub's own delay, or somebody cancelled; three times two minutes are not.
UNUSED_MAX: Final = 3
# GitHub's disturbances last for some ten minutes; a package that is too old, until somebody builds another.
RETRY_INTERVAL: Final = timedelta(minutes=10)
RETRY_INTERVAL_MAX: Final = timedelta(hours=1)


@dataclass(frozen=True)
class Breaker:
    """What has become of the last runners of one kind of demand."""

    id: str
    """The kind."""
    number: int
    """Counts the changes; who has read an older one must not write."""
    unused: int
    """How many in a row got no job, or were not registered."""
    changed_at: datetime
    retry_at: datetime | None = None
    """When one probe is made; None: it is closed."""
    because: str | None = None
    """In words for the user."""

    def is_open(self, now: datetime) -> bool:
        """Say whether no runner of this kind is to be made now."""
        return self.retry_at is not None and now < self.retry_at

    @property
    def sentence(self) -> str:
        """Say why nobody is served, and when that is tried again."""
        return f"{self.because}; the next runner is tried at {self.retry_at:%Y-%m-%d %H:%M} UTC"


def in_vain(before: Breaker | None, kind: str, requested_at: datetime, now: datetime, because: str) -> Breaker | None:
    """Count a runner that came to nothing; None if it says nothing new: it was made before the breaker had tripped."""
    if before is not None and before.retry_at is not None and requested_at < before.retry_at:
        return None
    unused = 1 if before is None else before.unused + 1
    after = Breaker(kind, 1 if before is None else before.number + 1, unused, now, None, because)
    if unused < UNUSED_MAX:
        return after
    interval = min(RETRY_INTERVAL * (1 << min(unused - UNUSED_MAX, 8)), RETRY_INTERVAL_MAX)
    return replace(after, retry_at=now + interval)


def refused(before: Breaker | None, kind: str, requested_at: datetime, now: datetime, because: str) -> Breaker | None:
    """Count a runner that GitHub will not register: that trips it at once. None if it says nothing new."""
    counted = Breaker(kind, 0, 0, now) if before is None else before
    return in_vain(replace(counted, unused=max(counted.unused, UNUSED_MAX - 1)), kind, requested_at, now, because)


def served(before: Breaker, now: datetime) -> Breaker | None:
    """Close it, because a runner of its kind was given a job; None if it has counted nothing."""
    if before.unused == 0:
        return None
    return Breaker(before.id, before.number + 1, 0, now)
