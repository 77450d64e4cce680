"""Failed deliveries: read from GitHub's list, and asked for once more until one arrives.

of each App:
newest ──────────────────────────────▶ what the last look has seen, or three days back after a start
         (a look that must end remembers where it was and goes on there next time)
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import structlog

from workers.domain.errors import Refused, TryLater
from workers.domain.listed import DeliveryPage
from workers.listing import GitHubLists
from workers.planning.replaying import AGE_LIMIT, Failed, noted, remembered, replays
from workers.ports import Clock, Store

log = structlog.get_logger()

# With the sweep's 15 s, what has failed is asked for again within two minutes.
REPLAY_INTERVAL: Final = timedelta(seconds=100)
# A look is a task, and ends in less time than a task may take.
LOOK_LIMIT: Final = timedelta(seconds=20)
# GitHub stamps a try when it begins and lists it when it has ended, ten seconds later at most.
OVERLAP: Final = timedelta(seconds=30)


@dataclass(frozen=True)
class _Stretch:
    """A part of an App's list that is still to be read."""

    app: int
    cursor: str | None
    """None: from the newest on."""
    until: datetime


class Replay:
    """Has GitHub deliver again what never arrived. Doubled looks cost requests and nothing else: GUIDs count once."""

    def __init__(self, store: Store, lists: GitHubLists, clock: Clock, interval: timedelta = REPLAY_INTERVAL) -> None:
        self._store, self._lists, self._clock, self._interval = store, lists, clock, interval
        self._read_to = dict.fromkeys(lists.apps, clock.now() - AGE_LIMIT)
        self._behind: list[_Stretch] = []
        self._failed: dict[str, Failed] = {}
        self._looked_at: datetime | None = None

    def is_due(self, now: datetime) -> bool:
        """Say whether it is time for a look: at once after a start, and while there is more to read."""
        return self._looked_at is None or bool(self._behind) or now - self._looked_at >= self._interval

    def look(self) -> None:
        """Read what is new in the lists and ask for what has failed; an App in trouble holds none of the others up.

        Raises `TryLater` or `Refused` at the end for the first that was, and goes on there next time.
        """
        self._looked_at = began = self._clock.now()
        self._begin(began)
        troubled: dict[int, Exception] = {}
        while self._clock.now() - began < LOOK_LIMIT and (stretch := self._next(troubled)) is not None:
            with _noted(stretch.app, troubled):
                self._read(stretch)
        known = self._store.known_deliveries(self._failed)
        self._failed = remembered(self._failed, known, began)
        for one in replays(self._failed, began):
            if one.app not in troubled:
                with _noted(one.app, troubled):
                    self._lists.redeliver(one.app, one.last_id)
                    log.info("redelivery_asked", guid=one.guid, tries=len(one.tries))
        for error in troubled.values():
            raise error

    def _begin(self, now: datetime) -> None:
        """Note that what has come since is to be read, wherever that is not noted yet."""
        noted_of = {one.app for one in self._behind if one.cursor is None}
        for app in self._read_to.keys() - noted_of:
            self._behind.append(_Stretch(app, None, self._read_to[app]))
            self._read_to[app] = now - OVERLAP

    def _next(self, troubled: Collection[int]) -> _Stretch | None:
        return next((one for one in reversed(self._behind) if one.app not in troubled), None)

    def _read(self, stretch: _Stretch) -> None:
        """Read one page of a stretch and leave what follows of it, or all of it if GitHub does not answer."""
        page = self._lists.deliveries(stretch.app, stretch.cursor)
        if stretch in self._behind:  # or another look has read it meanwhile
            self._behind.remove(stretch)
        self._failed = noted(self._failed, page.tries)
        self._behind.extend(_rest(page, stretch))


@contextmanager
def _noted(app: int, troubled: dict[int, Exception]) -> Iterator[None]:
    try:
        yield
    except (TryLater, Refused) as error:
        troubled[app] = error


def _rest(page: DeliveryPage, read: _Stretch) -> Iterator[_Stretch]:
    if page.older is not None and page.tries and min(one.delivered_at for one in page.tries) > read.until:
        yield replace(read, cursor=page.older)
