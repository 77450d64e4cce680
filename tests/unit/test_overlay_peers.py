"""Who speaks to whom on the overlay: both sides of a pair always choose the same way."""

from __future__ import annotations

import base64
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.domain.errors import BadInput, TryLater
from workers.domain.overlay import (
    FIRST_PLACE,
    HUB_ADDRESS,
    OVERLAY_NETWORK,
    Peer,
    Station,
    checked_station,
    free_address,
    peers_of_host,
    peers_of_hub,
)


def station(place: int, endpoint: str | None) -> Station:
    return Station(base64.b64encode(bytes([place]) * 32).decode(), str(OVERLAY_NETWORK[place]), endpoint)


HUB = Station(base64.b64encode(bytes(32)).decode(), HUB_ADDRESS, "192.0.2.1:51820")
stations = st.lists(st.booleans(), max_size=12).map(
    lambda reachable: [
        station(FIRST_PLACE + number, f"192.0.2.{number + 2}:51820" if is_reachable else None)
        for number, is_reachable in enumerate(reachable)
    ]
)


def way(peers: tuple[Peer, ...], address: str) -> str:
    """The key that a packet to this address is sealed for: the narrowest network wins."""
    target = ipaddress.IPv4Address(address)
    fitting = [(ipaddress.IPv4Network(one), peer.key) for peer in peers for one in peer.allowed]
    return max((network.prefixlen, key) for network, key in fitting if target in network)[1]


@given(stations)
def test_a_packet_and_its_answer_take_the_same_way(all_stations: list[Station]) -> None:
    """Else WireGuard drops the answer: it takes an address from nobody but the peer that it would send it to."""
    for one in all_stations:
        for other in all_stations:
            if one != other:
                there = way(peers_of_host(one, HUB, all_stations), other.address)
                back = way(peers_of_host(other, HUB, all_stations), one.address)
                is_direct = (there, back) == (other.key, one.key)
                assert is_direct or there == back == HUB.key
                assert is_direct == (one.endpoint is not None or other.endpoint is not None)


@given(stations)
def test_whoever_cannot_be_dialled_dials_and_keeps_its_tunnels_open(all_stations: list[Station]) -> None:
    for one in all_stations:
        for peer in peers_of_host(one, HUB, all_stations):
            assert peer.endpoint is not None or one.endpoint is not None
            assert (peer.keepalive_s is not None) == (one.endpoint is None)


@given(stations)
def test_the_hub_takes_from_each_host_its_own_address_alone(all_stations: list[Station]) -> None:
    peers = peers_of_hub(all_stations)
    assert {(peer.key, peer.allowed) for peer in peers} == {(one.key, (f"{one.address}/32",)) for one in all_stations}


def test_addresses_are_given_out_from_the_lowest_and_never_twice() -> None:
    taken: list[str] = [HUB_ADDRESS]
    for _ in range(3):
        taken.append(free_address(taken))
    assert taken[1:] == ["10.91.0.16", "10.91.0.17", "10.91.0.18"]
    assert free_address([HUB_ADDRESS, "10.91.0.16", "10.91.0.18"]) == "10.91.0.17"
    with pytest.raises(TryLater, match="in use"):
        free_address(str(one) for one in OVERLAY_NETWORK)


@pytest.mark.parametrize(
    ("key", "endpoint", "field"),
    [
        ("", None, "key"),
        ("AAAA", None, "key"),
        ("not base64 at all, but of a fitting length.=", None, "key"),
        (HUB.key + "\nEndpoint = 192.0.2.9:1", None, "key"),
        (HUB.key, "192.0.2.1", "endpoint"),
        (HUB.key, "example.org:51820", "endpoint"),
        (HUB.key, "192.0.2.1:0", "endpoint"),
        (HUB.key, "192.0.2.1:51820\nPublicKey = x", "endpoint"),
        (HUB.key, "192.0.2.1:51820\n", "endpoint"),
        (HUB.key, "2001:db8::1:51820", "endpoint"),
        (HUB.key, "[fe80::1%x\nPublicKey = x]:51820", "endpoint"),
    ],
)
def test_what_makes_no_sense_is_refused_and_named(key: str, endpoint: str | None, field: str) -> None:
    with pytest.raises(BadInput, match=f"^{field}: "):
        checked_station(Station(key, "10.91.0.16", endpoint))


@pytest.mark.parametrize("endpoint", [None, "192.0.2.1:51820", "[2001:db8::1]:51820"])
def test_what_makes_sense_is_taken(endpoint: str | None) -> None:
    assert checked_station(Station(HUB.key, "10.91.0.16", endpoint)).endpoint == endpoint
