"""Refused registrations in timelines: once each, a few of each host, and for ever, however many hosts there were."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.contract.store_rows import a_host
from tests.fakes.clock import FakeClock
from tests.fakes.hints import LossyHints
from tests.fakes.store import MemoryStore
from webhook.gate import ADDRESS_LIMIT, REMEMBERED_MAX, REPORTED_MAX, Gate
from workers.domain.errors import Refused, TryLater, Unreachable
from workers.domain.events import Event, Happening
from workers.domain.host import HostState
from workers.domain.messages import RegistrationRequest
from workers.domain.names import HostId
from workers.domain.whereabouts import Machine

OWN = "10.90.0.16"


class Rig:
    def __init__(self, store: type[MemoryStore] = MemoryStore, nats: tuple[str, ...] = ()) -> None:
        self.clock = FakeClock()
        self.store = store(self.clock)
        self.gate = Gate(self.store, LossyHints(random.Random(0)), self.clock, nats)

    def launching(self, name: str) -> RegistrationRequest:
        """Launch a host, and return what its machine would say."""
        host = replace(a_host(HostId(name), state=HostState.LAUNCHING), machine=Machine(addresses=(OWN,)))
        assert self.store.hosts.add(host)
        return RegistrationRequest(
            host.id, self.store.issue_token(host.id, self.clock.now() + timedelta(hours=1)), "", OWN
        )

    def used(self, name: str) -> RegistrationRequest:
        """Launch a host whose token was used already."""
        request = self.launching(name)
        assert self.store.burn_token(request.token, OWN) is not None
        return request

    def is_refused(self, request: RegistrationRequest, source: str = OWN) -> None:
        with pytest.raises(Refused):
            self.gate.admitted(request, source)

    def reported(self, host_id: HostId) -> int:
        events = [event for _, event in self.store.timeline() if event.host_id == host_id]
        return sum(event.happening is Happening.REGISTRATION_REFUSED for event in events)


def test_each_host_is_reported_however_many_were_before_and_the_oldest_is_forgotten() -> None:
    rig = Rig()
    first = rig.used("spot-host-first")
    rig.is_refused(first)
    for number in range(REMEMBERED_MAX):
        request = rig.used(f"spot-host-{number:04}")
        for _ in range(2):
            rig.is_refused(request)
        assert rig.reported(request.host_id) == 1
    rig.is_refused(first)
    assert rig.reported(first.host_id) == 2, "it was forgotten by now"


def test_who_is_heard_of_again_is_not_forgotten() -> None:
    rig = Rig()
    first = rig.used("spot-host-first")
    for number in range(REMEMBERED_MAX):
        rig.is_refused(first)
        rig.is_refused(rig.used(f"spot-host-{number:04}"))
    assert rig.reported(first.host_id) == 1


def test_a_token_that_comes_from_ever_other_addresses_fills_no_timeline_and_no_memory() -> None:
    rig = Rig()
    request = rig.launching("spot-host-a")
    sources = [f"2001:db8::{number:x}" for number in range(REMEMBERED_MAX + 1)]
    for source in sources:
        with pytest.raises(TryLater):
            rig.gate.admitted(request, source)
    rig.clock.move(ADDRESS_LIMIT)
    with pytest.raises(TryLater, match="once more"):
        rig.gate.admitted(request, sources[0])  # the oldest is forgotten, and takes the place of the next one
    for source in sources[2:]:
        rig.is_refused(request, source)
    assert rig.reported(request.host_id) == REPORTED_MAX


@pytest.mark.parametrize("source", [OWN, "203.0.113.9", "::ffff:203.0.113.9", "2001:db8:1::7"])
def test_behind_a_nat_that_is_named_a_machine_is_its_own(source: str) -> None:
    rig = Rig(nats=("203.0.113.0/24", "2001:db8:1::/64"))
    request = rig.launching("spot-host-a")
    assert rig.gate.admitted(request, source).id == request.host_id


@pytest.mark.parametrize("source", ["203.0.114.9", "198.51.100.7", "2001:db8:2::7", "10.90.0.17"])
def test_nobody_else_comes_in_because_a_nat_is_named(source: str) -> None:
    rig = Rig(nats=("203.0.113.0/24", "2001:db8:1::/64"))
    request = rig.launching("spot-host-a")
    with pytest.raises(TryLater):
        rig.gate.admitted(request, source)
    rig.clock.move(ADDRESS_LIMIT)
    rig.is_refused(request, source)
    assert rig.reported(request.host_id) == 1


class FaultyStore(MemoryStore):
    """It cannot be reached for one entry of the timeline."""

    is_away = False

    def record(self, *events: Event) -> None:
        if self.is_away:
            FaultyStore.is_away = False
            raise Unreachable("the store does not answer")
        super().record(*events)


def test_what_a_store_did_not_take_is_told_the_next_time() -> None:
    rig = Rig(FaultyStore)
    request = rig.used("spot-host-a")
    FaultyStore.is_away = True
    with pytest.raises(Unreachable):
        rig.gate.admitted(request, OWN)
    rig.is_refused(request)
    rig.is_refused(request)
    assert rig.reported(request.host_id) == 1
