"""Places on the overlay: one machine, one key, one address, on every store."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from tests.contract.store_rows import WholeStore, a_host
from workers.domain.errors import Refused
from workers.domain.host import HostState
from workers.domain.names import HostId
from workers.domain.overlay import HUB_ADDRESS, Station

A, B, C = (HostId(name) for name in ("spot-host-a", "spot-host-b", "spot-host-c"))


def key(number: int) -> str:
    return base64.b64encode(bytes([number]) * 32).decode()


@pytest.fixture(autouse=True)
def _preparing(store: WholeStore) -> None:
    for name in (A, B, C):
        store.hosts.add(a_host(name, state=HostState.PREPARING))


def end(store: WholeStore, name: HostId) -> None:
    with store.hosts.lease(name) as lease:
        lease.write(replace(lease.row, state=HostState.TERMINATED))


def test_each_host_has_an_address_of_its_own_and_keeps_it(store: WholeStore) -> None:
    first = store.seat(A, key(1), "192.0.2.1:51820")
    second = store.seat(B, key(2), None)
    assert first == Station(key(1), "10.91.0.16", "192.0.2.1:51820")
    assert second == Station(key(2), "10.91.0.17", None)
    assert store.seat(A, key(1), None) == replace(first, endpoint=None)
    assert store.stations() == {A: replace(first, endpoint=None), B: second}


def test_a_key_is_good_for_one_machine(store: WholeStore) -> None:
    seated = store.seat(A, key(1), None)
    with pytest.raises(Refused, match="another machine"):
        store.seat(B, key(1), None)
    assert store.stations() == {A: seated}


def test_nobody_takes_the_hub_s_key_or_address(store: WholeStore) -> None:
    hub = store.note_hub(key(9), "192.0.2.9:51820")
    with pytest.raises(Refused, match="another machine"):
        store.seat(A, key(9), None)
    assert store.seat(A, key(1), None).address != HUB_ADDRESS
    assert store.hub() == hub == Station(key(9), HUB_ADDRESS, "192.0.2.9:51820")
    assert A in store.stations()
    assert len(store.stations()) == 1, "the hub is no host"


def test_a_hub_that_was_made_anew_takes_the_place_of_the_former(store: WholeStore) -> None:
    assert store.hub() is None
    store.note_hub(key(8), "192.0.2.8:51820")
    assert store.note_hub(key(9), "192.0.2.9:51820") == store.hub()


@pytest.mark.parametrize("state", [HostState.READY, HostState.DRAINING, HostState.LOST, HostState.TERMINATING])
def test_a_host_keeps_its_place_until_its_machine_has_ended(store: WholeStore, state: HostState) -> None:
    store.seat(A, key(1), None)
    with store.hosts.lease(A) as lease:
        lease.write(replace(lease.row, state=state))
    assert list(store.stations()) == [A]
    assert store.seat(B, key(2), None).address == "10.91.0.17"


def test_a_terminated_host_is_nobody_s_peer_and_its_place_is_free(store: WholeStore) -> None:
    store.seat(A, key(1), None)
    store.seat(B, key(2), None)
    end(store, A)
    assert list(store.stations()) == [B]
    assert store.seat(C, key(3), None).address == "10.91.0.16"
    assert list(store.stations()) == [B, C]


def test_of_many_at_once_no_two_have_one_address(store: WholeStore) -> None:
    names = [HostId(f"spot-host-{number}") for number in range(16)]
    for name in names:
        store.hosts.add(a_host(name, state=HostState.PREPARING))
    with ThreadPoolExecutor(8) as pool:
        seated = list(pool.map(lambda place: store.seat(names[place], key(place + 100), None), range(16)))
    assert sorted(int(one.address.rpartition(".")[2]) for one in seated) == list(range(16, 32))
    assert set(store.stations().values()) == set(seated)
