"""Lifecycles: tables that say which state may follow which.

A lifecycle is checked when it is built, so a missing row or a state that can
never be reached stops the program at import and not in production.

Two ways to move, and nobody assigns `.state` without one of them:

    move(before, after)    our own command: illegal is a `Bug`
    heard(before, after)   an outside fact, which may be late, doubled or out of
                           order: one that would go backwards changes nothing
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from workers.domain.errors import Bug, IllegalMove

S = TypeVar("S", bound=StrEnum)


@dataclass(frozen=True)
class Lifecycle(Generic[S]):
    """The states of one kind of resource and the moves between them."""

    first: S
    moves: Mapping[S, frozenset[S]]

    def __post_init__(self) -> None:
        if set(self.moves) != set(type(self.first)):
            raise Bug(f"{type(self.first).__name__}: the table needs one row for each state")
        if self._reachable(self.first) != set(self.moves):
            raise Bug(f"{type(self.first).__name__}: a state can never be reached")

    @property
    def last(self) -> frozenset[S]:
        """States that nothing leaves."""
        return frozenset(state for state, after in self.moves.items() if not after)

    @property
    def open(self) -> frozenset[S]:
        """States that something still leaves."""
        return frozenset(self.moves) - self.last

    def move(self, before: S, after: S) -> S:
        """Return `after`, or raise `IllegalMove`."""
        if after not in self.moves[before]:
            raise IllegalMove(f"{type(before).__name__}: {before} -> {after}")
        return after

    def heard(self, before: S, after: S) -> S:
        """Return `after` if it lies ahead of `before`, perhaps some steps, else `before`."""
        return after if after in self._ahead(before) else before

    def _ahead(self, state: S) -> set[S]:
        return set[S]().union(*(self._reachable(after) for after in self.moves[state]))

    def _reachable(self, first: S) -> set[S]:
        seen, todo = set[S](), [first]
        while todo:
            state = todo.pop()
            if state not in seen:
                seen.add(state)
                todo.extend(self.moves[state])
        return seen
