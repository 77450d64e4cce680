"""The three sides that the reaper holds against each other: hosts' last words, GitHub's lists, our rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog

from workers.domain.errors import NotThere, Refused, TryLater
from workers.domain.installation import EVERYBODY, Guests
from workers.domain.listed import RunnerListed, Scope
from workers.domain.names import RunnerId
from workers.domain.runner import Level, RunnerState, place_of
from workers.listing import GitHubLists
from workers.planning.pace import slowed
from workers.planning.reaping import Sides, scope_of
from workers.ports import Clock, Store
from workers.reconcilers.standing import require_served

log = structlog.get_logger()

LIST_INTERVAL: Final = timedelta(minutes=1)
# A host beats every second or two; what one has said that is silent now may be long untrue.
HEARD_LIMIT: Final = timedelta(seconds=5)
# Runners live in repositories that have jobs; what was left over elsewhere GitHub removes within a day.
ACTIVE_LIMIT: Final = timedelta(hours=1)
# A look is a task, and ends in less time than a task may take.
LOOK_LIMIT: Final = timedelta(seconds=20)
# A place that is answered with 404 for so long, and so often running, is no more: nobody's job holds out longer.
UNKNOWN_LIMIT: Final = timedelta(minutes=10)
UNKNOWN_TIMES: Final = 5


@dataclass(frozen=True)
class Ours:
    """Which registrations may be this deployment's, and whose jobs it serves."""

    mark: str
    """How the names of its runners begin."""
    may_share: Callable[[str], bool] = lambda _: False
    """Whether runners for a repository may be registered with its whole organization."""
    served: Guests = EVERYBODY


class Survey:
    """Reads the three sides. GitHub is asked every minute, and whenever a microVM seems to be left over."""

    def __init__(
        self,
        store: Store,
        lists: GitHubLists,
        clock: Clock,
        ours: Ours,
        interval: timedelta = LIST_INTERVAL,
    ) -> None:
        self._store, self._lists, self._clock = store, lists, clock
        self._ours, self._interval = ours, interval
        self._listed_at: dict[Scope, datetime] = {}
        self._everywhere: dict[int, Sequence[Scope]] = {}
        self._unknown: dict[Scope, tuple[datetime, int]] = {}

    def sides(self, now: datetime, doubtful: Iterable[Scope] = ()) -> Sides:
        """Read hosts first and rows last, so that whatever a host or GitHub has begun has its row by then.

        Where it is `doubtful`, GitHub is asked although it is not time for it yet.
        """
        reported = self._store.reported(now - HEARD_LIMIT)
        moving = {move.runner_id for move in self._store.migrations.open()}
        names = {report.runner_id for reports in reported.values() for report in reports}
        scopes = dict.fromkeys((*doubtful, *self._scopes(names, now)))
        listed, unheard = self._list(scopes, now)
        names |= {RunnerId(one.name) for runners in listed.values() for one in runners}
        rows = {row.id: row for row in self._store.runners.open()}
        rows |= {name: row for name in names - rows.keys() if (row := self._store.runners.get(name)) is not None}
        moving |= {move.runner_id for move in self._store.migrations.open()}
        return Sides(reported, listed, rows, frozenset(moving), frozenset(unheard), self._ours.mark)

    def _scopes(self, reported: Iterable[RunnerId], now: datetime) -> list[Scope]:
        """Return where GitHub is to be asked: where it is time for it, and where a leftover may be registered."""
        active = self._active(now)
        wanted = dict.fromkeys(scope for scope in active if self._is_time(scope, now))
        for name in reported:
            row = self._store.runners.get(name)
            if row is None:
                wanted |= dict.fromkeys(active)
            elif row.state is RunnerState.GONE:
                wanted |= {scope_of(row): None}
        return list(wanted)

    def _active(self, now: datetime) -> list[Scope]:
        """Return where runners of ours may be: where rows and jobs are, and once after a start everywhere."""
        rows = (scope_of(row) for row in self._store.runners.open())
        active = self._store.active_repositories(now - ACTIVE_LIMIT)
        scopes = dict.fromkeys((*rows, *active, *self._organizations(active)))
        everywhere = [scope for app in self._lists.apps for scope in self._all_of(app)]
        unlisted = (scope for scope in (*everywhere, *self._organizations(everywhere)) if scope not in self._listed_at)
        return list(dict.fromkeys((*scopes, *unlisted)))

    def _organizations(self, scopes: Iterable[Scope]) -> list[Scope]:
        """Return the organizations with which runners for these repositories may be registered."""
        shared = (scope for scope in scopes if self._ours.may_share(scope.repository))
        return [Scope(scope.installation_id, place_of(scope.repository, Level.ORGANIZATION)) for scope in shared]

    def _all_of(self, app: int) -> Sequence[Scope]:
        """Return where an App is installed, as it was asked once; nothing as long as there is no answer."""
        if app not in self._everywhere:
            try:
                self._everywhere[app] = self._lists.repositories(app)
            except (TryLater, Refused) as error:
                log.info("later", kind="repositories", id=app, why=str(error))
        return self._everywhere.get(app, ())

    def _is_time(self, scope: Scope, now: datetime) -> bool:
        at = self._listed_at.get(scope)
        return at is None or now - at >= slowed(self._interval, self._lists.left(scope.installation_id))

    def _list(
        self, scopes: Collection[Scope], now: datetime
    ) -> tuple[dict[Scope, tuple[RunnerListed, ...]], set[Scope]]:
        """Ask GitHub, for as long as a look may last; return its lists, and where there is no answer."""
        listed: dict[Scope, tuple[RunnerListed, ...]] = {}
        unheard = set(scopes)
        for scope in scopes:
            if self._clock.now() - now >= LOOK_LIMIT:
                break
            try:
                require_served(self._store, scope.installation_id, scope.repository)
                listed[scope] = self._registrations(scope, now)
            except (TryLater, Refused) as error:
                log.info("later", kind="registrations", id=scope.repository, why=str(error))
                continue
            self._listed_at[scope] = now
            unheard.remove(scope)
        return listed, unheard

    def _registrations(self, scope: Scope, now: datetime) -> tuple[RunnerListed, ...]:
        """Return what GitHub lists there; raises `NotThere` as long as a 404 may be a slip of GitHub's."""
        try:
            found = tuple(self._lists.registrations(scope))
        except NotThere:
            since, times = self._unknown.get(scope, (now, 0))
            self._unknown[scope] = since, times + 1
            if now - since < UNKNOWN_LIMIT or times < UNKNOWN_TIMES:
                raise
            return ()
        self._unknown.pop(scope, None)
        return found
