"""One operation log for all fakes, and the trouble that befalls each operation.

An operation is refused before it acted, or it acted and its answer was lost, or
the worker that asked for it died: before, or after.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from workers.domain.errors import Unreachable
from workers.ports import Clock


class WorkerDied(BaseException):
    """The process that was at work is no more; nothing of it runs, its leases are not released."""


@dataclass(frozen=True)
class Operation:
    at: datetime
    port: str
    verb: str
    about: str


@dataclass
class Trouble:
    """How likely each kind of trouble is; none by default."""

    clock: Clock
    random: random.Random = field(default_factory=lambda: random.Random(0))
    unreachable: float = 0.0
    death: float = 0.0
    log: list[Operation] = field(default_factory=list)
    away: set[str] = field(default_factory=set)
    """Ports that do not answer at all, or do not answer one question: `port verb`."""
    refused: dict[tuple[str, str], BaseException] = field(default_factory=dict)
    """What is raised whenever (port, verb) is asked to act."""
    lost_calls: dict[tuple[str, str], BaseException] = field(default_factory=dict)
    """What is raised once before (port, verb) acts."""
    lost_answers: dict[tuple[str, str], BaseException] = field(default_factory=dict)
    """What is raised once after (port, verb) has acted."""
    meanwhile: Callable[[], object] | None = None
    """What others do while an operation is under way."""
    is_meanwhile: bool = False

    @contextmanager
    def befalls(self, port: str, verb: str, about: object) -> Iterator[None]:
        """Note the operation and let something go wrong with it, or not."""
        self.log.append(Operation(self.clock.now(), port, verb, str(about)))
        if not self.away.isdisjoint({port, f"{port} {verb}"}):
            raise Unreachable(f"{port} {verb} {about}: nobody answers")
        if (error := self.refused.get((port, verb)) or self.lost_calls.pop((port, verb), None)) is not None:
            raise error
        self._strike(f"{port} {verb} {about}: no answer, and nothing was done")
        self._let_others_go_on()
        yield
        if (lost := self.lost_answers.pop((port, verb), None)) is not None:
            raise lost
        self._strike(f"{port} {verb} {about}: the answer was lost")

    def _strike(self, sentence: str) -> None:
        if self.random.random() < self.death / 2:
            raise WorkerDied
        if self.random.random() < self.unreachable / 2:
            raise Unreachable(sentence)

    def _let_others_go_on(self) -> None:
        if self.meanwhile is not None and not self.is_meanwhile and self.random.random() < self.unreachable:
            self.is_meanwhile = True
            try:
                self.meanwhile()
            finally:
                self.is_meanwhile = False

    def end(self) -> None:
        """From now on everything goes well."""
        self.unreachable = self.death = 0.0

    def of(self, port: str, verb: str) -> list[Operation]:
        return [one for one in self.log if (one.port, one.verb) == (port, verb)]
