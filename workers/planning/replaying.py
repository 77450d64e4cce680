"""Which failed deliveries GitHub is asked to send again: a pure function of what it lists and of what we have.

All tries of one delivery carry one GUID. A group with a success needs nothing, and neither does one that the store has:
its try failed only in the answer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from workers.domain.listed import DeliveryTry

# GitHub sends nothing again that is older.
AGE_LIMIT: Final = timedelta(days=3)
# With the pauses below some four hours; what a receiver misses by being away for longer is found by asking for jobs.
TRIES_MAX: Final = 24
FIRST_PAUSE: Final = timedelta(seconds=100)
LAST_PAUSE: Final = timedelta(minutes=10)
# Each is a request; the others follow in the next round.
REPLAYS_MAX: Final = 100


@dataclass(frozen=True)
class Failed:
    """A delivery of which no try is known to have succeeded."""

    guid: str
    tries: Mapping[int, datetime]
    """When each was made."""
    app: int
    """Whose webhook it is to go to."""

    @property
    def last_id(self) -> int:
        """The try that is named when GitHub is asked for another one."""
        return max(self.tries, key=lambda key: (self.tries[key], key))

    @property
    def is_due_at(self) -> datetime:
        """When it may be tried again: at once after the first failure, then after longer and longer pauses."""
        last, count = max(self.tries.values()), len(self.tries)
        return last if count == 1 else last + min(FIRST_PAUSE * 2.0 ** min(count - 2, 9), LAST_PAUSE)


def noted(failed: Mapping[str, Failed], tries: Iterable[DeliveryTry]) -> dict[str, Failed]:
    """Add what was listed; a try that is listed twice counts once, and one success ends its group."""
    groups, seen = dict(failed), list(tries)
    for one in seen:
        before = groups.get(one.guid, Failed(one.guid, {}, one.app))
        groups[one.guid] = replace(before, tries={**before.tries, one.id: one.delivered_at})
    for guid in {one.guid for one in seen if one.is_ok}:
        del groups[guid]
    return groups


def remembered(failed: Mapping[str, Failed], known: Collection[str], now: datetime) -> dict[str, Failed]:
    """Forget what the store has, what GitHub sends no more, and what was tried often enough."""
    return {
        guid: one
        for guid, one in failed.items()
        if guid not in known and min(one.tries.values()) > now - AGE_LIMIT and len(one.tries) < TRIES_MAX
    }


def replays(failed: Mapping[str, Failed], now: datetime) -> list[Failed]:
    """Return what is to be sent again now: what was tried least comes first, and then the oldest."""
    due = [one for one in failed.values() if one.is_due_at <= now]
    return sorted(due, key=lambda one: (len(one.tries), min(one.tries.values()), one.guid))[:REPLAYS_MAX]
