"""What is looked for although nobody told us: failed deliveries, jobs that were missed, what is left over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from workers.ports import Clock
from workers.reconcilers.catch_up import CatchUp
from workers.reconcilers.installed import Installed
from workers.reconcilers.reaper import Reaper
from workers.reconcilers.replay import Replay

KIND: Final = "recovery"


@dataclass(frozen=True)
class Recovery:
    """One of each; in this order after a start, so that what happened meanwhile is known before anything is ended."""

    installed: Installed
    replay: Replay
    catch_up: CatchUp
    reaper: Reaper
    clock: Clock

    def due(self) -> Iterator[tuple[str, str]]:
        """Name the looks whose time has come, as rows are named."""
        now = self.clock.now()
        yield from ((KIND, name) for name, one in self._all().items() if one.is_due(now))

    def look(self, name: str) -> None:
        """Take one look. Raises `TryLater` for what goes on with the next one."""
        self._all()[name].look()

    def _all(self) -> dict[str, Installed | Replay | CatchUp | Reaper]:
        return {"installed": self.installed, "replay": self.replay, "catch_up": self.catch_up, "reap": self.reaper}
