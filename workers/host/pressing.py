"""How a guest that writes faster than its line carries is made to arrive: by measured figures, and no more than needed.

    first round ─▶ ends in time by itself? ─yes─▶ go on
                              └─no─▶ cap its processors: 50, 25, 10, 4 % ─still not─▶ let it stand longer, up to 3 s

After each round the guest's writing and the line are measured again. A cap takes effect in the round after it, so it is
judged only then, unless the time is short. Nothing is eased before the end, and at the end all of it is undone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

# How long the guest may stand while the last of its memory is sent; what is added is the end of the mirror and the row.
DOWNTIME_MS: Final = 30
# A longer pause would be seen by whoever is connected, and the streams are cut when nothing has ended by then.
DOWNTIME_MAX_MS: Final = 3000
CAPS: Final = (0.5, 0.25, 0.1, 0.04)
# Above this ratio of writing to sending rounds hardly get shorter; the plan reckons with the same
# (workers/planning/estimates.py).
RATIO_MAX: Final = 0.85
# What must be left of the notice when the memory has arrived: the switch, the commit, and what was not foreseen.
RESERVE_S: Final = 4.0
# With so little left nothing is tried out any more.
LAST_CHANCE_S: Final = 8.0
# What is added to the pause that the figures ask for, because they are some tenths of a second old.
SPARE: Final = 1.25


@dataclass(frozen=True)
class Copying:
    """What is seen of a copy at one moment."""

    round: int
    """1 while all memory is sent for the first time."""
    remaining_mib: float
    dirty_mib_s: float
    """What the guest wrote during the last round."""
    line_mib_s: float
    """What was sent in the last second."""
    left_s: float
    """Until the source is taken away."""


@dataclass(frozen=True)
class Pressure:
    """What is done to a guest so that it arrives."""

    cap: float = 1.0
    """Of each of its processors."""
    downtime_ms: int = DOWNTIME_MS
    round: int = 0
    """In which it was put on."""


def next_pressure(pressure: Pressure, seen: Copying) -> Pressure:
    """Return the pressure from now on: the same, or more."""
    if seen.round <= 1 or seen.line_mib_s <= 0 or _is_in_time(seen, 1.0):
        return pressure
    is_last_chance = seen.left_s < LAST_CHANCE_S
    if seen.round <= pressure.round and not is_last_chance:
        return pressure
    lower = [cap for cap in CAPS if cap < pressure.cap]
    enough = next((cap for cap in lower if _is_in_time(seen, cap / pressure.cap)), min(CAPS))
    if lower and not is_last_chance:
        return replace(pressure, cap=enough, round=seen.round)
    needed_ms = seen.remaining_mib / seen.line_mib_s * 1000 * SPARE
    allowed_ms = min(max(needed_ms, pressure.downtime_ms), DOWNTIME_MAX_MS)
    return Pressure(min(CAPS), round(allowed_ms), seen.round)


def _is_in_time(seen: Copying, slower: float) -> bool:
    """Say whether the rounds end in time, if the guest writes so much slower than it did.

    The sum of a geometric series, as in workers/planning/estimates.py.
    """
    ratio = seen.dirty_mib_s * slower / seen.line_mib_s
    return ratio < RATIO_MAX and seen.remaining_mib / seen.line_mib_s / (1 - ratio) <= seen.left_s - RESERVE_S
