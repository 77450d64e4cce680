"""In which order the buyer lets hosts be filled."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from tests.fakes.clock import FakeClock
from tests.fakes.hints import LossyHints
from tests.fakes.store import MemoryStore
from tests.unit.planning.rows import MINUTE, NOW, SMALL, SPEC, a_host, a_runner
from workers.domain.labels import Interrupt
from workers.domain.names import PackageDigest
from workers.domain.overlay import GuestNetwork
from workers.domain.pools import Terms
from workers.planning.capacity import CapacityPolicy
from workers.planning.paid_time import BY_THE_HOUR, BY_THE_SECOND, Billing
from workers.reconcilers.capacity import Buyer

TERMS = Terms("ci", PackageDigest("sha256:01"), "debian-12", SMALL, GuestNetwork.NAT, Interrupt.MOVE)


@pytest.mark.parametrize(("billing", "order"), [(BY_THE_SECOND, ["a", "b"]), (BY_THE_HOUR, ["b", "a"])])
def test_where_hours_are_billed_a_host_that_is_ending_is_filled_last(billing: Billing, order: list[str]) -> None:
    clock = FakeClock(NOW + 50 * MINUTE)
    store = MemoryStore(clock)
    for host in (a_host("a"), replace(a_host("b"), requested_at=NOW + 40 * MINUTE)):
        store.hosts.add(replace(host, heartbeat_at=clock.now()))
    store.runners.add(a_runner("r", "a"))
    policy = CapacityPolicy("hetzner", SPEC, ready_hosts=0, hosts_max=3, billing=billing)
    buyer = Buyer(store, LossyHints(random.Random(0)), clock, policy)
    assert [host.id for host in buyer.candidates(buyer.fleet(), TERMS)] == order
