"""How long a move takes, from what a guest has, what it writes meanwhile, and its share of the line.

    disk, then memory in rounds: all that is in use, then what was written during the round before, and so on

    memory M, written d a second, share s, r = d/s:   M/s · (1 + r + r² + ...) = M/s / (1 - r)

A guest that writes nearly as fast as its share carries is pressed (its processors are capped) as host/pressing.py
does it; one that outruns even that stands still while its last memory is sent. Post-copy has no part in this: no case
was found that pre-copy, pressing and parking cannot serve, and it loses the guest when either host dies.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from workers.domain.messages import Load
from workers.domain.runner import Shape

# The target's machine starts, the streams find each other, and at the end both sides and the row agree.
FIXED_S: Final = 2.0
# Above this ratio rounds hardly get shorter, so the processors are capped; measured to end at a quarter with 0.8.
RATIO_MAX: Final = 0.85
CAPS: Final = (1.0, 0.5, 0.25, 0.1)
# 1 Gbit/s, the least that clouds sell with a machine of use, and WireGuard in user space, as it was measured.
NEAR_MIB_S: Final = 119.0
FAR_MIB_S: Final = 60.0
# Of a guest that was not measured yet: all its memory, a fresh runner's disk, a compiler at work.
UNMEASURED_DISK_MIB: Final = 64.0
UNMEASURED_DIRTY_MIB_S: Final = 20.0


def load_or_guess(load: Load | None, shape: Shape) -> Load:
    """Return what was measured, or else what a guest of this shape has at most."""
    if load is None:
        return Load(float(shape.memory_mib), UNMEASURED_DISK_MIB, UNMEASURED_DIRTY_MIB_S)
    dirty = UNMEASURED_DIRTY_MIB_S if load.dirty_mib_s is None else load.dirty_mib_s
    return Load(load.memory_mib, load.disk_mib, dirty)


def move_time(load: Load, share_mib_s: float) -> timedelta:
    """Return how long it takes until the target runs the guest."""
    memory_s = _memory_s(load.memory_mib, load.dirty_mib_s or 0.0, share_mib_s)
    return timedelta(seconds=FIXED_S + load.disk_mib / share_mib_s + memory_s)


def sent_mib(load: Load, share_mib_s: float) -> float:
    """Return how much a move sends in all."""
    return load.disk_mib + _memory_s(load.memory_mib, load.dirty_mib_s or 0.0, share_mib_s) * share_mib_s


def _memory_s(memory_mib: float, dirty_mib_s: float, share_mib_s: float) -> float:
    """Only the first round shows how busy a guest is, so nothing is capped before its end."""
    first_s = memory_mib / share_mib_s
    written_mib = min(memory_mib, dirty_mib_s * first_s)
    ratios = (dirty_mib_s * cap / share_mib_s for cap in CAPS)
    ratio = next((ratio for ratio in ratios if ratio < RATIO_MAX), 0.0)
    return first_s + written_mib / share_mib_s / (1 - ratio)
