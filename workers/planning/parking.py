"""Parking: when a guest goes to the store because no host can take it in time, and when it comes out again.

no target, and little time left ─▶ Park          COMMITTED, and a host fits ─▶ resume there
COMMITTED, and nobody needs it any more ─▶ end it
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import assert_never

from workers.domain.host import Host
from workers.domain.host_class import mismatch
from workers.domain.migration import Migration, MigrationPhase
from workers.domain.names import HostId, MigrationId
from workers.domain.runner import Runner, RunnerState
from workers.planning.fleet import Fleet

_M = MigrationPhase


class ParkStep(Enum):
    WAIT = auto()
    LOOK = auto()
    """Look into the store: commit what is whole, abort what is not."""
    RESUME = auto()
    """Find a host for it."""
    END = auto()
    """Destroy the key and the objects."""


@dataclass(frozen=True)
class ParkSeen:
    """What is known of a park at one moment."""

    row: Migration
    runner: Runner | None


def next_step(seen: ParkSeen) -> ParkStep:
    """Say what to do next about this park."""
    match seen.row.phase:
        case _M.PLANNED | _M.RECEIVING | _M.COPYING | _M.FINISHED:
            return ParkStep.WAIT
        case _M.PAUSED:
            return ParkStep.LOOK
        case _M.ABORTED:
            return ParkStep.END
        case _M.COMMITTED:
            return _while_parked(seen.row, seen.runner)
        case _:
            assert_never(seen.row.phase)


def _while_parked(row: Migration, runner: Runner | None) -> ParkStep:
    if runner is None or runner.state is RunnerState.GONE or runner.epoch > row.epoch:
        return ParkStep.END
    if runner.migration_id is not None:
        return ParkStep.WAIT
    return ParkStep.RESUME if runner.state is RunnerState.BUSY else ParkStep.END


def host_for(runner: Runner, source: Host | None, fleet: Fleet, tried: Collection[HostId] = ()) -> Host | None:
    """Choose the host that takes a parked guest out of the store: one of its class with room, one not tried first."""
    made_for = source.host_class if source is not None else None
    fitting = [
        host
        for host in fleet.candidates(runner.shape)
        if made_for and host.host_class and mismatch(made_for, host.host_class) is None
    ]
    return min(fitting, key=lambda host: host.id in tried, default=None)


def planned_park(runner: Runner, source: Host, migration_id: MigrationId, key: str, now: datetime) -> Migration:
    """Return the row of a park that is to be; `key` is its own and nobody else's."""
    return Migration(
        id=migration_id,
        runner_id=runner.id,
        source_id=source.id,
        target_id=None,
        phase=_M.PLANNED,
        epoch=runner.epoch + 1,
        planned_at=now,
        deadline_at=source.deadline_at or now,
        key=key,
    )


def planned_resume(
    runner: Runner, park: Migration, target: Host, migration_id: MigrationId, now: datetime, limit: timedelta
) -> Migration:
    """Return the row of a resume that is to be; after `limit` from the park on the job is not to be saved any more."""
    return Migration(
        id=migration_id,
        runner_id=runner.id,
        source_id=None,
        target_id=target.id,
        phase=_M.PLANNED,
        epoch=runner.epoch + 1,
        planned_at=now,
        deadline_at=(runner.parked_at or now) + limit,
        park_id=park.id,
    )
