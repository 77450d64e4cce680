"""The store: the truth that all processes share. Facts and words come in, rows are leased, the timeline grows.

`open_store(url, clock)` gives one to a process; it is safe for threads, and for
a fork as long as it was not used before.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from itertools import count

from sqlalchemy import func, insert, select, update

from workers.domain.events import Delivery, Event, JobFact
from workers.domain.hold import Hold
from workers.domain.host import Host
from workers.domain.host_class import HostClass
from workers.domain.job import Job
from workers.domain.messages import RunnerReport
from workers.domain.migration import LineSeen, Migration, Role
from workers.domain.names import HostId, JobId, MigrationId, RunnerId
from workers.domain.overlay import Station
from workers.domain.runner import Runner, RunnerState
from workers.ports import Clock
from workers.store import decisions, schema, stations
from workers.store.connection import Database, insert_missing, insert_once, upsert
from workers.store.places import insert_events
from workers.store.rows import EVENTS, FACTS, HOLDS, HOSTS, JOBS, MIGRATIONS, REPORTS, RUNNERS
from workers.store.schema import deliveries, events, facts, holds, hosts, reports, runners, tokens
from workers.store.shelves import SqlShelf
from workers.store.upgrade import upgrade

_IS_HERE = runners.c.state != RunnerState.GONE.value


class SqlStore:
    """The store on SQLite or PostgreSQL; every method is one transaction and raises `Unreachable` if there is none."""

    def __init__(self, database: Database, clock: Clock, lease_wait: timedelta = timedelta()) -> None:
        """Make a store whose leases wait for so long when somebody else has the row, and then give up."""
        self._database, self._clock = database, clock
        self.jobs = SqlShelf[JobId, Job](database, JOBS, clock, lease_wait)
        self.runners = SqlShelf[RunnerId, Runner](database, RUNNERS, clock, lease_wait)
        self.hosts = SqlShelf[HostId, Host](database, HOSTS, clock, lease_wait)
        self.migrations = SqlShelf[MigrationId, Migration](database, MIGRATIONS, clock, lease_wait)

    def close(self) -> None:
        """Let every connection go."""
        self._database.close()

    # ------------------------------------------------------------ migrations

    def decide(self, before: Migration, after: Migration, *events: Event) -> Migration:
        """Put in what turned `before` into `after` if the phase still allows it; return the row as it then stands."""
        with self._database.writing() as connection:
            return decisions.decide(connection, before, after, events)

    def note_seen(self, migration_id: MigrationId, role: Role, now: datetime) -> Migration | None:
        """Note that this side has reached the row, and return it."""
        with self._database.writing() as connection:
            decisions.note_seen(connection, migration_id, role, now)
            return decisions.locked(connection, migration_id)

    # ------------------------------------------------------------ what GitHub said

    def write_deliveries(self, rows: Sequence[Delivery]) -> None:
        """Write a batch down, all or nothing; a delivery that is known already changes nothing."""
        batch: dict[str, Delivery] = {}
        for row in rows:
            batch.setdefault(row.guid, row)
        # Two batches with the same deliveries wait for each other in one order, or PostgreSQL would have to end one.
        kept = [{column.name: getattr(batch[guid], column.name) for column in deliveries.c} for guid in sorted(batch)]
        said = [FACTS.columns(row.fact) for row in batch.values() if row.fact]
        with self._database.writing() as connection:
            for table, columns, key in ((deliveries, kept, "guid"), (facts, said, "delivery")):
                if columns:
                    insert_missing(connection, table, columns, key)

    def facts_of(self, job_id: JobId) -> Sequence[JobFact]:
        """Return every fact about one job, in the order in which they came."""
        query = select(facts).where(facts.c.job_id == job_id).order_by(facts.c.number)
        with self._database.reading() as connection:
            return [FACTS.row(found) for found in connection.execute(query).mappings()]

    def jobs_with_unseen_facts(self) -> Sequence[JobId]:
        """Return the jobs that have facts which `mark_seen` has not named, the longest waiting first."""
        query = (
            select(facts.c.job_id).where(~facts.c.is_in_row).group_by(facts.c.job_id).order_by(func.min(facts.c.number))
        )
        with self._database.reading() as connection:
            return [JobId(number) for number in connection.scalars(query)]

    def mark_seen(self, facts: Iterable[JobFact]) -> None:
        """Say that these facts are in the job's row now."""
        table, named = schema.facts, [fact.delivery for fact in facts]
        with self._database.writing() as connection:
            connection.execute(update(table).where(table.c.delivery.in_(named)).values(is_in_row=True))

    # ------------------------------------------------------------ runners

    def runners_on(self, host_id: HostId) -> Sequence[Runner]:
        """Return the runners whose host this is and that are not GONE."""
        return self.runners.where(runners.c.host_id == host_id, _IS_HERE)

    def runner_named(self, name: str) -> Runner | None:
        """Return the runner that GitHub knows by this name."""
        return self.runners.get(RunnerId(name))

    def free_number(self) -> int:
        """Return the smallest runner number that no runner has which is not GONE."""
        with self._database.reading() as connection:
            taken = set(connection.scalars(select(runners.c.number).where(_IS_HERE)))
        return next(number for number in count() if number not in taken)

    # ------------------------------------------------------------ what hosts say of themselves

    def note_heartbeat(
        self, host_id: HostId, at: datetime, host_class: HostClass, reports: Sequence[RunnerReport]
    ) -> Host | None:
        """Note that a host was heard and what it said of its runners; return its row, None if it is not known."""
        said = [REPORTS.columns(report) | {"host_id": host_id} for report in reports]
        heard = update(hosts).where(hosts.c.id == host_id).returning(hosts)
        with self._database.writing() as connection:
            found = (
                connection.execute(heard.values(heartbeat_at=at, host_class=asdict(host_class)))
                .mappings()
                .one_or_none()
            )
            if found and said:
                upsert(connection, schema.reports, said)
        return HOSTS.row(found) if found else None

    def report_of(self, runner_id: RunnerId) -> RunnerReport | None:
        """Return what the host of this runner last said of it, None if nothing yet."""
        is_owner = (runners.c.id == reports.c.runner_id) & (runners.c.host_id == reports.c.host_id)
        query = select(reports).join(runners, is_owner).where(runners.c.id == runner_id)
        with self._database.reading() as connection:
            found = connection.execute(query).mappings().one_or_none()
        return REPORTS.row(found) if found else None

    def lines_seen(self) -> Sequence[LineSeen]:
        """Return how fast the lines were in the last few migrations that have finished, the latest first."""
        with self._database.reading() as connection:
            return decisions.lines_seen(connection)

    # ------------------------------------------------------------ holds

    def hold_of(self, runner_id: RunnerId) -> Hold | None:
        """Return what came of the last wish of this runner's job not to be moved, None if it had none."""
        with self._database.reading() as connection:
            found = connection.execute(select(holds).where(holds.c.runner_id == runner_id)).mappings().one_or_none()
        return HOLDS.row(found) if found else None

    def change_hold(self, before: Hold | None, after: Hold, *events: Event) -> bool:
        """Put `after` in the place of `before`; False, and nothing is written, if that is not there any more."""
        columns = HOLDS.columns(after)
        with self._database.writing() as connection:
            if before is None:
                is_changed = insert_once(connection, holds, columns, "runner_id")
            else:
                known = (holds.c.runner_id == before.runner_id) & (holds.c.number == before.number)
                is_changed = connection.execute(update(holds).where(known).values(**columns)).rowcount == 1
            if is_changed:
                insert_events(connection, events)
        return is_changed

    def held(self, now: datetime) -> Mapping[RunnerId, datetime]:
        """Return the runners that are not to be moved now, and until when."""
        query = select(holds.c.runner_id, holds.c.ends_at).where(holds.c.ends_at > now)
        with self._database.reading() as connection:
            return {RunnerId(runner_id): ends_at for runner_id, ends_at in connection.execute(query)}

    # ------------------------------------------------------------ the overlay

    def seat(self, host_id: HostId, key: str, endpoint: str | None) -> Station:
        """Give a host its place on the overlay. Raises `Refused` if the key is another's."""
        with self._database.writing() as connection:
            return stations.seat(connection, host_id, key, endpoint)

    def stations(self) -> Mapping[HostId, Station]:
        """Return every host that has a place and whose machine has not ended."""
        with self._database.reading() as connection:
            return stations.living(connection)

    def note_hub(self, key: str, endpoint: str) -> Station:
        """Write down who the overlay's hub is."""
        with self._database.writing() as connection:
            return stations.note_hub(connection, key, endpoint)

    def hub(self) -> Station | None:
        """Return the overlay's hub, None as long as it was not heard of."""
        with self._database.reading() as connection:
            return stations.hub(connection)

    # ------------------------------------------------------------ tokens

    def issue_token(self, host_id: HostId, expires_at: datetime) -> str:
        """Make the one-time token with which a host registers; only its hash is kept."""
        token = secrets.token_urlsafe(32)
        with self._database.writing() as connection:
            connection.execute(insert(tokens).values(sha256=_sha256(token), host_id=host_id, expires_at=expires_at))
        return token

    def burn_token(self, token: str, address: str) -> HostId | None:
        """Return the host that this token was made for, once; None if it was used, is too old or never was."""
        now = self._clock.now()
        is_good = (tokens.c.sha256 == _sha256(token)) & tokens.c.burned_at.is_(None) & (tokens.c.expires_at > now)
        burning = update(tokens).where(is_good).values(burned_at=now, burned_by=address).returning(tokens.c.host_id)
        with self._database.writing() as connection:
            host_id = connection.scalars(burning).one_or_none()
        return HostId(host_id) if host_id else None

    # ------------------------------------------------------------ the timeline

    def record(self, *events: Event) -> None:
        """Append to the timeline."""
        with self._database.writing() as connection:
            insert_events(connection, events)

    def timeline(self, after: int = 0) -> Sequence[tuple[int, Event]]:
        """Return the entries behind the entry with this number, each with its own number, oldest first."""
        query = select(events).where(events.c.number > after).order_by(events.c.number)
        with self._database.reading() as connection:
            return [(found["number"], EVENTS.row(found)) for found in connection.execute(query).mappings()]


def open_store(url: str, clock: Clock, lease_wait: timedelta = timedelta()) -> SqlStore:
    """Open the store at this URL and make its tables if they are not there yet; any number of processes may at once."""
    upgrade(Database(url, pooled=False))
    return SqlStore(Database(url), clock, lease_wait)


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
