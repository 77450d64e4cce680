"""The store in memory, with the same leases, guards and room as the real one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from datetime import datetime, timedelta
from itertools import count
from typing import Any, Generic, TypeVar, cast

from tests.fakes.catalogues import MemoryCatalogues
from tests.fakes.counters import MemoryCounters
from tests.fakes.remarks import MemoryRemarks
from tests.fakes.sightings import Sightings
from tests.fakes.trouble import WorkerDied
from workers.domain.errors import Bug, LeaseLost, NoRoom, Refused
from workers.domain.events import Event, Happening
from workers.domain.host import HOST, Host, HostState, fits, room
from workers.domain.host_class import HostClass
from workers.domain.job import JOB, Job
from workers.domain.merge import is_in_time, is_news, merged, untold_end
from workers.domain.messages import RunnerReport
from workers.domain.migration import (
    LINE_FIGURE,
    MIGRATION,
    LineSeen,
    Migration,
    MigrationPhase,
    Role,
    owner_after,
    seen,
)
from workers.domain.names import HostId, JobId, MigrationId, RunnerId
from workers.domain.overlay import HUB_ADDRESS, Station, free_address
from workers.domain.registration import Token
from workers.domain.runner import RUNNER, Quota, Runner, RunnerEnd, RunnerState, Shape
from workers.domain.user_data import host_token
from workers.ports import Clock

LEASE_LIMIT = timedelta(seconds=10)
UNDECIDED = MIGRATION.open - {MigrationPhase.COMMITTED}
# A runner's owner may change by a decision, without a lease: who has read another owner must not write.
FENCE = ("host_id", "epoch", "migration_id")
FOREIGN = ("heartbeat_at", "host_class")

Row = TypeVar("Row", Job, Runner, Host, Migration)
Key = TypeVar("Key", JobId, RunnerId, HostId, MigrationId)
AnyRow = Job | Runner | Host | Migration


class MemoryLease(Generic[Key, Row]):
    def __init__(self, shelf: MemoryShelf[Key, Row], key: Key, number: int) -> None:
        self._shelf: MemoryShelf[Key, Row] = shelf
        self._key: Key = key
        self._row: Row = shelf.rows[key]
        self.number = number

    @property
    def row(self) -> Row:
        return self._row

    def write(self, row: Row, *also: AnyRow | Event | Quota) -> None:
        self._shelf.write_leased(self._key, self.number, self._row, row, also)
        self._row = row


class MemoryShelf(Generic[Key, Row]):
    def __init__(self, store: MemoryStore, is_open: Callable[[Row], bool], since: Callable[[Row], datetime]) -> None:
        self._store = store
        self._is_open: Callable[[Row], bool] = is_open
        self._since: Callable[[Row], datetime] = since
        self.rows: dict[Key, Row] = {}
        self._leases: dict[Key, tuple[int, datetime]] = {}
        self._numbers = count(1)

    def get(self, key: Key) -> Row | None:
        return self.rows.get(key)

    def open(self) -> Sequence[Row]:
        with self._store.lock:
            return sorted((row for row in self.rows.values() if self._is_open(row)), key=self._order)

    def _order(self, row: Row) -> tuple[datetime, str]:
        return self._since(row), str(row.id)

    def add(self, row: Row, *events: Event) -> bool:
        with self._store.lock:
            is_first = self._store.insert(row)
            if is_first:
                self._store.record(*events)
            return is_first

    def is_leased(self, key: Key) -> bool:
        return key in self._leases and self._leases[key][1] >= self._store.clock.now()

    @contextmanager
    def lease(self, key: Key) -> Iterator[MemoryLease[Key, Row]]:
        with self._store.lock:
            if key not in self.rows or self.is_leased(key):
                raise LeaseLost(f"{key} is not there or another works on it")
            lease = MemoryLease(self, key, next(self._numbers))
            self._leases[key] = (lease.number, self._store.clock.now() + LEASE_LIMIT)
        try:
            yield lease
        except WorkerDied:
            raise  # the dead release nothing
        except BaseException:
            self._release(key, lease.number)
            raise
        self._release(key, lease.number)

    def _release(self, key: Key, number: int) -> None:
        if self._leases.get(key, (0,))[0] == number:
            del self._leases[key]

    def write_leased(
        self, key: Key, number: int, before: Row, after: Row, also: Sequence[AnyRow | Event | Quota]
    ) -> None:
        if before.id != after.id:
            raise Bug(f"a lease on {before.id} cannot write {after.id}")
        with self._store.lock, self._store.undone_if_it_fails():
            if self._leases.get(key, (0,))[0] != number:
                raise LeaseLost(f"{key} was taken by another")
            self._write(self.rows[key], before, after)
            self._store.insert_all(also)

    def _write(self, current: Row, before: Row, after: Row) -> None:
        if isinstance(current, Migration) and isinstance(before, Migration) and isinstance(after, Migration):
            if not is_in_time(current, before, after):
                raise LeaseLost(f"{current.id} was decided meanwhile")
            self._store.put(merged(current, before, after))
            return
        if isinstance(current, Runner) and any(getattr(current, name) != getattr(before, name) for name in FENCE):
            raise LeaseLost(f"{current.id} has another owner now")
        foreign = FOREIGN if isinstance(current, Host) else ()
        changed = {name: value for name, value in changes(before, after).items() if name not in foreign}
        self._store.put_row(replace(current, **changed))


class MemoryStore(MemoryRemarks, Sightings, MemoryCounters):
    def __init__(self, clock: Clock) -> None:
        MemoryRemarks.__init__(self)
        Sightings.__init__(self)
        MemoryCounters.__init__(self)
        self.clock = clock
        self.inserted: Callable[[AnyRow], object] = lambda _: None
        self.jobs = MemoryShelf[JobId, Job](self, lambda row: row.state in JOB.open, lambda row: row.queued_at)
        self.runners = MemoryShelf[RunnerId, Runner](
            self, lambda row: row.state in RUNNER.open, lambda row: row.requested_at
        )
        self.hosts = MemoryShelf[HostId, Host](self, lambda row: row.state in HOST.open, lambda row: row.requested_at)
        self.migrations = MemoryShelf[MigrationId, Migration](
            self, lambda row: row.phase in MIGRATION.open, lambda row: row.planned_at
        )
        self.catalogues = MemoryCatalogues()
        self._reports: dict[tuple[HostId, RunnerId], RunnerReport] = {}
        self._stations: dict[HostId, Station] = {}
        self._hub: Station | None = None
        self._tokens: dict[str, Token] = {}
        self._events: list[Event] = []
        self._token_numbers = count(1)
        self.burned_by: list[str] = []

    # ------------------------------------------------------------ new rows

    @contextmanager
    def undone_if_it_fails(self) -> Iterator[None]:
        shelves: list[dict[Any, Any]] = [self.jobs.rows, self.runners.rows, self.hosts.rows, self.migrations.rows]
        before, events = [dict(rows) for rows in shelves], len(self._events)
        try:
            yield
        except BaseException:
            for rows, former in zip(shelves, before, strict=True):
                rows.clear()
                rows.update(former)
            del self._events[events:]
            raise

    def insert(self, row: AnyRow) -> bool:
        rows = self._rows_like(row)
        if row.id in rows:
            return False
        rows[row.id] = row
        if isinstance(row, Runner | Migration):
            try:
                self._check_place(row, row.host_id if isinstance(row, Runner) else row.target_id)
            except NoRoom:
                del rows[row.id]
                raise
        self.inserted(row)
        return True

    def put_row(self, row: AnyRow) -> None:
        self._rows_like(row)[row.id] = row

    def _rows_like(self, row: AnyRow) -> dict[Any, AnyRow]:
        shelves: dict[type, MemoryShelf[Any, Any]] = {
            Job: self.jobs,
            Runner: self.runners,
            Host: self.hosts,
            Migration: self.migrations,
        }
        return shelves[type(row)].rows

    def insert_all(self, rows: Iterable[AnyRow | Event | Quota]) -> None:
        for row in rows:
            if isinstance(row, Event):
                self._events.append(row)
            elif isinstance(row, Quota):
                self._check_quota(row)
            else:
                self.insert(row)

    def _check_quota(self, quota: Quota) -> None:
        if sum(quota.counts(one.pool, one.repository) for one in self.runners.open()) >= quota.runners_max:
            raise NoRoom(f"{quota.repository} has its {quota.runners_max} runners in pool {quota.pool}")

    def _check_place(self, row: Runner | Migration, host_id: HostId | None) -> None:
        if host_id is not None:
            self._check_room(row, host_id)
        self._check_rivals(row)

    def _check_room(self, row: Runner | Migration, host_id: HostId) -> None:
        host = self.hosts.rows.get(host_id)
        gone = {HostState.LOST, HostState.TERMINATING, HostState.TERMINATED}
        if host is None or host.state in gone or not fits(Shape(0, 0, 0), room(host, self._shapes(host_id))):
            raise NoRoom(f"{host_id} has no room for {row.id}")

    def _check_rivals(self, row: Runner | Migration) -> None:
        if isinstance(row, Runner):
            rivals = sum(one.number == row.number for one in self.runners.open())
        else:
            undecided = (one for one in self.migrations.open() if one.phase in UNDECIDED)
            rivals = sum(one.runner_id == row.runner_id for one in undecided)
        if rivals > 1:
            raise NoRoom(f"{row.id}: its number or its runner was taken meanwhile")

    def _shapes(self, host_id: HostId) -> list[Shape]:
        coming = [
            row.runner_id for row in self.migrations.open() if row.target_id == host_id and row.phase in UNDECIDED
        ]
        here = [row.shape for row in self.runners_on(host_id)]
        return here + [self.runners.rows[key].shape for key in coming if key in self.runners.rows]

    # ------------------------------------------------------------ migrations

    def decide(self, before: Migration, after: Migration, *events: Event) -> Migration:
        with self.lock:
            current = self.migrations.rows.get(before.id)
            if current is None:
                raise Bug(f"{before.id} was never planned, so it cannot be decided")
            stands = merged(current, before, after)
            self.put(stands)
            if is_news(current, stands):
                self.record(*events)
                if at := untold_end(current, after, stands):
                    row = stands
                    end = Event(Happening.MIGRATION_FINISHED, at, runner_id=row.runner_id, migration_id=row.id)
                    self.record(end)
            return stands

    def put(self, row: Migration) -> None:
        """Write a migration's row, and give its runner to whom the decision gives it."""
        former, self.migrations.rows[row.id] = self.migrations.rows[row.id], row
        runner = self.runners.rows.get(row.runner_id)
        if runner is None or row.phase is former.phase:
            return
        if row.phase is MigrationPhase.COMMITTED and runner.epoch < row.epoch:
            runner = replace(runner, **cast("dict[str, Any]", owner_after(row)))
        elif row.phase is MigrationPhase.ABORTED and runner.migration_id == row.id:
            runner = replace(runner, migration_id=None)
        self.runners.rows[runner.id] = runner

    def note_seen(self, migration_id: MigrationId, role: Role, now: datetime) -> Migration | None:
        with self.lock:
            row = self.migrations.rows.get(migration_id)
            if row is not None:
                row = self.migrations.rows[migration_id] = merged(row, row, seen(row, role, now))
            return row

    # ------------------------------------------------------------ runners and hosts

    def runners_on(self, host_id: HostId) -> Sequence[Runner]:
        return [row for row in self.runners.open() if row.host_id == host_id]

    def untold(self, since: datetime) -> Sequence[Runner]:
        gone = (row for row in self.runners.rows.values() if row.state is RunnerState.GONE)
        return [row for row in gone if row.end is RunnerEnd.UNTOLD and row.requested_at >= since]

    def runner_named(self, name: str) -> Runner | None:
        return self.runners.rows.get(RunnerId(name))

    def free_number(self) -> int:
        taken = {row.number for row in self.runners.rows.values() if row.state is not RunnerState.GONE}
        return next(number for number in count() if number not in taken)

    def note_heartbeat(
        self, host_id: HostId, at: datetime, host_class: HostClass, reports: Sequence[RunnerReport]
    ) -> Host | None:
        with self.lock:
            host = self.hosts.rows.get(host_id)
            if host is None:
                return None
            host = self.hosts.rows[host_id] = replace(host, heartbeat_at=at, host_class=host_class)
            said = {(host_id, report.runner_id): report for report in reports}
            self._reports = {key: one for key, one in self._reports.items() if key not in said} | said
            self._last_words[host_id] = tuple(reports)
            return host

    def reported(self, since: datetime) -> Mapping[HostId, Sequence[RunnerReport]]:
        usable = (one for one in self.hosts.open() if one.state in {HostState.READY, HostState.DRAINING})
        return self.said_by({one.id for one in usable if one.heartbeat_at is not None and one.heartbeat_at >= since})

    def report_of(self, runner_id: RunnerId) -> RunnerReport | None:
        runner = self.runners.rows.get(runner_id)
        report = self._reports.get((runner.host_id, runner_id)) if runner and runner.host_id else None
        if report is None or report.load is not None:
            return report
        # In the order in which hosts were heard, the last one last.
        loads = [one.load for (_, name), one in self._reports.items() if name == runner_id and one.load is not None]
        return replace(report, load=loads[-1]) if loads else report

    def seat(self, host_id: HostId, key: str, endpoint: str | None) -> Station:
        with self.lock:
            present = self._stations = dict(self.stations())
            hub = [self._hub] if self._hub else []
            others = [*hub, *(one for name, one in present.items() if name != host_id)]
            if any(one.key == key for one in others):
                raise Refused(f"{host_id} shows the overlay key of another machine")
            held = present.get(host_id)
            address = held.address if held else free_address(one.address for one in others)
            present[host_id] = Station(key, address, endpoint)
            return present[host_id]

    def stations(self) -> Mapping[HostId, Station]:
        ended = {name for name, host in self.hosts.rows.items() if host.state is HostState.TERMINATED}
        return {name: one for name, one in sorted(self._stations.items()) if name not in ended}

    def note_hub(self, key: str, endpoint: str) -> Station:
        self._hub = Station(key, HUB_ADDRESS, endpoint)
        return self._hub

    def hub(self) -> Station | None:
        return self._hub

    def issue_token(self, host_id: HostId, expires_at: datetime) -> str:
        token = host_token(host_id, f"token-{next(self._token_numbers)}")
        self._tokens[_sha256(token)] = Token(host_id, expires_at)
        return token

    def token(self, token: str) -> Token | None:
        return self._tokens.get(_sha256(token))

    def burn_token(self, token: str, address: str) -> HostId | None:
        self.burned_by.append(address)
        found, now = self._tokens.get(_sha256(token)), self.clock.now()
        if found is None or found.burned_at is not None or found.expires_at <= now:
            return None
        self._tokens[_sha256(token)] = replace(found, burned_at=now, burned_by=address)
        return found.host_id

    def lines_seen(self) -> Sequence[LineSeen]:
        rows = [row for row in self.migrations.rows.values() if row.phase is MigrationPhase.FINISHED]
        return [
            LineSeen(row.source_id, self._cloud(row.source_id), self._cloud(row.target_id), row.figures[LINE_FIGURE])
            for row in sorted(rows, key=lambda row: (-row.planned_at.timestamp(), row.id))[:20]
            if LINE_FIGURE in row.figures and row.source_id and row.target_id
        ]

    def _cloud(self, host_id: HostId) -> str:
        return self.hosts.rows[host_id].cloud

    # ------------------------------------------------------------ the timeline

    def record(self, *events: Event) -> None:
        self._events.extend(events)

    def timeline(self, after: int = 0) -> Sequence[tuple[int, Event]]:
        return list(enumerate(self._events, start=1))[after:]


def changes(before: AnyRow, after: AnyRow) -> dict[str, Any]:
    pairs = ((field.name, getattr(before, field.name), getattr(after, field.name)) for field in fields(before))
    return {name: now for name, then, now in pairs if now != then}


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
