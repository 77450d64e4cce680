"""Capacity: how many hosts are to be asked for.

Hosts are wanted by jobs that fit nowhere, by guests that must leave a host and
fit nowhere else, and by the wish to have some ready when nothing waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from workers.domain.host import Host, HostState, fits, room
from workers.domain.runner import Runner, RunnerState, Shape
from workers.planning.fleet import Fleet, is_coming, is_leaving, minus

# A host that nobody needs stays until the end of a started period, counted from when it was asked for: the jobs of a
# morning come close together, and some clouds bill whole periods anyway.
PERIOD: Final = timedelta(minutes=15)
# Longer than the interval between two looks, so that the end is not missed.
PERIOD_END: Final = timedelta(minutes=1)


@dataclass(frozen=True)
class CapacityPolicy:
    """What may be bought."""

    cloud: str
    spec: Shape
    """Of one host, for microVMs."""
    ready_hosts: int
    hosts_max: int
    heartbeat_limit: timedelta = timedelta(seconds=10)
    """A host that has been silent for longer gets nothing more to do."""


def hosts_wanted(fleet: Fleet, waiting: Sequence[Shape], policy: CapacityPolicy) -> int:
    """Return how many hosts to ask for now; `waiting` are the shapes of what waits for room."""
    coming = sum(is_coming(host) for host in fleet.hosts)
    ready = sum(fleet.takes(host) for host in fleet.hosts)
    homeless = unplaced(fleet, [*waiting, *(runner.shape for runner in stranded(fleet))])
    for_demand = hosts_for(homeless, policy.spec) - coming
    for_readiness = policy.ready_hosts - ready - coming
    # Those that leave give their place to those that follow, or the last host could never be evacuated.
    staying = sum(not is_leaving(host) for host in fleet.hosts)
    return max(0, min(max(for_demand, for_readiness), policy.hosts_max - staying))


def stranded(fleet: Fleet) -> tuple[Runner, ...]:
    """Return the runners that must be moved away, or taken out of the store, and are not on their way yet."""
    leaving = {host.id for host in fleet.hosts if is_leaving(host) and host.state is HostState.DRAINING}
    return tuple(
        one
        for one in fleet.runners
        if (one.is_parked or one.host_id in leaving) and one.state is RunnerState.BUSY and not one.migration_id
    )


def unplaced(fleet: Fleet, shapes: Sequence[Shape]) -> list[Shape]:
    """Return what is left over of these shapes when the open hosts are filled."""
    rooms = [fleet.left(host) for host in fleet.hosts if fleet.takes(host)]
    over = []
    for shape in shapes:
        place = next((number for number, left in enumerate(rooms) if fits(shape, left)), None)
        if place is None:
            over.append(shape)
        else:
            rooms[place] = minus(rooms[place], shape)
    return over


def hosts_for(shapes: Sequence[Shape], spec: Shape) -> int:
    """Return how many empty hosts these shapes fill; what no host could ever hold counts for none."""
    rooms: list[Shape] = []
    for shape in (shape for shape in shapes if fits(shape, spec)):
        place = next((number for number, left in enumerate(rooms) if fits(shape, left)), None)
        if place is None:
            rooms.append(minus(spec, shape))
        else:
            rooms[place] = minus(rooms[place], shape)
    return len(rooms)


def is_surplus(host: Host, fleet: Fleet, policy: CapacityPolicy, now: datetime) -> bool:
    """Say whether this empty host is to be given back now. The caller has seen that no job waits."""
    is_empty = fleet.left(host) == room(host, ())
    others = sum(fleet.takes(one) for one in fleet.hosts if one.id != host.id)
    ends = (now - host.requested_at) % PERIOD >= PERIOD - PERIOD_END
    return fleet.takes(host) and is_empty and others >= policy.ready_hosts and ends
