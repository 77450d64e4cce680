"""Hints that may be lost, doubled, and come in any order."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator


class LossyHints:
    def __init__(self, source: random.Random, loss: float = 0.0) -> None:
        self._random, self.loss = source, loss
        self._waiting: list[tuple[str, str]] = []
        self.at_once: Callable[[str, str], None] | None = None
        """Looks at a row before whoever gave the hint goes on, as another worker may."""

    def look_at(self, kind: str, *ids: str, urgent: bool = False) -> None:
        for key in ids:
            if self.at_once is not None:
                self.at_once(kind, key)
            if self._random.random() >= self.loss:
                self._waiting.append((kind, key))
                if self.loss and self._random.random() < self.loss:
                    self._waiting.append((kind, key))

    def taken(self) -> Iterator[tuple[str, str]]:
        """Take what waits now; what is hinted at meanwhile waits for the next time."""
        waiting, self._waiting = self._waiting, []
        if self.loss:
            self._random.shuffle(waiting)
        yield from waiting
