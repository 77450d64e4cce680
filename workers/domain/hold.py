"""A hold: a job asks not to be moved for a while.

A hold is a wish. Who speaks is a guest, and guests are hostile, so the control plane judges it by its own clock and by
nothing that the guest says of time, and these are the rules:

* A runner (which is one job) has one budget of seconds for all its holds together, set when it is made.
* A wish takes the place of the one before it. What a hold has lasted is spent for good, and each costs at least
  `HOLD_LEAST`, so that neither repeating a wish nor letting go and asking again gets more than the budget, and the
  timeline does not fill with them.
* A hold keeps the plan from beginning a move, until the deadline leaves no other choice; a move that has begun goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from workers.domain.names import RunnerId

HOLD_LEAST: Final = timedelta(seconds=10)


@dataclass(frozen=True)
class HoldWish:
    """What a guest asks for; it is said again and again, and a new wish has another number."""

    number: int
    seconds: float
    """0: no more."""


@dataclass(frozen=True)
class Hold:
    """The last wish that was heard of a runner, and what it came to."""

    runner_id: RunnerId
    number: int
    begun_at: datetime
    ends_at: datetime
    """Equal to `begun_at` if nothing was granted."""
    spent_s: float = 0.0
    """By the holds before this one."""


def is_held(hold: Hold | None, now: datetime) -> bool:
    """Say whether the runner is not to be moved now."""
    return hold is not None and now < hold.ends_at


def heard(hold: Hold | None, runner_id: RunnerId, wish: HoldWish, budget: timedelta, now: datetime) -> Hold:
    """Return what a wish comes to after what was there before; a wish that is known already changes nothing."""
    if hold is not None and hold.number == wish.number:
        return hold
    spent = timedelta() if hold is None else _spent(hold, now)
    left = max(budget - spent, timedelta())
    granted = timedelta(seconds=min(max(wish.seconds, 0.0), left.total_seconds()))
    return Hold(runner_id, wish.number, now, now + granted, spent.total_seconds())


def _spent(hold: Hold, now: datetime) -> timedelta:
    before = timedelta(seconds=hold.spent_s)
    if hold.ends_at <= hold.begun_at:
        return before
    return before + max(HOLD_LEAST, min(now, hold.ends_at) - hold.begun_at)
