"""Evacuation: where the guests of a host go when the cloud takes it back.

All guests of a host share its line and its deadline, so the smallest goes
first: each one that has arrived is one job saved, whatever becomes of the rest.
One whose job has asked not to be moved waits at the end of the line, until its
hold ends or the time that is left is just enough for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from workers.domain.host import Host, fits
from workers.domain.host_class import mismatch
from workers.domain.migration import Migration, MigrationPhase
from workers.domain.names import HostId, MigrationId, RunnerId
from workers.domain.runner import Runner, RunnerState, Shape
from workers.planning.fleet import Fleet, minus

# Even an empty guest needs about this long until its target may run it; what starts later costs the guest its last
# seconds, in which its job might have ended by itself.
MOVE_MARGIN: Final = timedelta(seconds=3)
# Half of what a line of 1 Gbit/s carries: memory that is written meanwhile is sent again, and the disk goes with it.
HELD_MIB_S: Final = 50

Tried = Mapping[RunnerId, tuple[HostId, ...]]


@dataclass(frozen=True)
class Move:
    """One runner and the host that it is to go to."""

    runner_id: RunnerId
    target_id: HostId
    breaks_hold_until: datetime | None = None
    """The hold that the deadline does not allow to be kept."""


def moves_from(source: Host, fleet: Fleet, now: datetime, tried: Tried | None = None) -> tuple[Move, ...]:
    """Choose a target for every busy runner that has none yet; who fits nowhere is left out.

    `tried` says where each runner was sent before, the last one last: those attempts have failed, so a target that was
    never tried, or not for long, comes first. A runner that is held gets its room, and its move when it must begin.
    """
    if source.deadline_at is None or source.deadline_at - now < MOVE_MARGIN:
        return ()
    must_move = now >= held_until_at_most(source.deadline_at, source, fleet, now)
    assigned = _assigned(source, fleet, tried or {}, now)
    return tuple(move for move in assigned if must_move or move.breaks_hold_until is None)


def held_until_at_most(deadline_at: datetime, source: Host, fleet: Fleet, now: datetime) -> datetime:
    """Return when the moves of this host's held runners must begin, so that all of them still reach their targets.

    They share the line with nobody who could have gone before.
    """
    held = (one for one in fleet.runners_of(source.id) if needs_move(one) and _hold_of(one, fleet, now))
    return deadline_at - MOVE_MARGIN - timedelta(seconds=sum(one.shape.memory_mib for one in held) / HELD_MIB_S)


def _assigned(source: Host, fleet: Fleet, tried: Tried, now: datetime) -> Iterator[Move]:
    targets = sorted(_targets(source, fleet), key=lambda host: (fleet.left(host).memory_mib, host.id))
    rooms: dict[HostId, Shape] = {host.id: fleet.left(host) for host in targets}
    for runner in sorted(fleet.runners_of(source.id), key=lambda one: (one.shape.memory_mib, one.id)):
        fitting = [key for key, left in rooms.items() if fits(runner.shape, left)]
        if needs_move(runner) and fitting:
            before = tried.get(runner.id, ())
            target = min(fitting, key=lambda key: before.index(key) if key in before else -1)
            rooms[target] = minus(rooms[target], runner.shape)
            yield Move(runner.id, target, _hold_of(runner, fleet, now))


def _hold_of(runner: Runner, fleet: Fleet, now: datetime) -> datetime | None:
    held_until = fleet.held.get(runner.id)
    return held_until if held_until is not None and now < held_until else None


def needs_move(runner: Runner) -> bool:
    """Say whether a runner on a leaving host waits for a migration: the others are stopped and placed again."""
    return runner.state is RunnerState.BUSY and runner.migration_id is None


def _targets(source: Host, fleet: Fleet) -> Iterator[Host]:
    for host in fleet.hosts:
        if host.id != source.id and fleet.takes(host) and _is_fit(source, host):
            yield host


def _is_fit(source: Host, target: Host) -> bool:
    if source.host_class is None or target.host_class is None:
        return False
    return mismatch(source.host_class, target.host_class) is None


def planned(move: Move, runner: Runner, source: Host, migration_id: MigrationId, now: datetime) -> Migration:
    """Return the row of a migration that is to be."""
    return Migration(
        id=migration_id,
        runner_id=runner.id,
        source_id=source.id,
        target_id=move.target_id,
        phase=MigrationPhase.PLANNED,
        epoch=runner.epoch + 1,
        planned_at=now,
        deadline_at=source.deadline_at or now,
    )
