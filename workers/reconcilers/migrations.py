"""Migrations: both hosts are told their part, and the relay follows the commit; the row decides everything else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar, assert_never

import structlog

from workers.domain.errors import Refused, TryLater
from workers.domain.events import Event, Happening
from workers.domain.host import Host
from workers.domain.messages import MoveOrder, ParkOrder
from workers.domain.migration import MIGRATION, Migration, MigrationPhase, taken_out
from workers.domain.names import HostId, MigrationId
from workers.domain.runner import Runner
from workers.planning.moving import (
    Abort,
    MigrationSeen,
    MigrationStep,
    closed,
    copying,
    given_up,
    next_step,
    pointed,
    receiving,
)
from workers.planning.orders import move_order
from workers.ports import Clock, Forwarding, Hints, HostApi, Relay, Store
from workers.reconcilers.sight import host_of

T = TypeVar("T")

log = structlog.get_logger()


class Migrations:
    """Advances one migration at a time.

    The lease only keeps two workers from giving the same order twice; what is written goes by compare-and-set, because
    the hosts write too.
    """

    def __init__(self, store: Store, hosts: HostApi, relay: Relay, hints: Hints, clock: Clock) -> None:
        self._store, self._hosts, self._relay = store, hosts, relay
        self._hints, self._clock = hints, clock

    def due(self) -> Sequence[MigrationId]:
        """Return every migration that is neither FINISHED nor ABORTED."""
        return [row.id for row in self._store.migrations.open()]

    def advance(self, migration_id: MigrationId) -> None:
        """Take this migration as far as it goes now. Raises `TryLater`, mostly because another has the lease."""
        if self._store.migrations.get(migration_id) is None:
            return
        with self._store.migrations.lease(migration_id) as lease:
            self._step(lease.row)
        self._pass_on(self._store.migrations.get(migration_id) or lease.row)

    def _step(self, row: Migration) -> None:
        seen = self._gather(row)
        step = next_step(seen, self._clock.now())
        if isinstance(step, Abort):
            self._abort(seen, step.reason)
            return
        match step:
            case MigrationStep.WAIT:
                pass
            case MigrationStep.RECEIVE:
                self._receive(seen)
            case MigrationStep.SEND:
                self._send(seen)
            case MigrationStep.POINT:
                self._point(seen)
            case MigrationStep.FINISH:
                self._decide(row, closed(row), Happening.MIGRATION_FINISHED)
            case _:
                assert_never(step)

    def _gather(self, row: Migration) -> MigrationSeen:
        return MigrationSeen(
            row=row,
            source=host_of(self._store, row.source_id),
            target=host_of(self._store, row.target_id),
            runner=self._store.runners.get(row.runner_id),
        )

    def _receive(self, seen: MigrationSeen) -> None:
        try:
            ports = None if seen.row.is_park else self._hosts.receive(_target(seen), self._order(seen, seen.source))
        except Refused as error:
            self._abort(seen, f"the target refused: {error}")
            return
        row = self._decide(seen.row, receiving(seen.row, ports), Happening.MIGRATION_RECEIVING)
        if row.phase is MigrationPhase.RECEIVING:
            self._send(replace(seen, row=row))

    def _order(self, seen: MigrationSeen, peer: Host | None) -> MoveOrder:
        stored = self._store.migrations.get(seen.row.park_id) if seen.row.park_id else None
        how = self._park_order(seen.row)
        return move_order(seen.row, _runner(seen), peer, self._clock.now(), how, seen.target, stored)

    def _park_order(self, row: Migration) -> ParkOrder | None:
        """Return how the guest lies in the store, if it goes there or comes from there."""
        park = row if row.is_park else self._store.migrations.get(row.park_id) if row.park_id else None
        if park is None:
            return None
        if park.key is None:
            raise TryLater(f"{park.id} has ended, so its guest cannot be sent for any more")
        return ParkOrder(park.id, park.key, park.manifest)

    def _send(self, seen: MigrationSeen) -> None:
        row = seen.row
        if row.phase is MigrationPhase.RECEIVING:
            row = self._decide(row, copying(row), Happening.MIGRATION_COPYING)
        if row.phase is not MigrationPhase.COPYING:
            return
        if row.is_resume:
            self._decide(row, taken_out(row), Happening.MIGRATION_PAUSED)
            return
        seen = replace(seen, row=row)
        try:
            self._hosts.send(_source(seen), self._order(seen, seen.target))
        except Refused as error:
            self._abort(seen, f"the source refused: {error}")
            return
        if not row.is_park:
            self._warm_up_relay(_source(seen), _runner(seen))

    def _warm_up_relay(self, source: Host, runner: Runner) -> None:
        """Say again where the guest is: the line to the relay is open then when every millisecond counts."""
        try:
            self._relay.point(Forwarding(runner.id, runner.epoch, runner.address, source.address or ""))
        except (TryLater, Refused) as error:
            log.info("relay_not_warm", runner=runner.id, because=str(error))

    def _point(self, seen: MigrationSeen) -> None:
        row = seen.row
        target, runner = _target(seen), _runner(seen)
        self._relay.point(Forwarding(runner.id, row.epoch, runner.address, target.address or ""))
        row = self._decide(row, pointed(row, self._clock.now()), Happening.RELAY_POINTED, host=target.id)
        if row.phase not in MIGRATION.last:
            self._hints.look_at("migration", row.id)

    def _abort(self, seen: MigrationSeen, reason: str) -> None:
        after = given_up(seen, reason)
        if after is not seen.row:
            self._decide(seen.row, after, Happening.MIGRATION_ABORTED, reason=reason)

    def _pass_on(self, row: Migration) -> None:
        """What has finished leaves a host with less on it, and a runner may have waited for the end.

        After an abort the source is looked at when the watch does so, within a second: what fails at once would
        otherwise be tried again at once, and again.
        """
        is_free = row.phase in {MigrationPhase.COMMITTED, MigrationPhase.FINISHED}
        if is_free and row.source_id is not None:  # the line is free from the commit on
            self._hints.look_at("host", row.source_id)
        if row.phase in MIGRATION.last:
            self._hints.look_at("runner", row.runner_id)
            if row.park_id is not None:
                self._hints.look_at("migration", row.park_id)

    def _decide(
        self,
        before: Migration,
        after: Migration,
        happening: Happening,
        host: HostId | None = None,
        reason: str | None = None,
    ) -> Migration:
        event = Event(
            happening,
            self._clock.now(),
            runner_id=before.runner_id,
            host_id=host,
            migration_id=before.id,
            detail={} if reason is None else {"reason": reason},
        )
        return self._store.decide(before, after, event)


def _source(seen: MigrationSeen) -> Host:
    return _known(seen.source, seen)


def _target(seen: MigrationSeen) -> Host:
    return _known(seen.target, seen)


def _runner(seen: MigrationSeen) -> Runner:
    return _known(seen.runner, seen)


def _known(one: T | None, seen: MigrationSeen) -> T:
    if one is None:
        raise TryLater(f"{seen.row.id} names a host or a runner that is not known")
    return one
