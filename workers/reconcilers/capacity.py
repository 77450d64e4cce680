"""Asks for hosts when there is room for too few; the hosts' reconciler then rents them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from workers.domain.events import Event, Happening
from workers.domain.host import Host, HostState
from workers.domain.job import Job, JobState
from workers.domain.names import HostId, host_id
from workers.planning.capacity import CapacityPolicy, hosts_wanted
from workers.planning.fleet import Fleet, is_silent
from workers.ports import Clock, Hints, Store


class Buyer:
    """Gathers what waits and what there is, and writes down the hosts that are missing."""

    def __init__(self, store: Store, hints: Hints, clock: Clock, policy: CapacityPolicy) -> None:
        self._store, self._hints, self._clock = store, hints, clock
        self.policy = policy

    def fleet(self) -> Fleet:
        """Return what there is now."""
        hosts, now = tuple(self._store.hosts.open()), self._clock.now()
        return Fleet(
            hosts=hosts,
            runners=tuple(self._store.runners.open()),
            migrations=tuple(self._store.migrations.open()),
            silent=frozenset(host.id for host in hosts if is_silent(host, now, self.policy.heartbeat_limit)),
            held=self._store.held(now),
        )

    def waiting(self) -> Sequence[Job]:
        """Return the jobs that wait for a runner and are to get one."""
        return [job for job in self._store.jobs.open() if job.state is JobState.QUEUED and job.terms is not None]

    def buy(self) -> None:
        """Ask for the hosts that are missing."""
        fleet = self.fleet()
        shapes = [job.terms.shape for job in self.waiting() if job.terms is not None]
        wanted = hosts_wanted(fleet, shapes, self.policy)
        for place in range(wanted):
            self._ask(self._name(fleet, place))

    def _ask(self, name: HostId) -> None:
        now = self._clock.now()
        host = Host(
            id=name, cloud=self.policy.cloud, state=HostState.REQUESTED, requested_at=now, spec=self.policy.spec
        )
        if self._store.hosts.add(host, Event(Happening.HOST_REQUESTED, now, host_id=name)):
            self._hints.look_at("host", name)

    def _name(self, fleet: Fleet, place: int) -> HostId:
        """Name a host after what was seen when it was found missing.

        Two workers who see the same at the same time choose the same name, so only one of them gets to add it; ten
        seconds later the same sight gives another name.
        """
        tens = int(self._clock.now().timestamp()) // 10
        sight = " ".join(sorted(host.id for host in fleet.hosts))
        return host_id(hashlib.sha256(f"{tens} {place} {sight}".encode()).hexdigest()[:10])
