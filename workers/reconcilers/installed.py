"""Installations as GitHub lists them: what became of one may not have been told us.

As long as it is not known that a suspension was lifted, or a repository added, nothing is asked for such an account and
its jobs are stopped; where our App was suspended or removed GitHub refuses whatever it is asked. Nothing else would
find either out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import structlog

from workers.domain.errors import Refused, TryLater
from workers.domain.events import Delivery
from workers.domain.installation import Installation
from workers.domain.listed import InstallationListed
from workers.listing import GitHubLists
from workers.planning.installed import back, gone, is_doubtful, lacks_some, word
from workers.ports import Clock, Hints, Store
from workers.reconcilers.catch_up import ACTIVE_LIMIT

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
        self._doubted_since: dict[int, datetime] = {}  # forgotten at a restart, after which it takes two more looks

    def is_due(self, now: datetime) -> bool:
        """Say whether it is time for a look."""
        return self._looked_at is None or now - self._looked_at >= self._interval

    def look(self) -> None:
        """Write down what was not told us of any App's installations."""
        asked_at = self._looked_at = self._clock.now()
        answers = {app: self._listed(app) for app in self._lists.apps}
        listed = {one.id: one for answer in answers.values() for one in answer or ()}
        accounts = self._accounts(asked_at) | {one.id: one.account for one in listed.values()}
        rows = {number: self._store.installation(number) for number in accounts}
        for app, answer in answers.items():
            self._compare(app, answer or (), rows, asked_at)
        # Whose an installation is that nobody lists is not known, so each App must have answered.
        is_whole = bool(answers) and all(answer is not None for answer in answers.values())
        doubted = [number for number, row in rows.items() if is_doubtful(row, is_listed=number in listed)]
        self._doubt({number: accounts[number] for number in doubted if is_whole}, listed, asked_at)

    def _listed(self, app: int) -> Sequence[InstallationListed] | None:
        """Return the whole list of one App; None if it cannot be had: another App may still be answered."""
        try:
            return self._lists.installations(app)
        except (TryLater, Refused) as error:
            log.info("later", kind="installations", id=app, why=str(error))
            return None

    def _accounts(self, now: datetime) -> dict[int, str]:
        """Return the installations for which GitHub is asked anything, and whose they are."""
        scopes = self._store.active_repositories(now - ACTIVE_LIMIT)
        named = [(one.installation_id, one.repository) for one in scopes]
        named += [(one.installation_id, one.repository) for one in self._store.jobs.open()]
        named += [(one.installation_id, one.repository) for one in self._store.runners.open()]
        return {number: repository.partition("/")[0] for number, repository in named}

    def _compare(
        self,
        app: int,
        listed: Sequence[InstallationListed],
        rows: Mapping[int, Installation | None],
        asked_at: datetime,
    ) -> None:
        """Write down what the list of one App says of those that are in it."""
        lacking = [row for one in listed if (row := rows[one.id]) is not None and lacks_some(row)]
        try:
            scopes = self._lists.repositories(app) if lacking else ()
        except (TryLater, Refused) as error:  # they may be listed the next time
            log.info("later", kind="repositories", id=app, why=str(error))
            scopes = ()
        for one in listed:
            names = [scope.repository for scope in scopes if scope.installation_id == one.id]
            delivery = word(one, names, rows[one.id], asked_at)
            if delivery is not None:
                self._write(delivery, one.account)

    def _doubt(self, doubted: Mapping[int, str], listed: Mapping[int, InstallationListed], asked_at: datetime) -> None:
        """Believe what two whole lists in a row say: what changes while its pages are read may be missed in one."""
        self._doubted_since = {number: self._doubted_since.get(number, asked_at) for number in doubted}
        for number, since in self._doubted_since.items():
            if asked_at - since >= self._interval:
                one, account = listed.get(number), doubted[number]
                self._write(gone(number, account, asked_at) if one is None else back(one, asked_at), account)

    def _write(self, delivery: Delivery, account: str) -> None:
        fact = delivery.installation
        if fact is not None:
            log.info("delivery_missed", installation=fact.installation_id, account=account, action=delivery.action)
            self._store.write_deliveries([delivery])
            self._hints.look_at("installation", str(fact.installation_id))
