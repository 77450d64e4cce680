"""Parks: what is in the store is looked at before it counts, taken out where there is room, destroyed in the end."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Final, assert_never

import structlog

from workers.domain.errors import GiveUp, LeaseLost
from workers.domain.events import Event, Happening
from workers.domain.host import Host
from workers.domain.migration import Migration, MigrationPhase, aborted, ended, keyless, stored
from workers.domain.names import HostId, MigrationId, RunnerId, migration_id
from workers.domain.park import MANIFEST, PREFIX, missing, object_name, park_of, read_manifest
from workers.domain.runner import Runner, RunnerState
from workers.planning.parking import ParkSeen, ParkStep, host_for, next_step, planned_resume
from workers.ports import Clock, Hints, ObjectStore, Store
from workers.reconcilers.capacity import Buyer
from workers.reconcilers.patience import patience
from workers.reconcilers.sight import host_of

log = structlog.get_logger()

# GitHub's lock on a job outlives nine minutes of silence; half a one is left for the way out of the store.
PARK_LIMIT: Final = timedelta(seconds=510)


class Parks:
    """Advances one park at a time: a migration to the store, from the moment at which its source has said PAUSED."""

    def __init__(
        self,
        store: Store,
        objects: ObjectStore,
        hints: Hints,
        clock: Clock,
        buyer: Buyer,
        limit: timedelta = PARK_LIMIT,
        token: Callable[[], str] = lambda: secrets.token_hex(5),
    ) -> None:
        """`limit` is how long a job may stand still."""
        self._store, self._objects, self._hints, self._clock = store, objects, hints, clock
        self._buyer, self._limit, self._token = buyer, limit, token
        self._tried: dict[RunnerId, set[HostId]] = {}  # forgotten at a restart, which may cost one more failed attempt

    def advance(self, park_id: MigrationId) -> None:
        """Take this park as far as it goes now; what is no park is left alone. Raises `TryLater`."""
        row = self._store.migrations.get(park_id)
        if row is None or not row.is_park:
            return
        runner = self._store.runners.get(row.runner_id)
        step = next_step(ParkSeen(row, runner))
        match step:
            case ParkStep.WAIT:
                pass
            case ParkStep.LOOK:
                self._look(row)
            case ParkStep.RESUME:
                self._resume(row)
            case ParkStep.END:
                self._end(row)
            case _:
                assert_never(step)

    def end_leaked(self) -> None:
        """Delete every object of the store that belongs to no park which may still need it."""
        with patience("objects", PREFIX):
            needed = {row.id for row in self._store.migrations.open() if row.is_park}
            leaked = [name for name in self._objects.listed(PREFIX) if self._is_leaked(park_of(name), needed)]
            if leaked:
                log.warning("objects_leaked", count=len(leaked), first=leaked[0])
                self._objects.delete(leaked)

    def _is_leaked(self, park_id: MigrationId | None, needed: set[MigrationId]) -> bool:
        """Look once more: it may have been planned after the list was made."""
        if park_id is None or park_id in needed:
            return park_id is None
        row = self._store.migrations.get(park_id)
        return row is None or row.phase in {MigrationPhase.ABORTED, MigrationPhase.FINISHED}

    # ------------------------------------------------------------ is it whole?

    def _look(self, row: Migration) -> None:
        """Commit what is whole, in the store's name; give up what never will be."""
        now = self._clock.now()
        if reason := self._what_is_missing(row):
            after = aborted(row, f"the object store does not hold the guest: {reason}", source_is_gone=False)
            self._decide(row, after, Happening.MIGRATION_ABORTED, reason=after.reason)
            return
        self._decide(row, stored(row, now), Happening.MIGRATION_COMMITTED, target="the object store")
        self._hints.look_at("migration", row.id)

    def _what_is_missing(self, row: Migration) -> str | None:
        content = self._objects.read(object_name(row.id, MANIFEST))
        if content is None:
            return "there is no list of its parts"
        try:
            manifest = read_manifest(content, row.id, row.manifest)
        except GiveUp as error:
            return str(error)
        return missing(manifest, self._sizes(row.id))

    def _sizes(self, park_id: MigrationId) -> Mapping[str, int]:
        prefix = f"{PREFIX}{park_id}/"
        return {name.removeprefix(prefix): size for name, size in self._objects.listed(prefix).items()}

    # ------------------------------------------------------------ out of the store

    def _resume(self, row: Migration) -> None:
        """Let a host that fits take it out; whoever plans first under the runner's lease is the only one."""
        fleet = self._buyer.fleet()
        runner = next((one for one in fleet.runners if one.id == row.runner_id), None)
        if runner is None:
            return
        target = host_for(runner, host_of(self._store, row.source_id), fleet, self._tried.get(runner.id, ()))
        if target is None:
            self._buyer.buy()
            return
        self._plan(row, runner.id, target)

    def _plan(self, park: Migration, runner_id: RunnerId, target: Host) -> None:
        name = migration_id(self._token())
        with self._store.runners.lease(runner_id) as lease:
            runner = lease.row
            if not _is_waiting(runner, park):
                raise LeaseLost(f"{runner_id} does not wait in the store any more; look again")
            row = planned_resume(runner, park, target, name, self._clock.now(), self._limit)
            event = self._event(Happening.MIGRATION_PLANNED, row, source="the object store", target=target.id)
            lease.write(replace(runner, migration_id=name), row, event)
        self._tried = {key: hosts for key, hosts in self._tried.items() if self._is_open(key)}
        self._tried.setdefault(runner_id, set()).add(target.id)
        self._hints.look_at("migration", name)

    def _is_open(self, runner_id: RunnerId) -> bool:
        runner = self._store.runners.get(runner_id)
        return runner is not None and runner.is_parked

    # ------------------------------------------------------------ the end

    def _end(self, row: Migration) -> None:
        """First the key, so that nobody can open what is left; then what is left; then the row."""
        if row.key is not None:
            row = self._store.decide(row, keyless(row))
        self._objects.delete(list(self._objects.listed(f"{PREFIX}{row.id}/")))
        if row.phase is MigrationPhase.COMMITTED:
            self._decide(row, ended(row), Happening.PARK_ENDED)
            self._hints.look_at("runner", row.runner_id)

    def _decide(self, before: Migration, after: Migration, happening: Happening, **detail: str | None) -> None:
        if after is not before:
            self._store.decide(before, after, self._event(happening, before, **detail))

    def _event(self, happening: Happening, row: Migration, **detail: str | None) -> Event:
        now = self._clock.now()
        return Event(happening, now, runner_id=row.runner_id, migration_id=row.id, detail=detail)


def _is_waiting(runner: Runner, park: Migration) -> bool:
    return (runner.epoch, runner.host_id, runner.migration_id) == (park.epoch, None, None) and (
        runner.state is RunnerState.BUSY
    )
