"""What a host's words do to the store.

    register   LAUNCHING -> PREPARING     one-time token, certificate
    heartbeat  PREPARING -> READY         once the host has proved itself; beside that no lease and no state
    notice     anything alive -> DRAINING the deadline only ever comes nearer
    migration  the row decides            words are facts about the host itself, judged by `domain.migration.decide`

The way of PAUSED and COMMITTED is kept short, because the guest stands still meanwhile: one read, one transaction.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Final

import structlog

from webhook.gate import Gate
from webhook.holds import hear_holds
from webhook.needs import Authority, Clock, Follower, Hints, HostStore, Objects
from webhook.seats import Seats
from workers.domain.errors import BadInput, Refused
from workers.domain.events import Event, Happening
from workers.domain.host import HOST, Host, HostState
from workers.domain.messages import (
    GuestRunnerState,
    Heartbeat,
    HeartbeatAnswer,
    MonitorState,
    Notice,
    NoticeKind,
    RegistrationAnswer,
    RegistrationRequest,
    RenewalRequest,
    RowView,
    RunnerReport,
    Surroundings,
    Word,
)
from workers.domain.migration import Migration, MigrationPhase, Role, Said, decide, may_pause, stood_ms
from workers.domain.names import HostId, MigrationId, PackageDigest, RunnerId
from workers.domain.notice import notice_event, noticed
from workers.domain.park import ObjectMethod, object_name
from workers.domain.published import object_name as package_object_name
from workers.domain.registration import awaits_registration, began_at

log: Final = structlog.get_logger(__name__)

# So a terminated host is refused a second late at most, and the commit's way needs no look at the host's row.
ADMITTED_LIMIT: Final = timedelta(seconds=1)
DEADLINE_MAX_S: Final = 86400.0
FIGURES_MAX: Final = 64
# A sentence, not a log.
TROUBLE_MAX: Final = 500
NAMES_MAX: Final = 64
# Long enough for a slow line to take what was asked for at once, and what failed is asked for anew.
URL_LIMIT: Final = timedelta(minutes=5)
_P = MigrationPhase
_OPEN_TO_PAUSE: Final = frozenset({_P.PLANNED, _P.RECEIVING, _P.COPYING})
_UNDECIDED: Final = _OPEN_TO_PAUSE | {_P.PAUSED}


@dataclass(frozen=True)
class Words:
    """Everything that a host may say, with its identity already proved by its certificate."""

    store: HostStore
    authority: Authority
    hints: Hints
    clock: Clock
    packages: tuple[PackageDigest, ...]
    objects: Objects | None = None
    seats: Seats | None = None
    """Of the overlay, if the deployment has one."""
    follower: Follower | None = None
    """Points the relay, if the deployment has one."""
    surroundings: Surroundings = field(default_factory=Surroundings)
    """What every host is told of the deployment once it has registered."""
    nats: tuple[str, ...] = ()
    """Networks behind whose addresses machines without a public one are seen."""
    _admitted: dict[HostId, datetime] = field(default_factory=dict)
    _troubles: dict[HostId, str | None] = field(default_factory=dict)
    _ended: dict[HostId, frozenset[RunnerId]] = field(default_factory=dict)

    @cached_property
    def _gate(self) -> Gate:
        return Gate(self.store, self.hints, self.clock, self.nats)

    def admit(self, host_id: HostId) -> None:
        """Raise `Refused` for a host that is not known or that is terminated."""
        now = self.clock.now()
        at = self._admitted.get(host_id)
        if at is None or not timedelta() <= now - at <= ADMITTED_LIMIT:
            self._remember(host_id, self.store.hosts.get(host_id), now)

    def register(self, request: RegistrationRequest, source: str | None = None) -> RegistrationAnswer:
        """Turn a one-time token into a host's identity; only the host that the token was made for gets it.

        `source` is the address that the call came from, None if it is not known.
        """
        address = _address(request.address)
        host = self._gate.admitted(request, source)
        if self.seats is not None:
            self.seats.check(request)
        with self.store.hosts.lease(host.id) as lease:
            # Signed first, so that a request that cannot be signed burns no token.
            certificate = self.authority.host_certificate(request.csr, host.id, address)
            if not awaits_registration(lease.row) or self.store.burn_token(request.token, address) != host.id:
                raise self._gate.refused(request, source)
            place = self.seats.give(request) if self.seats is not None else None
            if place is not None:
                address = place.address
                certificate = self.authority.host_certificate(request.csr, host.id, address)
            now = self.clock.now()
            state = HOST.heard(lease.row.state, HostState.PREPARING)
            running = Event(Happening.HOST_RUNNING, began_at(now, host.requested_at, request.up_s), host_id=host.id)
            event = Event(Happening.HOST_REGISTERED, now, host_id=host.id, detail={"address": address})
            lease.write(replace(lease.row, state=state, address=address), running, event)
        self.hints.look_at("host", host.id)
        issuers = self.authority.control_ca, self.authority.hosts_ca
        return RegistrationAnswer(certificate, *issuers, place, self.surroundings)

    def renew(self, host_id: HostId, request: RenewalRequest) -> RegistrationAnswer:
        """Give a host that shows a good certificate its next one, for the same name and address."""
        host = self.store.hosts.get(host_id)
        if host is None or host.address is None:
            raise Refused(f"{host_id} has never registered; a certificate is renewed only where one was given")
        certificate = self.authority.host_certificate(request.csr, host.id, host.address)
        return RegistrationAnswer(certificate, self.authority.control_ca, self.authority.hosts_ca)

    def move_certificate(
        self, host_id: HostId, migration_id: MigrationId, request: RenewalRequest
    ) -> RegistrationAnswer | None:
        """Give one of a migration's two hosts what its monitor proves itself with; None if it is not this host's row.

        Raises `Refused` once there is nothing to be opened any more.
        """
        row, role = self._mine(host_id, migration_id)
        if row is None or role is None:
            return None
        if row.source_id is None or row.target_id is None:
            raise Refused(
                f"{migration_id} goes between a host and the store; no monitor proves itself to another in it"
            )
        if row.phase not in _OPEN_TO_PAUSE:
            raise Refused(f"{migration_id} is {row.phase}; it needs no certificate any more")
        certificate = self.authority.move_certificate(request.csr, host_id, migration_id)
        return RegistrationAnswer(certificate, self.authority.control_ca, self.authority.hosts_ca)

    def heartbeat(self, host_id: HostId, heartbeat: Heartbeat) -> HeartbeatAnswer:
        """Note that the host lives, and call it ready when it says so for the first time."""
        now = self.clock.now()
        host = self.store.note_heartbeat(host_id, now, heartbeat.host_class, heartbeat.runners)
        host = self._remember(host_id, host, now)
        if heartbeat.ready and _may_become_ready(host):
            self._ready(host_id, heartbeat)
        if host.state is HostState.PREPARING:
            self._hear_trouble(host_id, heartbeat.trouble, now)
        hear_holds(self.store, host_id, heartbeat.runners, now)
        self._tell_of_ended(host_id, heartbeat.runners)
        peers = self.seats.news(host_id, heartbeat.peers) if self.seats is not None else None
        return HeartbeatAnswer(packages=self.packages, peers=peers)

    def _tell_of_ended(self, host_id: HostId, reports: Iterable[RunnerReport]) -> None:
        """Ask for a look at what has ended, once: workers that fall behind are not given the same again and again."""
        ended = frozenset(one.runner_id for one in reports if _has_ended(one))
        fresh = sorted(ended - self._ended.get(host_id, frozenset()))
        self._ended[host_id] = ended
        if fresh:
            self.hints.look_at("runner", *fresh)

    def notice(self, host_id: HostId, notice: Notice) -> None:
        """Write down that the cloud takes the machine back."""
        now = self.clock.now()
        if not 0 <= notice.seconds_left <= DEADLINE_MAX_S:
            raise BadInput(f"seconds_left: {notice.seconds_left} is not between 0 and {DEADLINE_MAX_S:.0f}")
        event = notice_event(host_id, notice.kind, notice.seconds_left, now)
        if notice.kind is NoticeKind.REBALANCE:
            self.store.record(event)
            return
        deadline_at = now + timedelta(seconds=notice.seconds_left)
        host = self.store.hosts.get(host_id)
        if host is not None and noticed(host, deadline_at) != host:
            with self.store.hosts.lease(host_id) as lease:
                after = noticed(lease.row, deadline_at)
                if after != lease.row:
                    lease.write(after, event)
        self.hints.look_at("host", host_id, urgent=True)

    def look(self, host_id: HostId, migration_id: MigrationId) -> RowView | None:
        """Show a row to one of its two hosts and note that it was reached; None if it is not this host's."""
        row, role = self._mine(host_id, migration_id)
        if row is None or role is None:
            return None
        now = self.clock.now()
        if row.phase in _OPEN_TO_PAUSE:
            row = self.store.note_seen(migration_id, role, now) or row
        if self.follower is not None and row.phase is _P.COPYING and role is Role.TARGET:
            self.follower.expect(row)
        return _view(row, now)

    def say(self, host_id: HostId, migration_id: MigrationId, said: Said, word: Word) -> RowView | None:
        """Let the row judge a host's word; whoever lost hears the decision. None if it is not this host's row."""
        row, role = self._mine(host_id, migration_id)
        if row is None or role is None:
            return None
        if len(word.figures) > FIGURES_MAX:
            raise BadInput(f"figures: {len(word.figures)} are more than {FIGURES_MAX}")
        if said is Said.PAUSED and row.is_park and word.manifest is None:
            raise BadInput("manifest: missing; a park is PAUSED only once the list of its parts is in the store")
        now = self.clock.now()
        phase = row.phase
        if word.epoch == row.epoch:
            row = self._settle(row, role, said, word, now)
        if row.phase is _P.COMMITTED and phase is not _P.COMMITTED and self.follower is not None:
            self.follower.follow(row)
        if row.phase is not phase or said is Said.RUNNING:
            self.hints.look_at("migration", migration_id)
        return _view(row, now)

    def object_urls(self, host_id: HostId, migration_id: MigrationId, names: Sequence[str]) -> Mapping[str, str] | None:
        """Return where these objects of the host's park are reached; None if it is not this host's row.

        Whoever parks may write while it copies, whoever resumes may read until that is decided.
        """
        row, role = self._mine(host_id, migration_id)
        if row is None or role is None:
            return None
        method = _method(row, role)
        if method is None or self.objects is None:
            raise Refused(f"{migration_id}: {role} has nothing to do with the object store in phase {row.phase}")
        if len(names) > NAMES_MAX:
            raise BadInput(f"names: {len(names)} are more than {NAMES_MAX}")
        park_id = row.park_id or row.id
        return {name: self.objects.url(method, object_name(park_id, name), URL_LIMIT) for name in names}

    def package_urls(self, digest: PackageDigest, names: Sequence[str]) -> Mapping[str, str]:
        """Return where these objects of a package are read. Any host may read any package: no secret is in one."""
        if len(names) > NAMES_MAX:
            raise BadInput(f"names: {len(names)} are more than {NAMES_MAX}")
        if self.objects is None:
            raise Refused(f"{digest}: this deployment has no object store; bring the package with the host's image")
        named = {name: package_object_name(digest, name) for name in names}
        return {name: self.objects.url(ObjectMethod.GET, full, URL_LIMIT) for name, full in named.items()}

    def _mine(self, host_id: HostId, migration_id: MigrationId) -> tuple[Migration | None, Role | None]:
        row = self.store.migrations.get(migration_id)
        return row, row.role_of(host_id) if row else None

    def _settle(self, row: Migration, role: Role, said: Said, word: Word, now: datetime) -> Migration:
        """Compare and set until the word has nothing more to say to the row: once, unless somebody competes."""
        for _ in MigrationPhase:
            after = _judged(row, role, said, word, now)
            if after == row:
                break
            row = self.store.decide(row, after, *_events(row, after, role, word, now))
        return row

    def _ready(self, host_id: HostId, heartbeat: Heartbeat) -> None:
        with self.store.hosts.lease(host_id) as lease:
            if not _may_become_ready(lease.row):
                return
            event = Event(Happening.HOST_READY, self.clock.now(), host_id=host_id, detail={**heartbeat.stages_s})
            ready = replace(lease.row, state=HOST.move(lease.row.state, HostState.READY))
            lease.write(replace(ready, host_class=heartbeat.host_class), event)
        log.info("host_ready", host=host_id, accel=str(heartbeat.host_class.acceleration))
        self.hints.look_at("host", host_id)

    def _hear_trouble(self, host_id: HostId, trouble: str | None, now: datetime) -> None:
        """Tell the timeline what keeps a host from being ready, and again only if it becomes something else."""
        if trouble != self._troubles.get(host_id):
            self._troubles[host_id] = trouble
            if trouble is not None:
                detail = {"because": trouble[:TROUBLE_MAX]}
                self.store.record(Event(Happening.HOST_TROUBLED, now, host_id=host_id, detail=detail))

    def _remember(self, host_id: HostId, host: Host | None, now: datetime) -> Host:
        if host is None or host.state is HostState.TERMINATED:
            self._admitted.pop(host_id, None)
            self._troubles.pop(host_id, None)
            self._ended.pop(host_id, None)
            raise Refused(f"{host_id} is {'terminated' if host else 'not known here'}; its certificate is refused")
        self._admitted[host_id] = now
        return host


def _has_ended(report: RunnerReport) -> bool:
    return report.guest is GuestRunnerState.ENDED or report.monitor is MonitorState.GONE


def _method(row: Migration, role: Role) -> ObjectMethod | None:
    if row.is_park and role is Role.SOURCE and row.phase is _P.COPYING:
        return ObjectMethod.PUT
    return ObjectMethod.GET if row.is_resume and row.phase in _UNDECIDED else None


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        raise BadInput(f"address: {text!r} is not an IP address") from error


def _may_become_ready(host: Host) -> bool:
    return host.state is HostState.PREPARING and host.deadline_at is None


def _judged(row: Migration, role: Role, said: Said, word: Word, now: datetime) -> Migration:
    after = decide(row, role, said, now)
    if after == row:
        return row
    reason = word.reason if after.phase is _P.ABORTED else row.reason
    manifest = word.manifest if row.is_park and after.phase is _P.PAUSED else row.manifest
    return replace(after, reason=reason, manifest=manifest, figures={**row.figures, **word.figures})


def _events(row: Migration, after: Migration, role: Role, word: Word, now: datetime) -> Sequence[Event]:
    host_id = row.source_id if role is Role.SOURCE else row.target_id
    detail: dict[str, str | float] = {**word.figures}
    if word.reason:
        detail["reason"] = word.reason
    return [
        Event(happening, now, runner_id=row.runner_id, host_id=host_id, migration_id=row.id, detail=detail)
        for happening in _happenings(row, after)
    ]


def _happenings(row: Migration, after: Migration) -> Iterable[Happening]:
    if after.running_at != row.running_at:
        yield Happening.MIGRATION_RUNNING
    match after.phase:
        case row.phase:
            pass
        case _P.PAUSED:
            yield Happening.MIGRATION_PAUSED
        case _P.COMMITTED:
            yield Happening.MIGRATION_COMMITTED
        case _P.FINISHED:
            yield Happening.MIGRATION_FINISHED
        case _P.ABORTED:
            yield Happening.MIGRATION_ABORTED
        case _:
            pass


def _view(row: Migration, now: datetime) -> RowView:
    left = (row.deadline_at - now).total_seconds()
    return RowView(row.phase, row.epoch, may_pause(row, now), max(0.0, left), stood_ms(row))
