"""The store: the truth that all processes share. Facts and words come in, rows are leased, the timeline grows.

`open_store(url, clock)` gives one to a process; it is safe for threads, and for
a fork as long as it was not used before.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from itertools import count

from sqlalchemy import bindparam, func, insert, select, text, update

from workers.domain.breaker import Breaker
from workers.domain.events import Delivery, Event, JobFact
from workers.domain.hold import Hold
from workers.domain.host import Host
from workers.domain.host_class import HostClass
from workers.domain.installation import Installation
from workers.domain.job import Job
from workers.domain.listed import Scope
from workers.domain.messages import RunnerReport
from workers.domain.migration import LineSeen, Migration, Role
from workers.domain.names import HostId, JobId, MigrationId, RunnerId
from workers.domain.overlay import Station
from workers.domain.registration import Token
from workers.domain.remark import Remark
from workers.domain.runner import Runner, RunnerEnd, RunnerState
from workers.domain.user_data import host_token
from workers.ports import Clock
from workers.store import breakers, decisions, installations, remarks, schema, sightings, stations
from workers.store.attic import SqlAttic
from workers.store.catalogues import SqlCatalogues
from workers.store.connection import Database, insert_missing, insert_once, upsert
from workers.store.places import insert_events
from workers.store.rows import EVENTS, FACTS, HOLDS, HOSTS, JOBS, MIGRATIONS, REPORTS, RUNNERS, TOKENS
from workers.store.schema import IS_HERE, deliveries, events, facts, holds, hosts, reports, runners, tokens
from workers.store.shelves import SqlShelf
from workers.store.upgrade import upgrade

_KEPT = tuple(column.name for column in deliveries.c)
_NUMBERS = select(runners.c.number).where(IS_HERE)
_FACTS_OF = select(facts).where(facts.c.job_id == bindparam("job")).order_by(facts.c.number)
# In the index's own words, or SQLite reads every fact that ever was.
_IS_UNSEEN = text("NOT is_in_row")
_UNSEEN = select(facts.c.job_id).where(_IS_UNSEEN).group_by(facts.c.job_id).order_by(func.min(facts.c.number))
_HAS_UNSEEN = select(facts.c.job_id).where(~facts.c.is_in_row, facts.c.job_id == bindparam("job")).limit(1)
# What is marked already is not written again: most looks at a job bring nothing new.
_MARKING = (
    update(facts)
    .where(facts.c.delivery.in_(bindparam("named", expanding=True)), ~facts.c.is_in_row)
    .values(is_in_row=True)
)
_HEARD = (
    update(hosts)
    .where(hosts.c.id == bindparam("host"))
    .values(heartbeat_at=bindparam("at"), host_class=bindparam("class"))
    .returning(hosts)
)
_EVENTS_OF = select(events).where(events.c.host_id == bindparam("host")).order_by(events.c.number)
_IS_OWNER = (runners.c.id == reports.c.runner_id) & (runners.c.host_id == reports.c.host_id)
_REPORT_OF = select(reports).join(runners, _IS_OWNER).where(runners.c.id == bindparam("runner"))
_LAST_LOAD_OF = (
    select(reports)
    .where(reports.c.runner_id == bindparam("runner"), reports.c.load.is_not(None))
    .order_by(reports.c.seen_at.desc())
    .limit(1)
)


class SqlStore:
    """The store on SQLite or PostgreSQL; every method is one transaction and raises `Unreachable` if there is none."""

    def __init__(self, database: Database, clock: Clock, lease_wait: timedelta = timedelta()) -> None:
        """Make a store whose leases wait for so long when somebody else has the row, and then give up."""
        self._database, self._clock = database, clock
        self.jobs = SqlShelf[JobId, Job](database, JOBS, clock, lease_wait)
        self.runners = SqlShelf[RunnerId, Runner](database, RUNNERS, clock, lease_wait)
        self.hosts = SqlShelf[HostId, Host](database, HOSTS, clock, lease_wait)
        self.migrations = SqlShelf[MigrationId, Migration](database, MIGRATIONS, clock, lease_wait)
        self.catalogues = SqlCatalogues(database)
        self.attic = SqlAttic(database)

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
        kept = [{name: getattr(batch[guid], name) for name in _KEPT} for guid in sorted(batch)]
        said = [FACTS.columns(row.fact) for row in batch.values() if row.fact]
        told = {row.guid: row.installation for row in batch.values() if row.installation}
        with self._database.writing() as connection:
            if told:  # heard once: what is sent again was said before whatever came since
                fresh = [row["guid"] for row in kept if insert_once(connection, deliveries, row, "guid")]
                installations.hear(connection, [told[guid] for guid in fresh if guid in told])
            elif kept:
                insert_missing(connection, deliveries, kept, "guid")
            if said:
                insert_missing(connection, facts, said, "delivery")

    def installation(self, installation_id: int) -> Installation | None:
        """Return what GitHub has said of one installation, None if nothing."""
        with self._database.reading() as connection:
            return installations.read(connection, installation_id)

    def known_deliveries(self, guids: Collection[str]) -> Collection[str]:
        """Return which of these GUIDs have been written down."""
        with self._database.reading() as connection:
            return sightings.known_deliveries(connection, guids)

    def active_repositories(self, since: datetime) -> Sequence[Scope]:
        """Return where jobs were last heard of since then, the latest first."""
        with self._database.reading() as connection:
            return sightings.active_repositories(connection, since)

    def facts_of(self, job_id: JobId) -> Sequence[JobFact]:
        """Return every fact about one job, in the order in which they came."""
        with self._database.reading() as connection:
            return [FACTS.row(found) for found in connection.execute(_FACTS_OF, {"job": job_id}).mappings()]

    def jobs_with_unseen_facts(self) -> Sequence[JobId]:
        """Return the jobs that have facts which `mark_seen` has not named, the longest waiting first."""
        with self._database.reading() as connection:
            return [JobId(number) for number in connection.scalars(_UNSEEN)]

    def has_unseen_facts(self, job_id: JobId) -> bool:
        """Say whether this job is one of them."""
        with self._database.reading() as connection:
            return connection.execute(_HAS_UNSEEN, {"job": job_id}).first() is not None

    def mark_seen(self, facts: Iterable[JobFact]) -> None:
        """Say that these facts are in the job's row now."""
        named = [fact.delivery for fact in facts]
        if named:  # forgotten in a power cut it is said again by whoever looks at the job next
            with self._database.noting() as connection:
                connection.execute(_MARKING, {"named": named})

    def hosts_paid(self, since: datetime) -> Sequence[Host]:
        """Return the hosts whose price is known and that had not ended by then, oldest first."""
        had_not_ended = hosts.c.ended_at.is_(None) | (hosts.c.ended_at > since)
        return self.hosts.where(hosts.c.price.is_not(None), had_not_ended)

    def hosts_taken_back(self, since: datetime) -> Sequence[Host]:
        """Return the hosts whose notice gave them a deadline after that, ended or not, oldest first."""
        return self.hosts.where(hosts.c.deadline_at > since)

    def jobs_of_run(self, repository: str, run_id: int) -> Sequence[Job]:
        """Return every job of a run that we know, of all its attempts, oldest first."""
        return self.jobs.where(schema.jobs.c.run_id == run_id, schema.jobs.c.repository == repository)

    # ------------------------------------------------------------ runners

    def runners_on(self, host_id: HostId) -> Sequence[Runner]:
        """Return the runners whose host this is and that are not GONE."""
        return self.runners.where(runners.c.host_id == host_id, IS_HERE)

    def untold(self, since: datetime) -> Sequence[Runner]:
        """Return the runners, asked for since then and GONE, that have run what nobody told us of."""
        is_gone, ended = runners.c.state == RunnerState.GONE.value, runners.c.end == RunnerEnd.UNTOLD.value
        return self.runners.where(is_gone, runners.c.requested_at >= since, ended)

    def runner_named(self, name: str) -> Runner | None:
        """Return the runner that GitHub knows by this name."""
        return self.runners.get(RunnerId(name))

    def free_number(self) -> int:
        """Return the smallest runner number that no runner has which is not GONE."""
        with self._database.reading() as connection:
            taken = set(connection.scalars(_NUMBERS))
        return next(number for number in count() if number not in taken)

    # ------------------------------------------------------------ what hosts say of themselves

    def note_heartbeat(
        self, host_id: HostId, at: datetime, host_class: HostClass, reports: Sequence[RunnerReport]
    ) -> Host | None:
        """Note that a host was heard and what it said of its runners; return its row, None if it is not known."""
        said = [REPORTS.columns(report) | {"host_id": host_id, "seen_at": at} for report in reports]
        heard = {"host": host_id, "at": at, "class": asdict(host_class)}
        with self._database.noting() as connection:
            found = connection.execute(_HEARD, heard).mappings().one_or_none()
            if found and said:
                upsert(connection, schema.reports, said)
        return HOSTS.row(found) if found else None

    def report_of(self, runner_id: RunnerId) -> RunnerReport | None:
        """Return what its host last said of a runner; the load is its former host's until this one has measured it."""
        with self._database.reading() as connection:
            found = connection.execute(_REPORT_OF, {"runner": runner_id}).mappings().one_or_none()
            report = REPORTS.row(found) if found else None
            if report is None or report.load is not None:
                return report
            before = connection.execute(_LAST_LOAD_OF, {"runner": runner_id}).mappings().one_or_none()
        return replace(report, load=REPORTS.row(before).load) if before else report

    def reported(self, since: datetime) -> Mapping[HostId, Sequence[RunnerReport]]:
        """Return what each host that was heard since then has said of its microVMs in its last heartbeat."""
        with self._database.reading() as connection:
            return sightings.reported(connection, since)

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

    # ------------------------------------------------------------ what was in vain

    def breaker(self, kind: str) -> Breaker | None:
        """Return what has become of the last runners of one kind, None if none was ever in vain."""
        with self._database.reading() as connection:
            return breakers.get(connection, kind)

    def tripped(self) -> Mapping[str, Breaker]:
        """Return the breakers that have tripped and have not closed, by their kind."""
        with self._database.reading() as connection:
            return breakers.tripped(connection)

    def change_breaker(self, before: Breaker | None, after: Breaker, *events: Event) -> bool:
        """Put `after` in the place of `before`; False, and nothing is written, if that is not there any more."""
        with self._database.writing() as connection:
            return breakers.change(connection, before, after, events)

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

    # ------------------------------------------------------------ remarks

    def owe(self, remark: Remark) -> None:
        """Keep a remark until it was made; one that is there with the same words stays as it is."""
        with self._database.writing() as connection:
            remarks.owe(connection, remark, self._clock.now())

    def owed(self) -> Sequence[str]:
        """Return the keys of the remarks that are to be made now, the longest due first."""
        with self._database.reading() as connection:
            return remarks.owed(connection, self._clock.now())

    def take_remark(self, key: str, limit: timedelta) -> Remark | None:
        """Give a remark that is due to one worker for so long; None if it is not due."""
        now = self._clock.now()
        with self._database.writing() as connection:
            return remarks.take(connection, key, now, now + limit)

    def settle_remark(self, remark: Remark) -> None:
        """Note that nothing is left to be done about a remark, unless it has other words by now."""
        with self._database.writing() as connection:
            remarks.settle(connection, remark)

    # ------------------------------------------------------------ tokens

    def issue_token(self, host_id: HostId, expires_at: datetime) -> str:
        """Make the one-time token with which a host registers; only its hash is kept."""
        token = host_token(host_id, secrets.token_urlsafe(32))
        with self._database.writing() as connection:
            connection.execute(insert(tokens).values(sha256=_sha256(token), host_id=host_id, expires_at=expires_at))
        return token

    def token(self, token: str) -> Token | None:
        """Return what is kept of a token, None if it never was."""
        query = select(tokens).where(tokens.c.sha256 == _sha256(token))
        with self._database.reading() as connection:
            found = connection.execute(query).mappings().one_or_none()
        return None if found is None else TOKENS.row(found)

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

    def timeline_of(self, host_id: HostId) -> Sequence[Event]:
        """Return the entries that name this host, oldest first."""
        with self._database.reading() as connection:
            return [EVENTS.row(found) for found in connection.execute(_EVENTS_OF, {"host": host_id}).mappings()]


def open_store(url: str, clock: Clock, lease_wait: timedelta = timedelta()) -> SqlStore:
    """Open the store at this URL and make its tables if they are not there yet; any number of processes may at once."""
    upgrade(Database(url, pooled=False))
    return SqlStore(Database(url), clock, lease_wait)


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
