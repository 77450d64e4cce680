"""What becomes of a delivery on its way, drawn by seeded dice: GitHub promises neither order nor arrival.

announced ─┬─ lost: nobody ever hears of it, and GitHub lists no try
           └─ sent now, late, or so late that later ones overtake it ─┬─ whole ──┬─ once
                                                                      └─ damaged └─ and once more, under its own GUID
"""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Final

# What a delivery is about, by the name that it has there: the first of these that it has.
SUBJECTS: Final = ("workflow_job", "installation", "hook")


class Damage(StrEnum):
    """How a delivery is malformed; its headers say that it is GitHub's, and its signature fits but for the last."""

    CUT = auto()
    """It ends in the middle."""
    ODD = auto()
    """JSON, but not what the schema says."""
    ALIEN = auto()
    """JSON, but no object."""
    UNSIGNED = auto()
    """Signed by somebody else."""


@dataclass(frozen=True)
class Shares:
    """How many of all deliveries meet what, from 0 to 1."""

    lost: float = 0.0
    doubled: float = 0.0
    reordered: float = 0.0
    delayed: float = 0.0
    malformed: float = 0.0
    reordered_s: float = 3.0
    """Held back for up to so long, so that later ones overtake it."""
    delayed_s: float = 20.0
    """Every delayed one comes so late."""
    seed: int = 0


@dataclass(frozen=True)
class Fate:
    """What becomes of one delivery."""

    is_lost: bool = False
    wait_s: float = 0.0
    again_after_s: float | None = None
    damage: Damage | None = None


WHOLE: Final = Fate()


class Dice:
    """Draws fates and counts them."""

    def __init__(self, shares: Shares) -> None:
        self.shares = shares
        self._random = random.Random(shares.seed)  # noqa: S311  # a rehearsal's dice, to be thrown alike again
        self._lock = threading.Lock()
        self._drawn: Counter[str] = Counter()

    def fate(self) -> Fate:
        """Draw the fate of the next delivery; each share is drawn by itself, so one delivery may meet several."""
        shares = self.shares
        with self._lock:
            self._drawn["announced"] += 1
            if self._meets("lost", shares.lost):
                return Fate(is_lost=True)
            wait_s = self._random.uniform(0, shares.reordered_s) if self._meets("reordered", shares.reordered) else 0.0
            if self._meets("delayed", shares.delayed):
                wait_s += shares.delayed_s
            again = self._random.uniform(0, shares.reordered_s) if self._meets("doubled", shares.doubled) else None
            damage = self._random.choice(list(Damage)) if self._meets("malformed", shares.malformed) else None
            return Fate(wait_s=wait_s, again_after_s=again, damage=damage)

    def drawn(self) -> Mapping[str, int]:
        """Return how many deliveries were announced, and how many of them met what."""
        with self._lock:
            return dict(self._drawn)

    def _meets(self, what: str, share: float) -> bool:
        meets = self._random.random() < share
        self._drawn[what] += meets
        return meets


def damaged(body: bytes, damage: Damage | None) -> bytes:
    """Return a body as it arrives."""
    match damage:
        case Damage.CUT:
            return body[: len(body) // 2]
        case Damage.ODD:
            content = json.loads(body)
            subject = next((content[name] for name in SUBJECTS if name in content), content)
            subject["id"] = [str(subject.get("id"))]
            return json.dumps(content).encode()
        case Damage.ALIEN:
            return b'["workflow_job"]'
        case Damage.UNSIGNED | None:
            return body
