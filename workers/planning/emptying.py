"""Emptying: which host is cleared by moving its guests, so that it is given back at the end of its paid period.

    the period ends soon, nobody waits ─▶ the emptiest such host ─▶ do all its guests fit elsewhere? ─▶ they are moved
                                                                     (whose job ends sooner is left alone)

It stays READY meanwhile: it is the last that gets another runner, and if it does, it is not empty and stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from workers.domain.host import Host
from workers.domain.host_class import mismatch
from workers.domain.overlay import GuestNetwork
from workers.domain.runner import Runner, RunnerState
from workers.planning.capacity import CapacityPolicy
from workers.planning.fleet import UNDECIDED, Fleet, is_leaving
from workers.planning.paid_time import is_ending, paid_for
from workers.planning.rooms import Rooms, Seat, lot_of, seats_of, shortages

# Long enough for a few moves one after another; sooner, more jobs would have ended by themselves.
EMPTYING: Final = timedelta(minutes=2)


def to_empty(fleet: Fleet, policy: CapacityPolicy, now: datetime) -> Host | None:
    """Return the host whose guests are to be moved now, None if none. The caller has seen that no job waits.

    One at a time, and none while any guest is on its way or must leave its host: those need the room and the line.
    """
    is_calm = not any(move.phase in UNDECIDED for move in fleet.migrations)
    if not is_calm or any(is_leaving(host) and fleet.runners_of(host.id) for host in fleet.hosts):
        return None
    due = [host for host in fleet.hosts if fleet.takes(host) and _is_due(host, policy, now)]
    found = (host for host in sorted(due, key=lambda host: (_used(host, fleet), host.id)) if fleet.runners_of(host.id))
    return next((host for host in found if _may_go(host, fleet, policy, now)), None)


def empty_by(host: Host, policy: CapacityPolicy, now: datetime) -> datetime:
    """Return when a host must be empty to be given back at the end of its period."""
    billing = policy.billing_of(host.cloud)
    return now + paid_for(host, billing, now) - billing.last


def _is_due(host: Host, policy: CapacityPolicy, now: datetime) -> bool:
    return timedelta() < empty_by(host, policy, now) - now <= EMPTYING


def _is_ending(host: Host, policy: CapacityPolicy, now: datetime) -> bool:
    return is_ending(host, policy.billing_of(host.cloud), now)


def _used(host: Host, fleet: Fleet) -> int:
    return sum(one.shape.memory_mib for one in fleet.runners_of(host.id))


def _may_go(host: Host, fleet: Fleet, policy: CapacityPolicy, now: datetime) -> bool:
    others = [one for one in fleet.hosts if one.id != host.id and fleet.takes(one)]
    staying = [one for one in others if not _is_ending(one, policy, now) and not _is_due(one, policy, now)]
    guests = fleet.runners_of(host.id)
    if len(others) < policy.ready_hosts or not all(_is_movable(one, fleet) for one in guests):
        return False
    return _fit(host, guests, staying, fleet) and not _is_missed(host, guests, fleet, policy)


def _is_movable(runner: Runner, fleet: Fleet) -> bool:
    """A guest that leaves through its host loses its connections by a move: only what must leave is worth that."""
    return runner.state is RunnerState.BUSY and runner.network is GuestNetwork.RELAY and runner.id not in fleet.held


def _fit(host: Host, guests: Sequence[Runner], others: Sequence[Host], fleet: Fleet) -> bool:
    made_for = host.host_class
    rooms = Rooms(
        Seat(lot_of(one), fleet.left(one))
        for one in others
        if made_for and one.host_class and mismatch(made_for, one.host_class) is None
    )
    largest_first = sorted(guests, key=lambda one: one.shape.memory_mib, reverse=True)
    return all(rooms.place(one.shape) is not None for one in largest_first)


def _is_missed(host: Host, guests: Sequence[Runner], fleet: Fleet, policy: CapacityPolicy) -> bool:
    """Say whether less of what a notice may take away would have room elsewhere, if these guests filled the others."""
    if not policy.keeps_room or not policy.offers:
        return False
    without = replace(fleet, hosts=tuple(one for one in fleet.hosts if one.id != host.id))
    rooms = Rooms(seats_of(without, policy.offers))
    for one in sorted(guests, key=lambda one: one.shape.memory_mib, reverse=True):
        rooms.place(one.shape)
    before = sum(one.hosts for one in shortages(seats_of(fleet, policy.offers), policy.sizes))
    return sum(one.hosts for one in shortages(rooms.seats, policy.sizes)) > before
