"""The fleet: what is known of all hosts, runners and moves at one moment, and the room that it leaves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property

from workers.domain.host import Host, HostState, fits, room
from workers.domain.migration import MIGRATION, Migration, MigrationPhase
from workers.domain.names import HostId, RunnerId
from workers.domain.runner import Runner, RunnerState, Shape

# From the commit on the runner's own row says where it is.
UNDECIDED = MIGRATION.open - {MigrationPhase.COMMITTED}


@dataclass(frozen=True)
class Fleet:
    """One snapshot of every row that is open."""

    hosts: tuple[Host, ...]
    runners: tuple[Runner, ...]
    migrations: tuple[Migration, ...] = ()
    silent: frozenset[HostId] = frozenset()
    """Hosts that are not heard just now; nothing more is entrusted to them."""
    held: Mapping[RunnerId, datetime] = field(default_factory=dict)
    """The runners whose jobs have asked not to be moved, and until when."""

    def host(self, host_id: HostId | None) -> Host | None:
        """Return one host, None if it is not open."""
        return next((host for host in self.hosts if host.id == host_id), None)

    def runners_of(self, host_id: HostId) -> tuple[Runner, ...]:
        """Return the runners that hold room on this host."""
        return self._by_host.get(host_id, ())

    def left(self, host: Host) -> Shape:
        """Return what a host has left beside what runs there and what is on its way to it."""
        return room(host, (*(one.shape for one in self.runners_of(host.id)), *self._arriving(host.id)))

    def candidates(self, shape: Shape) -> tuple[Host, ...]:
        """Return the hosts that can take a microVM of this shape now, the fullest first.

        Filling the fullest leaves whole hosts empty, for the next notice or to be given back.
        """
        found = [host for host in self.hosts if self.takes(host) and fits(shape, self.left(host))]
        return tuple(sorted(found, key=lambda host: (self.left(host).memory_mib, host.id)))

    def takes(self, host: Host) -> bool:
        """Say whether this host takes runners now."""
        return is_open(host) and host.id not in self.silent

    def _arriving(self, host_id: HostId) -> Iterator[Shape]:
        for move in self.migrations:
            if move.target_id == host_id and move.phase in UNDECIDED and move.runner_id in self._by_id:
                yield self._by_id[move.runner_id].shape

    @cached_property
    def _by_id(self) -> Mapping[RunnerId, Runner]:
        return {one.id: one for one in self.runners}

    @cached_property
    def _by_host(self) -> Mapping[HostId, tuple[Runner, ...]]:
        """Every placement asks what is left on every host, so it is not counted anew for each."""
        found = defaultdict[HostId, list[Runner]](list)
        for one in self.runners:
            if one.host_id is not None and one.state is not RunnerState.GONE:
                found[one.host_id].append(one)
        return {host_id: tuple(runners) for host_id, runners in found.items()}


def binds(move: Migration, host_id: HostId) -> bool:
    """Say whether a host still has a part in a migration; one that has parked its guest away has none any more."""
    has_parked = move.is_park and move.wiped_at is not None
    return host_id in {move.source_id, move.target_id} and not has_parked


def is_open(host: Host) -> bool:
    """Say whether this host takes runners: it has proved itself and nobody takes it away."""
    return host.state is HostState.READY and host.deadline_at is None


def is_coming(host: Host) -> bool:
    """Say whether this host will take runners soon."""
    return host.state in {HostState.REQUESTED, HostState.LAUNCHING, HostState.PREPARING} and host.deadline_at is None


def is_leaving(host: Host) -> bool:
    """Say whether runners must not stay here."""
    return host.deadline_at is not None or host.state not in {
        HostState.REQUESTED,
        HostState.LAUNCHING,
        HostState.PREPARING,
        HostState.READY,
    }


def is_lost(host: Host | None) -> bool:
    """Say whether we have given this host up; it may still be running, cut off from us."""
    return host is None or host.state in {HostState.LOST, HostState.TERMINATING, HostState.TERMINATED}


def is_terminated(host: Host | None) -> bool:
    """Say whether the cloud has told us that this machine is no more."""
    return host is None or host.state is HostState.TERMINATED


def is_silent(host: Host, now: datetime, limit: timedelta) -> bool:
    """Say whether a host that should be heard has not been heard for so long."""
    return host.heartbeat_at is not None and now - host.heartbeat_at > limit


def minus(left: Shape, taken: Shape) -> Shape:
    """Return what is left after one more microVM."""
    return Shape(
        vcpus=left.vcpus - taken.vcpus,
        memory_mib=left.memory_mib - taken.memory_mib,
        disk_mib=left.disk_mib - taken.disk_mib,
    )
