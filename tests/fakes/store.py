"""The store in memory, with the same leases, guards and room as the real one."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from datetime import datetime, timedelta
from itertools import count
from typing import Any, Generic, TypeVar

from tests.fakes.trouble import WorkerDied
from workers.domain.errors import Bug, LeaseLost, NoRoom
from workers.domain.events import Delivery, Event, JobFact
from workers.domain.host import HOST, Host, HostState, fits, room
from workers.domain.host_class import HostClass
from workers.domain.job import JOB, Job
from workers.domain.messages import RunnerReport
from workers.domain.migration import MIGRATION, Migration, MigrationPhase, Role, finished, seen
from workers.domain.names import HostId, JobId, MigrationId, RunnerId
from workers.domain.runner import RUNNER, Runner, RunnerState, Shape
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

    def write(self, row: Row, *also: AnyRow | Event) -> None:
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

    def write_leased(self, key: Key, number: int, before: Row, after: Row, also: Sequence[AnyRow | Event]) -> None:
        if before.id != after.id:
            raise Bug(f"a lease on {before.id} cannot write {after.id}")
        with self._store.lock, self._store.undone_if_it_fails():
            if self._leases.get(key, (0,))[0] != number:
                raise LeaseLost(f"{key} was taken by another")
            self.rows[key] = self._merged(self.rows[key], before, after)
            self._store.insert_all(also)

    def _merged(self, current: Row, before: Row, after: Row) -> Row:
        changed = changes(before, after)
        match current:
            case Runner() if any(getattr(current, name) != getattr(before, name) for name in FENCE):
                raise LeaseLost(f"{current.id} has another owner now")
            case Migration() if isinstance(before, Migration) and current.phase is not before.phase:
                raise LeaseLost(f"{current.id} was decided meanwhile")
            case Host():
                changed = {name: value for name, value in changed.items() if name not in FOREIGN}
            case _:
                pass
        return replace(current, **changed)


class MemoryStore:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.lock = threading.RLock()
        self.jobs = MemoryShelf[JobId, Job](self, lambda row: row.state in JOB.open, lambda row: row.queued_at)
        self.runners = MemoryShelf[RunnerId, Runner](
            self, lambda row: row.state in RUNNER.open, lambda row: row.requested_at
        )
        self.hosts = MemoryShelf[HostId, Host](self, lambda row: row.state in HOST.open, lambda row: row.requested_at)
        self.migrations = MemoryShelf[MigrationId, Migration](
            self, lambda row: row.phase in MIGRATION.open, lambda row: row.planned_at
        )
        self._facts: dict[str, JobFact] = {}
        self._deliveries: dict[str, Delivery] = {}
        self._seen: set[str] = set()
        self._reports: dict[tuple[HostId, RunnerId], RunnerReport] = {}
        self._tokens: dict[str, tuple[HostId, datetime]] = {}
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
        match row:
            case Job():
                return self.jobs.rows.setdefault(row.id, row) is row
            case Host():
                return self.hosts.rows.setdefault(row.id, row) is row
            case Runner():
                return self._place(self.runners.rows, row, row.host_id)
            case Migration():
                return self._place(self.migrations.rows, row, row.target_id)

    def insert_all(self, rows: Iterable[AnyRow | Event]) -> None:
        for row in rows:
            if isinstance(row, Event):
                self._events.append(row)
            else:
                self.insert(row)

    def _place(self, rows: dict[Any, Any], row: Runner | Migration, host_id: HostId) -> bool:
        if row.id in rows:
            return False
        self._refuse_doubles(row)
        rows[row.id] = row
        host = self.hosts.rows.get(host_id)
        gone = {HostState.LOST, HostState.TERMINATING, HostState.TERMINATED}
        if host is None or host.state in gone or not fits(Shape(0, 0, 0), room(host, self._shapes(host_id))):
            del rows[row.id]
            raise NoRoom(f"{host_id} has no room for {row.id}")
        return True

    def _refuse_doubles(self, row: Runner | Migration) -> None:
        if isinstance(row, Runner):
            taken = any(one.number == row.number for one in self.runners.open())
        else:
            open_moves = (one for one in self.migrations.open() if one.phase in UNDECIDED)
            taken = any(one.runner_id == row.runner_id for one in open_moves)
        if taken:
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
            current = self.migrations.rows[before.id]
            if current.phase is not before.phase:
                return current
            row = _decided(current, before, after)
            self.migrations.rows[row.id] = row
            self._give(row, current)
            self.record(*events)
            return row

    def _give(self, row: Migration, former: Migration) -> None:
        runner = self.runners.rows.get(row.runner_id)
        if runner is None or row.phase is former.phase:
            return
        if row.phase is MigrationPhase.COMMITTED and runner.epoch < row.epoch:
            runner = replace(runner, host_id=row.target_id, epoch=row.epoch, migration_id=None)
        elif row.phase is MigrationPhase.ABORTED and runner.migration_id == row.id:
            runner = replace(runner, migration_id=None)
        self.runners.rows[runner.id] = runner

    def note_seen(self, migration_id: MigrationId, role: Role, now: datetime) -> Migration | None:
        with self.lock:
            row = self.migrations.rows.get(migration_id)
            if row is not None:
                row = self.migrations.rows[migration_id] = seen(row, role, now)
            return row

    # ------------------------------------------------------------ facts

    def write_deliveries(self, rows: Sequence[Delivery]) -> None:
        with self.lock:
            for row in rows:
                self._deliveries.setdefault(row.guid, row)
                if row.fact is not None:
                    self._facts.setdefault(row.fact.delivery, row.fact)

    def facts_of(self, job_id: JobId) -> Sequence[JobFact]:
        return [fact for fact in self._facts.values() if fact.job_id == job_id]

    def jobs_with_unseen_facts(self) -> Sequence[JobId]:
        return list(dict.fromkeys(one.job_id for key, one in self._facts.items() if key not in self._seen))

    def mark_seen(self, facts: Iterable[JobFact]) -> None:
        self._seen.update(fact.delivery for fact in facts)

    # ------------------------------------------------------------ runners and hosts

    def runners_on(self, host_id: HostId) -> Sequence[Runner]:
        return [row for row in self.runners.open() if row.host_id == host_id]

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
            self._reports |= {(host_id, report.runner_id): report for report in reports}
            return host

    def report_of(self, runner_id: RunnerId) -> RunnerReport | None:
        runner = self.runners.rows.get(runner_id)
        return self._reports.get((runner.host_id, runner_id)) if runner else None

    def issue_token(self, host_id: HostId, expires_at: datetime) -> str:
        token = f"token-{next(self._token_numbers)}"
        self._tokens[_sha256(token)] = (host_id, expires_at)
        return token

    def burn_token(self, token: str, address: str) -> HostId | None:
        host_id, expires_at = self._tokens.pop(_sha256(token), (None, self.clock.now()))
        self.burned_by.append(address)
        return host_id if expires_at > self.clock.now() else None

    # ------------------------------------------------------------ the timeline

    def record(self, *events: Event) -> None:
        self._events.extend(events)

    def timeline(self, after: int = 0) -> Sequence[tuple[int, Event]]:
        return list(enumerate(self._events, start=1))[after:]


def changes(before: AnyRow, after: AnyRow) -> Mapping[str, Any]:
    pairs = ((field.name, getattr(before, field.name), getattr(after, field.name)) for field in fields(before))
    return {name: now for name, then, now in pairs if now != then}


def _decided(current: Migration, before: Migration, after: Migration) -> Migration:
    """Words that stay in one phase add up; a word said once stays as it was said first."""
    changed = dict(changes(before, after))
    if before.phase is not after.phase:
        MIGRATION.move(before.phase, after.phase)
    for once in ("running_at", "wiped_at"):
        if getattr(current, once) is not None:
            changed.pop(once, None)
    if "figures" in changed:
        changed["figures"] = {**current.figures, **after.figures}
    row = replace(current, **changed)
    return finished(row) if row.phase is MigrationPhase.COMMITTED else row


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
