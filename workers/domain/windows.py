"""What may be spent in a span of time, counted so that no span of that length ever holds more.

Moments are Unix seconds here, as in GitHub's headers and in what the workers share.

A call counts at GitHub somewhere between our asking and its answer. So it is booked at the latest moment at which its
answer can come, and booked anew at the moment at which it came: of two calls in one of GitHub's spans the earlier is
then always in the span that ends when the later is granted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

# A span is counted in so many slots: the finer, the less is left unused.
SLOTS: Final = 60
# Whatever is on its way to GitHub while it tells us what is left: no more may be on its way at once (GitHub: 100).
ON_THE_WAY_MAX: Final = 60
HOUR_S: Final = 3600.0


@dataclass
class Window:
    """What was spent in the last `span_s` seconds."""

    span_s: int
    spent: dict[int, int] = field(default_factory=dict)
    """Amount by slot; a slot is a sixtieth of the span."""

    @property
    def slot_s(self) -> float:
        """How long a slot is."""
        return self.span_s / SLOTS

    def used(self, now: float) -> int:
        """Return what counts at this moment, with what is booked ahead."""
        return sum(amount for slot, amount in self.spent.items() if self._ends_at(slot) > now)

    def spend(self, amount: int, at: float) -> None:
        """Book an amount."""
        slot = math.floor(at / self.slot_s)
        self.spent[slot] = self.spent.get(slot, 0) + amount

    def move(self, amount: int, from_at: float, to_at: float) -> None:
        """Book an amount for another moment; one that is forgotten already stays so."""
        slot = math.floor(from_at / self.slot_s)
        if self.spent.get(slot, 0) >= amount:
            self.spent[slot] -= amount
            self.spend(amount, to_at)

    def fits_at(self, amount: int, limit: int, now: float) -> float:
        """Return the earliest moment at which so much fits under the limit if nothing else is spent before.

        What is more than the whole limit is taken to come in later spans, one limit in each, and what is booked ahead
        to be answered now.
        """
        spans, rest = divmod(amount - 1, limit) if amount > limit > 0 else (0, amount - 1)
        over = self.used(now) + rest + 1 - limit
        at = now
        for slot in sorted(self.spent):
            if over <= 0:
                break
            if self._ends_at(slot) > now:
                over -= self.spent[slot]
                at = min(self._ends_at(slot), now + self.slot_s + self.span_s)
        return at + spans * self.span_s

    def forget(self, now: float) -> None:
        """Drop what counts no longer."""
        self.spent = {slot: amount for slot, amount in self.spent.items() if amount and self._ends_at(slot) > now}

    def add(self, other: Window) -> None:
        """Take over what another count of the same calls knows more of."""
        for slot, amount in other.spent.items():
            self.spent[slot] = max(self.spent.get(slot, 0), amount)

    def _ends_at(self, slot: int) -> float:
        return (slot + 1) * self.slot_s + self.span_s


@dataclass
class Hour:
    """What GitHub leaves an installation in this hour, by its own word (`x-ratelimit-…`) as soon as there is one."""

    limit: int
    left: int
    reset_at: float
    is_guess: bool = True
    """GitHub has not said so."""

    def begin_again(self, now: float) -> None:
        """Start another hour if this one is over."""
        if now >= self.reset_at:
            self.left, self.reset_at, self.is_guess = max(0, self.limit - ON_THE_WAY_MAX), now + HOUR_S, True

    def spend(self) -> None:
        """Count one request that will be made."""
        self.left = max(0, self.left - 1)

    def hear(self, limit: int, remaining: int, reset_at: float, now: float) -> None:
        """Believe GitHub; within an hour the lower of its count and ours, which knows what is on its way."""
        if reset_at <= now or (not self.is_guess and reset_at < self.reset_at - 1):
            return  # an answer that was long on its way speaks of the hour before
        if self.is_guess or reset_at > self.reset_at + 1:
            self.left = max(0, min(remaining, limit) - ON_THE_WAY_MAX)
            self.reset_at, self.is_guess = reset_at, False
        else:
            self.left = min(self.left, remaining)
        self.limit = limit
