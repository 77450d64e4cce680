"""Refusals that GitHub may take back: for a moment it answers 401 and 404 to whom and about what it knows very well.

refused ─▶ in doubt: asked again ─▶ answered otherwise: forgotten
               └▶ refused in the same way for half an hour: believed
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Final

from workers.domain.errors import NotThere, TryLater, Unrecognized
from workers.ports import Clock

# As an outage of GitHub's own (`deployments`): what still holds then is no slip.
DOUBT_LIMIT: Final = timedelta(minutes=30)


class Doubts:
    """Knows since when each question is answered by a refusal that may be taken back."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # The first and the last such answer. Forgotten at a restart, after which it is asked for as long again.
        self._between: dict[Hashable, tuple[datetime, datetime]] = {}

    @contextmanager
    def given(self, question: Hashable) -> Iterator[None]:
        """Raise `TryLater` instead of a refusal that may be taken back, until it has been given for `DOUBT_LIMIT`."""
        try:
            yield
        except (NotThere, Unrecognized) as error:
            if self._is_over(question):
                raise
            raise TryLater(str(error)) from error
        self._between.pop(question, None)

    def _is_over(self, question: Hashable) -> bool:
        now = self._clock.now()
        # One that was not refused for so long was answered meanwhile: by another worker's question, for example.
        recent = {one: between for one, between in self._between.items() if now - between[1] < DOUBT_LIMIT}
        since, _ = recent.get(question, (now, now))
        self._between = recent | {question: (since, now)}
        return now - since >= DOUBT_LIMIT
