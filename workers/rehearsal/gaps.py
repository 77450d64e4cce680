"""How long the guest stood still as something inside of it felt it: pure arithmetic on what the job kept.

A guest's clock stands still while its microVM does, so the beat's gap alone would hide the pause. What the guest's
clock lost against the echo server's across the window is therefore added: a watch outside would show so much at most.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

WINDOW_S: Final = 2.0
# A move disturbs the guest before and after its pause too; windows without a move keep clear of it.
CLEAR_S: Final = 8.0


@dataclass(frozen=True)
class Beat:
    """The longest gap of each bucket of time, by the guest's clock."""

    began_at: float
    bucket_s: float
    gaps_ms: Sequence[float]
    offsets_ms: Sequence[tuple[float, float]]
    """(moment by the guest's clock, server's clock minus the guest's)."""

    @classmethod
    def of(cls, figures: dict[str, Any]) -> Beat:
        """Read what the job has printed."""
        beat, offsets = figures["beat"], figures["connection"]["clock_offsets_ms"]
        return cls(beat["began_at"], beat["bucket_s"], beat["gaps_ms"], [(at, offset) for at, offset in offsets])

    @property
    def ended_at(self) -> float:
        return self.began_at + len(self.gaps_ms) * self.bucket_s

    def in_guest(self, moment: float) -> float:
        """Return what the guest's clock showed at a moment of the server's."""
        known = [offset for at, offset in self.offsets_ms if at + offset / 1000 <= moment]
        first = self.offsets_ms[0][1] if self.offsets_ms else 0.0
        return moment - (known[-1] if known else first) / 1000

    def lost_ms(self, guest_moment: float) -> float:
        """Return how far the guest's clock fell behind around this moment."""
        before = [offset for at, offset in self.offsets_ms if guest_moment - WINDOW_S <= at <= guest_moment]
        after = [offset for at, offset in self.offsets_ms if guest_moment < at <= guest_moment + WINDOW_S]
        return max(0.0, min(after) - min(before)) if before and after else 0.0

    def longest_ms(self, guest_moment: float) -> float | None:
        """Return the longest gap in the window around this moment; None if the beat does not cover it."""
        first = int((guest_moment - WINDOW_S / 2 - self.began_at) / self.bucket_s)
        last = int((guest_moment + WINDOW_S / 2 - self.began_at) / self.bucket_s)
        if first < 0 or last >= len(self.gaps_ms):
            return None
        return round(max(self.gaps_ms[first : last + 1]) + self.lost_ms(guest_moment), 1)


def around(beat: Beat, moment: float) -> float | None:
    """Return the longest gap within the window around a moment of the server's clock."""
    return beat.longest_ms(beat.in_guest(moment))


def baseline(beat: Beat, moves: Sequence[float]) -> float | None:
    """Return the median of the longest gaps of all windows that no move disturbs."""
    clear = [beat.in_guest(moment) for moment in moves]
    centers = [
        beat.began_at + WINDOW_S * (number + 0.5) for number in range(int((beat.ended_at - beat.began_at) / WINDOW_S))
    ]
    quiet = [center for center in centers if all(abs(center - move) >= CLEAR_S for move in clear)]
    longest = [gap for center in quiet if (gap := beat.longest_ms(center)) is not None]
    return round(statistics.median(longest), 1) if longest else None
