"""This host's line, shared by the moves that leave it at one time.

Every move has a planned share. One that is alone takes what it gets; several divide what was planned for all of them in
proportion, so a share grows as soon as another move has ended, without a word from the control plane.
"""

from __future__ import annotations

from collections.abc import Mapping

from workers.domain.names import MigrationId


class Line:
    """The moves that use the line now."""

    def __init__(self) -> None:
        self._shares: dict[MigrationId, float | None] = {}
        self._speeds: dict[MigrationId, float] = {}
        self._planned_mib_s = 0.0
        self.best_mib_s = 0.0
        """The most that all moves together have carried at one moment, since the line was last idle."""

    def join(self, move: MigrationId, share_mib_s: float | None) -> None:
        """Begin to use it; joining twice is joining once."""
        if not self._shares:
            self._planned_mib_s = self.best_mib_s = 0.0
        self._shares[move] = share_mib_s
        self._planned_mib_s = max(self._planned_mib_s, sum(share or 0.0 for share in self._shares.values()))

    def leave(self, move: MigrationId) -> None:
        """Use it no more."""
        self._shares.pop(move, None)
        self._speeds.pop(move, None)

    def note(self, move: MigrationId, mib_s: float) -> None:
        """Say what this move carries just now."""
        if move in self._shares:
            self._speeds[move] = mib_s
            self.best_mib_s = max(self.best_mib_s, sum(self._speeds.values()))

    def limit(self, move: MigrationId) -> float | None:
        """Return what this move may carry now in MiB a second; None: whatever it gets."""
        return divided(self._shares, self._planned_mib_s).get(move)


def divided(shares: Mapping[MigrationId, float | None], line_mib_s: float) -> Mapping[MigrationId, float]:
    """Divide a line in proportion to planned shares; nothing for one that is alone or if any share is not known."""
    known = {move: share for move, share in shares.items() if share}
    if len(shares) <= 1 or len(known) < len(shares):
        return {}
    total = sum(known.values())
    return {move: max(line_mib_s, total) * share / total for move, share in known.items()}
