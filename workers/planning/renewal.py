"""When a package is renewed, and in which order: the former one stays in use until the new one has been proved.

    nothing newer ──a release──▶ pin ─▶ build ─▶ prove (restore one guest) ─▶ roll over ─▶ nothing newer

What the recipe in use has pinned changes with the last step, so that a renewal which was interrupted begins again, and
finds made what was made.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, auto

from workers.domain.release import Release


class RenewalStep(StrEnum):
    """What is to be done next."""

    NOTHING = auto()
    PIN = auto()
    BUILD = auto()
    PROVE = auto()
    ROLL_OVER = auto()


@dataclass(frozen=True)
class RenewalSeen:
    """How far it is."""

    in_use: Release | None
    """What the recipe has pinned; None: nothing yet."""
    newest: Release
    candidate: Release | None = None
    """What is pinned in the recipe's copy."""
    is_built: bool = False
    is_proved: bool = False


def next_step(seen: RenewalSeen) -> RenewalStep:
    """Say what is to be done next about a package."""
    if seen.in_use is not None and not seen.newest.is_newer_than(seen.in_use):
        return RenewalStep.NOTHING
    if seen.candidate is None or seen.newest.is_newer_than(seen.candidate):
        return RenewalStep.PIN
    if not seen.is_built:
        return RenewalStep.BUILD
    return RenewalStep.ROLL_OVER if seen.is_proved else RenewalStep.PROVE
