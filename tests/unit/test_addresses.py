"""Where a machine is: the cloud is asked until it has told an address that others see, and not once more."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.fakes.clock import FakeClock
from tests.fakes.cloud import FakeCloud
from tests.fakes.hints import LossyHints
from tests.fakes.store import MemoryStore
from tests.fakes.trouble import Trouble
from tests.unit.planning.rows import SPEC
from workers.domain.host import Host, HostState
from workers.domain.names import HostId
from workers.domain.whereabouts import Machine
from workers.planning.capacity import CapacityPolicy
from workers.reconcilers.capacity import Buyer
from workers.reconcilers.clouds import Clouds, Outages
from workers.reconcilers.hosts import HostPolicy, Hosts

H = HostId("spot-host-a")
LOOKS = 3
Addresses = tuple[str, ...] | None


class Rig:
    """One host that is being launched."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.trouble = Trouble(self.clock)
        self.cloud, self.store = FakeCloud(self.clock, self.trouble), MemoryStore(self.clock)
        hints = LossyHints(random.Random(0))
        buyer = Buyer(self.store, hints, self.clock, CapacityPolicy("fake", SPEC, 0, 1))
        clouds = Clouds([self.cloud], Outages(self.clock))
        self.hosts = Hosts(self.store, clouds, hints, self.clock, buyer, HostPolicy({}))
        self.store.hosts.add(Host(H, "fake", HostState.REQUESTED, self.clock.now(), SPEC))
        self.hosts.advance(H)

    def tell(self, addresses: Addresses) -> None:
        """Let the cloud know these of its machine from now on."""
        machine = self.cloud.machines[H]
        machine.instance = replace(machine.instance, machine=Machine(addresses=addresses))

    def know(self, addresses: Addresses) -> None:
        """Let the row hold what the launch has told."""
        with self.store.hosts.lease(H) as lease:
            lease.write(replace(lease.row, machine=Machine(addresses=addresses)))

    def look(self) -> int:
        """Look a few times, and return how often the cloud was asked."""
        before = len(self.trouble.of("cloud", "describe"))
        for _ in range(LOOKS):
            self.clock.move(timedelta(seconds=15))
            self.hosts.advance(H)
        return len(self.trouble.of("cloud", "describe")) - before

    def known(self) -> Addresses:
        host = self.store.hosts.get(H)
        assert host is not None
        assert host.state is HostState.LAUNCHING
        return host.machine.addresses if host.machine else None


@pytest.mark.parametrize("known", [("198.51.100.7",), ("10.0.0.4", "198.51.100.7"), ("2001:db8::7",), None])
def test_a_cloud_that_has_told_all_or_tells_nothing_is_asked_no_more(known: Addresses) -> None:
    rig = Rig()
    rig.tell(("203.0.113.9",))
    rig.know(known)
    assert (rig.look(), rig.known()) == (0, known)


@pytest.mark.parametrize("known", [(), ("10.0.0.4",), ("100.64.0.9", "172.31.0.9")])
def test_an_address_that_is_told_later_is_asked_for_until_it_is_known(known: tuple[str, ...]) -> None:
    rig = Rig()
    rig.know(known)
    rig.tell(("10.0.0.4",))
    assert (rig.look(), rig.known()) == (LOOKS, ("10.0.0.4",))
    rig.tell(("10.0.0.4", "198.51.100.7"))
    assert (rig.look(), rig.known()) == (1, ("10.0.0.4", "198.51.100.7"))
