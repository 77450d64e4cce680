"""Installations as GitHub lists them: that a suspension was lifted, or a repository added, may not have been told us.

While it is not known nothing is asked for such an account and its jobs are stopped, so nothing else would find it out.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import structlog

from workers.domain.errors import Refused, TryLater
from workers.listing import GitHubLists
from workers.planning.installed import lacks_some, word
from workers.ports import Clock, Hints, Store

log = structlog.get_logger()

# One request for a hundred installations, which is free as long as nothing has changed.
INSTALLED_INTERVAL: Final = timedelta(minutes=10)


class Installed:
    """Compares what we were told of installations with what GitHub lists. Doubled looks say the same twice."""

    def __init__(
        self, store: Store, lists: GitHubLists, hints: Hints, clock: Clock, interval: timedelta = INSTALLED_INTERVAL
    ) -> None:
        self._store, self._lists, self._hints = store, lists, hints
        self._clock, self._interval = clock, interval
        self._looked_at: datetime | None = None

    def is_due(self, now: datetime) -> bool:
        """Say whether it is time for a look."""
        return self._looked_at is None or now - self._looked_at >= self._interval

    def look(self) -> None:
        """Write down what was not told us of any App's installations."""
        self._looked_at = self._clock.now()
        for app in self._lists.apps:
            try:
                self._compare(app)
            except (TryLater, Refused) as error:  # another App may still be answered, and this one the next time
                log.info("later", kind="installations", id=app, why=str(error))

    def _compare(self, app: int) -> None:
        asked_at = self._clock.now()
        listed = self._lists.installations(app)
        known = [(one, row) for one in listed if (row := self._store.installation(one.id)) is not None]
        scopes = self._lists.repositories(app) if any(lacks_some(row) for _, row in known) else ()
        for one, row in known:
            names = [scope.repository for scope in scopes if scope.installation_id == one.id]
            delivery = word(one, names, row, asked_at)
            if delivery is not None:
                log.info("delivery_missed", installation=one.id, account=one.account, action=delivery.action)
                self._store.write_deliveries([delivery])
                self._hints.look_at("installation", str(one.id))
