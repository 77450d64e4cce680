"""Migrations: both hosts are told their part, and the relay follows the commit; the row decides everything else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import structlog

from workers.domain.errors import Refused, TryLater
from workers.domain.events import Event, Happening
from workers.domain.host import Host
from workers.domain.migration import MIGRATION, Migration, MigrationPhase
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
            source=self._store.hosts.get(row.source_id),
            target=self._store.hosts.get(row.target_id),
            runner=self._store.runners.get(row.runner_id),
        )

    def _receive(self, seen: MigrationSeen) -> None:
        source, target, runner = _all_of(seen)
        try:
            ports = self._hosts.receive(target, move_order(seen.row, runner, source, self._clock.now()))
        except Refused as error:
            self._abort(seen, f"the target refused: {error}")
            return
        row = self._decide(seen.row, receiving(seen.row, ports), Happening.MIGRATION_RECEIVING)
        if row.phase is MigrationPhase.RECEIVING:
            self._send(MigrationSeen(row, source, target, runner))

    def _send(self, seen: MigrationSeen) -> None:
        source, target, runner = _all_of(seen)
        row = seen.row
        if row.phase is MigrationPhase.RECEIVING:
            row = self._decide(row, copying(row), Happening.MIGRATION_COPYING)
        if row.phase is not MigrationPhase.COPYING:
            return
        try:
            self._hosts.send(source, move_order(row, runner, target, self._clock.now()))
        except Refused as error:
            self._abort(MigrationSeen(row, source, target, runner), f"the source refused: {error}")
            return
        self._warm_up_relay(source, runner)

    def _warm_up_relay(self, source: Host, runner: Runner) -> None:
        """Say again where the guest is: the line to the relay is open then when every millisecond counts."""
        try:
            self._relay.point(Forwarding(runner.id, runner.epoch, runner.address, source.address or ""))
        except (TryLater, Refused) as error:
            log.info("relay_not_warm", runner=runner.id, because=str(error))

    def _point(self, seen: MigrationSeen) -> None:
        row = seen.row
        _, target, runner = _all_of(seen)
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
        if row.phase in {MigrationPhase.COMMITTED, MigrationPhase.FINISHED}:  # the line is free from the commit on
            self._hints.look_at("host", row.source_id)
        if row.phase in MIGRATION.last:
            self._hints.look_at("runner", row.runner_id)

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


def _all_of(seen: MigrationSeen) -> tuple[Host, Host, Runner]:
    if seen.source is None or seen.target is None or seen.runner is None:
        raise TryLater(f"{seen.row.id} names a host or a runner that is not known")
    return seen.source, seen.target, seen.runner
