"""How long a guest's packets may be, how many it may send, and how much it may hold open."""

from __future__ import annotations

import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from tests.integration.neighbourhood import (
    HOST_A,
    INTERNET,
    INTERNET6,
    RELAY,
    World,
    drain,
    guarded_world,
)
from tests.integration.wires import CALL_LIMIT_S, Guest, Place, echo_server
from workers.domain.errors import Unfit
from workers.domain.overlay import UNDERLAY_MTU, VXLAN_OCTETS, Overlay, guest_mtu
from workers.host.network import HostNetwork
from workers.host.rules import BURST_KBYTES
from workers.links import BURST_OCTETS

pytestmark = pytest.mark.root

MTU = guest_mtu(UNDERLAY_MTU, Overlay.PLAIN)
CONNECTIONS_MAX, MBIT = 32, 40
SYN, ACK = 0x02, 0x10
HEADERS = {INTERNET: 28, INTERNET6: 48}
BOTH = pytest.mark.parametrize("there", [INTERNET, INTERNET6])


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with guarded_world("h7m", MTU, CONNECTIONS_MAX, MBIT) as world:
        yield world


def ping(guest: Guest, there: str, octets: int) -> subprocess.CompletedProcess[str]:
    """Send one packet of this length that nobody may cut."""
    words = ["ping", "-M", "do", "-c", "1", "-W", "5", "-s", str(octets - HEADERS[there]), there]
    command = ["ip", "netns", "exec", guest.place.name, *words]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=CALL_LIMIT_S)


@BOTH
def test_the_longest_packet_arrives_whole_and_fills_the_path(world: World, there: str) -> None:
    with closing(world.host_a.sniff("eth0")) as ear:
        assert ping(world.me, there, MTU).returncode == 0
        assert "too long" in ping(world.me, there, MTU + 1).stderr
        heard = [octets[14:] for octets in drain(ear)]
    assert not [packet for packet in heard if is_fragment(packet)]
    assert max(map(len, heard)) == UNDERLAY_MTU


def is_fragment(packet: bytes) -> bool:
    return packet[0] >> 4 == 4 and bool(struct.unpack_from("!H", packet, 6)[0] & 0x3FFF)


@BOTH
def test_a_careless_network_inside_a_guest_hears_of_the_right_segment(world: World, there: str) -> None:
    """A container's bridge has 1500 octets by default and says so to its peers, who may never hear that it is wrong."""
    world.me.place.ip("link", "set", "eth0", "mtu", "1500")
    wanted = MTU - (40 if there == INTERNET else 60)
    try:
        with (
            echo_server(world.internet, there, 7100),
            closing(world.internet.sniff("eth0")) as far,
            closing(world.me.place.sniff("eth0")) as near,
        ):
            with closing(world.me.place.connect(there, 7100)) as connection:
                assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) <= wanted
                connection.settimeout(CALL_LIMIT_S)
                connection.sendall(bytes(100_000))
                assert connection.recv(1)
            assert segments_offered(drain(far), SYN) == {wanted}
            assert segments_offered(drain(near), SYN | ACK) == {wanted}
    finally:
        world.me.place.ip("link", "set", "eth0", "mtu", str(MTU))


def segments_offered(frames: Iterator[bytes], flags: int) -> set[int]:
    """The maximum segment sizes in everything with these flags that was heard."""
    found = set()
    for octets in frames:
        tcp = octets[14 + (20 if octets[12:14] == b"\x08\x00" else 40) :]
        is_tcp = octets[12:14] in {b"\x08\x00", b"\x86\xdd"} and len(tcp) >= 24 and tcp[13] & (SYN | ACK) == flags
        if is_tcp and tcp[20:22] == b"\x02\x04":
            found.add(struct.unpack_from("!H", tcp, 22)[0])
    return found


def test_a_path_that_is_too_narrow_is_refused_in_words(world: World) -> None:
    world.host_a.ip("link", "set", "eth0", "mtu", "1400")
    try:
        with pytest.raises(Unfit, match=f"carries packets of 1400 octets, and guests' packets of {MTU} need 1500"):
            world.host_a.call(HostNetwork(HOST_A, RELAY, MTU).prepare)
    finally:
        world.host_a.ip("link", "set", "eth0", "mtu", str(MTU + VXLAN_OCTETS))


@BOTH
def test_a_guest_holds_so_many_connections_and_its_neighbour_has_its_own(world: World, there: str) -> None:
    with echo_server(world.internet, there, 7101), ExitStack() as ends:
        held = [ends.enter_context(one) for one in connections(world.me.place, there, CONNECTIONS_MAX + 8)]
        assert 0 < len(held) <= CONNECTIONS_MAX
        neighbours = [ends.enter_context(one) for one in connections(world.neighbour.place, there, 8)]
        assert len(neighbours) == 8
        ends.close()
        until = time.monotonic() + CALL_LIMIT_S
        while not (again := list(connections(world.me.place, there, 1))):
            assert time.monotonic() < until, "what is closed is given back"
        again[0].close()


def connections(place: Place, there: str, count: int) -> Iterator[socket.socket]:
    """Open so many, leaving out those that are refused."""
    for _ in range(count):
        try:
            yield place.connect(there, 7101)
        except ConnectionRefusedError:  # told at once, not by silence
            continue


@pytest.mark.parametrize("way", ["sent by a guest", "sent to a guest"])
def test_no_more_than_a_guest_s_share_crosses_its_tap_each_way(world: World, way: str) -> None:
    a_second = MBIT * 125 * 1024
    size = 3 * a_second
    at_least_s = (size - a_second - (BURST_KBYTES << 10) - BURST_OCTETS) / a_second
    with (
        closing(world.internet.listen(INTERNET, 7102)) as listening,
        closing(world.me.place.connect(INTERNET, 7102)) as near,
        closing(listening.accept()[0]) as far,
    ):
        ends = (near, far) if way == "sent by a guest" else (far, near)
        assert passed_on(*ends, size) > at_least_s


def passed_on(source: socket.socket, target: socket.socket, size: int) -> float:
    """Send so many octets from one end to the other; return the seconds until all had come."""
    target.settimeout(CALL_LIMIT_S)
    source.settimeout(CALL_LIMIT_S)
    began, missing = time.monotonic(), size
    sending = threading.Thread(target=source.sendall, args=(bytes(size),), daemon=True)
    sending.start()
    while missing:
        piece = target.recv(1 << 16)
        assert piece, "the connection ended"
        missing -= len(piece)
    sending.join(CALL_LIMIT_S)
    return time.monotonic() - began
