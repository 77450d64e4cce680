"""Weekly windows by the clock on somebody's wall: `mon-fri 08:00-18:00` in Europe/Berlin.

A window is open whenever that clock shows one of its times on one of its days, so nothing has to be said of summer
time: an hour that the clock skips opens nothing, one that it shows twice counts twice. A window that ends before its
begin goes on past midnight and belongs to the day on which it began.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import Final

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
WEEK: Final = frozenset(range(7))
HOUR_MINUTES: Final = 60
DAY_MINUTES: Final = 24 * HOUR_MINUTES
FORM: Final = "DAYS HH:MM-HH:MM, as in 'mon-fri 08:00-18:00', 'sat,sun 22:00-06:00' or '* 00:00-24:00'"

_WINDOW: Final = re.compile(r"(\S+) +(\d\d):(\d\d)-(\d\d):(\d\d)")


@dataclass(frozen=True)
class Window:
    """Times of some days of the week."""

    days: frozenset[int]
    """Monday is 0."""
    begins: int
    ends: int
    """Minutes after midnight; the window is closed again at this one."""
    zone: tzinfo = UTC

    def is_open(self, now: datetime) -> bool:
        """Say whether the clock shows one of its times now."""
        local = now.astimezone(self.zone)
        minute, today = local.hour * HOUR_MINUTES + local.minute, local.weekday()
        if self.begins < self.ends:
            return today in self.days and self.begins <= minute < self.ends
        yesterday = (today - 1) % 7
        return (today in self.days and minute >= self.begins) or (yesterday in self.days and minute < self.ends)


def read_window(text: str, zone: tzinfo) -> Window | None:
    """Read a window as `FORM` says; None if it is none."""
    found = _WINDOW.fullmatch(text.strip().lower())
    if found is None:
        return None
    days, begins, ends = _days(found[1]), _minute(found[2], found[3]), _minute(found[4], found[5])
    if days is None or begins is None or ends is None or begins in {ends, DAY_MINUTES}:
        return None
    return Window(days, begins, ends, zone)


def day_begin(now: datetime, zone: tzinfo) -> datetime:
    """Return when the present day began by the clock of this zone, in UTC."""
    return datetime.combine(now.astimezone(zone).date(), time(), zone).astimezone(UTC)


def next_day(now: datetime, zone: tzinfo) -> datetime:
    """Return when the next day begins by the clock of this zone, in UTC."""
    tomorrow = now.astimezone(zone).date() + timedelta(days=1)
    return datetime.combine(tomorrow, time(), zone).astimezone(UTC)


def _minute(hours: str, minutes: str) -> int | None:
    minute = int(hours) * HOUR_MINUTES + int(minutes)
    return minute if int(minutes) < HOUR_MINUTES and minute <= DAY_MINUTES else None


def _days(text: str) -> frozenset[int] | None:
    """Read `mon-fri,sun` or `*`; a span may go past Sunday."""
    if text == "*":
        return WEEK
    found = set[int]()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first not in DAYS or (last or first) not in DAYS or part.endswith("-"):
            return None
        begin, end = DAYS.index(first), DAYS.index(last or first)
        found |= {(begin + step) % 7 for step in range((end - begin) % 7 + 1)}
    return frozenset(found)
