"""What a guest may send, seen on the wires of real namespaces."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.integration import wires
from tests.integration.hostile6 import HOSTILE6
from tests.integration.neighbourhood import (
    CONTROL,
    CONTROL6,
    FAR,
    HOST6_A,
    HOST6_B,
    HOST_A,
    HOST_B,
    INTERNET,
    INTERNET6,
    MARK,
    ME,
    METADATA,
    METADATA6,
    NEIGHBOUR,
    RELAY,
    RELAY6,
    RELAY6_PUBLIC,
    RELAY_PUBLIC,
    World,
    drain,
    entry,
    guarded_world,
    heard_until,
)
from tests.integration.wires import Guest, Place, arp, echo_server, ether, frame, greet, hears, udp
from workers.domain.errors import Bug, TryLater
from workers.domain.names import FIRST_USER, GATEWAY, GATEWAY6, GATEWAY_MAC, guest_address, monitor_user
from workers.host.network import BRIDGE_MAC, HostNetwork
from workers.relay.network import RelayNetwork

pytestmark = pytest.mark.root

BROADCAST = "ff:ff:ff:ff:ff:ff"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with guarded_world("h7g") as world:
        yield world


HOSTILE = {
    "foreign MAC": ether(NEIGHBOUR.mac, GATEWAY_MAC, 0x0800, udp(ME.ip, INTERNET, MARK)),
    "foreign IP": ether(ME.mac, GATEWAY_MAC, 0x0800, udp(NEIGHBOUR.ip, INTERNET, MARK)),
    "the neighbour's MAC and IP": frame(NEIGHBOUR, INTERNET, MARK),
    "ARP in the neighbour's name": ether(ME.mac, BROADCAST, 0x0806, arp(ME.mac, NEIGHBOUR.ip, GATEWAY) + MARK),
    "ARP with the neighbour's MAC inside": ether(
        ME.mac, BROADCAST, 0x0806, arp(NEIGHBOUR.mac, NEIGHBOUR.ip, GATEWAY) + MARK
    ),
    "gratuitous ARP for the neighbour": ether(
        ME.mac, BROADCAST, 0x0806, arp(ME.mac, NEIGHBOUR.ip, NEIGHBOUR.ip, operation=2) + MARK
    ),
    "gratuitous ARP for the gateway": ether(
        ME.mac, BROADCAST, 0x0806, arp(ME.mac, GATEWAY, GATEWAY, operation=2) + MARK
    ),
    "ARP answer to the neighbour": ether(
        ME.mac, NEIGHBOUR.mac, 0x0806, arp(ME.mac, GATEWAY, NEIGHBOUR.ip, operation=2) + MARK
    ),
    "RARP announcement": ether(ME.mac, BROADCAST, 0x8035, arp(ME.mac, ME.ip, ME.ip, operation=3) + MARK),
    "RARP for the neighbour": ether(
        NEIGHBOUR.mac, BROADCAST, 0x8035, arp(NEIGHBOUR.mac, NEIGHBOUR.ip, NEIGHBOUR.ip, operation=3) + MARK
    ),
    "DHCP offer": ether(ME.mac, BROADCAST, 0x0800, udp(ME.ip, "255.255.255.255", MARK, sport=67, dport=68)),
    "DHCP offer to the gateway": frame(ME, INTERNET, MARK, sport=67, dport=68),
    "VLAN tag": ether(ME.mac, GATEWAY_MAC, 0x8100, struct.pack("!HH", 5, 0x0800) + udp(ME.ip, INTERNET, MARK)),
    "VLAN priority tag": ether(ME.mac, GATEWAY_MAC, 0x8100, struct.pack("!HH", 0, 0x0800) + udp(ME.ip, INTERNET, MARK)),
    "double VLAN tag": ether(
        ME.mac, GATEWAY_MAC, 0x88A8, struct.pack("!HHHH", 5, 0x8100, 5, 0x0800) + udp(ME.ip, INTERNET, MARK)
    ),
    "spanning tree": ether(ME.mac, "01:80:c2:00:00:00", 0x0026, b"\x42\x42\x03" + MARK),
    "metadata service": frame(ME, METADATA, MARK, dport=80),
    "loopback": frame(ME, "127.0.0.1", MARK),
    "from loopback": ether(ME.mac, GATEWAY_MAC, 0x0800, udp("127.0.0.1", INTERNET, MARK)),
    "from metadata": ether(ME.mac, GATEWAY_MAC, 0x0800, udp(METADATA, INTERNET, MARK)),
    "multicast": ether(ME.mac, "01:00:5e:00:00:fb", 0x0800, udp(ME.ip, "224.0.0.251", MARK)),
    "broadcast": ether(ME.mac, BROADCAST, 0x0800, udp(ME.ip, "255.255.255.255", MARK)),
    "to the bridge's MAC": ether(ME.mac, BRIDGE_MAC, 0x0800, udp(ME.ip, HOST_A, MARK)),
    "to the neighbour's MAC": ether(ME.mac, NEIGHBOUR.mac, 0x0800, udp(ME.ip, NEIGHBOUR.ip, MARK)),
    "to a far guest's MAC": ether(ME.mac, FAR.mac, 0x0800, udp(ME.ip, FAR.ip, MARK)),
    "to the neighbour through the gateway": frame(ME, NEIGHBOUR.ip, MARK),
    "a foreign protocol": ether(ME.mac, GATEWAY_MAC, 0x88B5, MARK),
    **HOSTILE6,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_frame_leaves_its_tap_for_nowhere(world: World, kind: str) -> None:
    last = os.urandom(16)
    with (
        closing(world.host_a.sniff("vx-relay")) as uplink,
        closing(world.host_a.sniff("guests")) as bridge,
        closing(world.neighbour.place.sniff("eth0")) as neighbour,
    ):
        world.me.send_frame(HOSTILE[kind])
        world.me.send_frame(frame(ME, INTERNET, last))
        heard = [*heard_until(uplink, last), *drain(neighbour), *drain(bridge)]
        assert not [each for each in heard if MARK in each]


SEEN_WITHOUT = (
    *("foreign MAC", "to the bridge's MAC", "VLAN tag", "ARP in the neighbour's name"),
    *("router advertisement", "neighbour advertisement to the neighbour", "IPv6 as the neighbour", "routing header"),
)


@pytest.mark.parametrize("kind", SEEN_WITHOUT)
def test_without_the_filter_the_same_frame_would_be_heard(world: World, kind: str) -> None:
    """The control of the test above: it hears what the filter does not stop."""
    last = os.urandom(16)
    with closing(world.host_a.sniff("tap0")) as tap:
        world.me.send_frame(HOSTILE[kind])
        world.me.send_frame(frame(ME, INTERNET, last))
        assert [each for each in heard_until(tap, last) if MARK in each]


def test_behind_a_broken_filter_the_bridge_still_keeps_guests_apart(world: World) -> None:
    """The bridge neither carries frames between guests nor learns where somebody claims to be."""
    a = world.host_a
    a.call(wires.run, "nft", "delete", "table", "netdev", "spot_tap0")
    try:
        last = os.urandom(16)
        with closing(a.sniff("vx-relay")) as uplink, closing(world.neighbour.place.sniff("eth0")) as neighbour:
            for kind in ("to the neighbour's MAC", "ARP answer to the neighbour", "broadcast", "multicast"):
                world.me.send_frame(HOSTILE[kind])
            world.me.send_frame(HOSTILE["foreign MAC"])
            world.me.send_frame(frame(ME, INTERNET, last))
            heard_until(uplink, last)
            assert not [each for each in drain(neighbour) if MARK in each]
        assert NEIGHBOUR.mac not in run_in(a, "bridge", "fdb", "show", "brport", "tap0")
        with echo_server(world.internet, INTERNET, 7003):
            world.neighbour.place.connect(INTERNET, 7003).close()
    finally:
        assert a.call(world.network_a.adopt) == {0, 1}
    test_a_hostile_frame_leaves_its_tap_for_nowhere(world, "broadcast")


def run_in(place: Place, *command: str) -> str:
    return place.call(wires.run, *command)


def test_a_flood_of_arp_is_cut(world: World) -> None:
    last = os.urandom(16)
    question = ether(ME.mac, BROADCAST, 0x0806, arp(ME.mac, ME.ip, GATEWAY) + MARK)
    with closing(world.host_a.sniff("vx-relay")) as uplink:
        for _ in range(2000):
            world.me.send_frame(question)
        world.me.send_frame(frame(ME, INTERNET, last))
        assert len([each for each in heard_until(uplink, last) if MARK in each]) < 1000


@pytest.mark.parametrize(("there", "seen"), [(INTERNET, RELAY_PUBLIC), (INTERNET6, RELAY6_PUBLIC)])
def test_guests_reach_the_internet_with_the_relays_address(world: World, there: str, seen: str) -> None:
    with echo_server(world.internet, there, 7000) as callers:
        for guest in (world.me, world.neighbour, world.far):
            with closing(guest.place.connect(there, 7000)) as connection:
                connection.sendall(b"hello" * 10000)
                assert connection.recv(1)
        assert callers == [seen] * 3


@pytest.mark.parametrize("gateway", [GATEWAY, GATEWAY6])
def test_the_gateway_answers_a_ping(world: World, gateway: str) -> None:
    assert "1 received" in world.me.place.call(
        wires.run, "ip", "netns", "exec", world.me.place.name, "ping", "-c1", "-W5", gateway
    )


UNREACHABLE = {
    "the host": ("host_a", HOST_A),
    "another host": ("host_b", HOST_B),
    "the host's metadata service": ("host_a", METADATA),
    "the relay's metadata service": ("relay", METADATA),
    "the relay on the underlay": ("relay", RELAY),
    "the relay's public address": ("relay", RELAY_PUBLIC),
    "the relay's gateway address": ("relay", GATEWAY),
    "the control plane": ("control", CONTROL),
    "the neighbour": ("neighbour", NEIGHBOUR.ip),
    "a guest on another host": ("far", FAR.ip),
    "the host, IPv6": ("host_a", HOST6_A),
    "another host, IPv6": ("host_b", HOST6_B),
    "the host's metadata service, IPv6": ("host_a", METADATA6),
    "the relay's metadata service, IPv6": ("relay", METADATA6),
    "the relay on the underlay, IPv6": ("relay", RELAY6),
    "the relay's public address, IPv6": ("relay", RELAY6_PUBLIC),
    "the relay's gateway address, IPv6": ("relay", GATEWAY6),
    "the control plane, IPv6": ("control", CONTROL6),
    "the neighbour, IPv6": ("neighbour", NEIGHBOUR.ip6),
    "a guest on another host, IPv6": ("far", FAR.ip6),
}


@pytest.mark.parametrize("whom", UNREACHABLE)
@pytest.mark.parametrize("trick", ["", "neighbour entry", "on-link route"])
def test_a_guest_reaches_nothing_of_ours(world: World, whom: str, trick: str) -> None:
    where, address = UNREACHABLE[whom]
    there = getattr(world, where)
    place = there.place if isinstance(there, Guest) else there
    owner_mac = there.address.mac if isinstance(there, Guest) else BRIDGE_MAC
    me = world.me.place
    if trick:
        me.ip("neigh", "replace", address, "lladdr", owner_mac, "dev", "eth0", "nud", "permanent")
    if trick == "on-link route":
        me.ip("route", "replace", address, "dev", "eth0")
    try:
        with echo_server(place, address, 8445) as callers:
            greet(place, address, 8445)
            assert not hears(me, address, 8445)
            assert len(callers) == 1, "only the listener's own proof of life came through"
    finally:
        if trick:
            me.ip("neigh", "del", address, "dev", "eth0")
        if trick == "on-link route":
            me.ip("route", "del", address, "dev", "eth0")


def test_a_migration_port_admits_its_peer_alone(world: World) -> None:
    a = world.host_a
    with echo_server(a, HOST_A, 49200), echo_server(a, HOST_A, 49201):
        for place in (world.host_b, world.control):
            with pytest.raises(TimeoutError):
                place.connect(HOST_A, 49200, 0.7)
        a.call(world.network_a.admit, 49200, HOST_B)
        a.call(world.network_a.admit, 49200, HOST_B)
        world.host_b.connect(HOST_A, 49200).close()
        for place, port in ((world.control, 49200), (world.host_b, 49201)):
            with pytest.raises(TimeoutError):
                place.connect(HOST_A, port, 0.7)
        a.call(world.network_a.dismiss, 49200)
        a.call(world.network_a.dismiss, 49200)
        with pytest.raises(TimeoutError):
            world.host_b.connect(HOST_A, 49200, 0.7)


def test_only_migration_ports_are_admitted(world: World) -> None:
    with pytest.raises(Bug, match="8444"):
        world.network_a.admit(8444, HOST_B)


CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5).close()"


def reaches(place: Place, user: int, address: str, port: int) -> bool:
    as_user = ["setpriv", f"--reuid={user}", "--clear-groups", "--no-new-privs", "/usr/bin/python3", "-c", CONNECT]
    command = ["ip", "netns", "exec", place.name, *as_user, address, str(port)]
    return subprocess.run(command, check=False, capture_output=True, timeout=30).returncode == 0


def test_a_monitor_reaches_what_a_migration_needs_and_nothing_else(world: World) -> None:
    a, b = world.host_a, world.host_b
    for port in (49210, 49211):
        b.call(world.network_b.admit, port, HOST_A)
    a.call(world.network_a.approach, 0, HOST_B, (49210,))
    with (
        echo_server(b, HOST_B, 49210),
        echo_server(b, HOST_B, 49211),
        echo_server(a, METADATA, 80),
        echo_server(world.control, CONTROL, 8443),
    ):
        for address, port, allowed in ((HOST_B, 49210, True), (METADATA, 80, False), (CONTROL, 8443, False)):
            assert reaches(a, 0, address, port), "the daemon reaches all three"
            assert reaches(a, monitor_user(0), address, port) is allowed
            assert not reaches(a, monitor_user(65000), address, port), "it is not its migration"
        assert not reaches(a, monitor_user(0), HOST_B, 49211), "that port is another migration's"
        a.call(HostNetwork(HOST_A, RELAY).prepare)
        assert reaches(a, monitor_user(0), HOST_B, 49210), "a restarted daemon cuts nobody off"
        assert not reaches(a, 1000, METADATA, 80)
        assert reaches(a, FIRST_USER - 1, CONTROL, 8443), "other users of the host are left alone"
        a.call(world.network_a.withdraw, 0)
        assert not reaches(a, monitor_user(0), HOST_B, 49210)
    for port in (49210, 49211):
        b.call(world.network_b.dismiss, port)


CONNECT_FROM = """
import socket, sys
with socket.socket() as one:
    one.settimeout(3)
    one.bind(("", int(sys.argv[3])))
    try:
        one.connect((sys.argv[1], int(sys.argv[2])))
    except TimeoutError:
        sys.exit("nobody refused it, so it went out")
    except OSError:
        print("refused here")
"""


def test_a_monitor_opens_no_connection_from_a_migration_port(world: World) -> None:
    """It may answer from there; a first word of its own would reach any port of a peer that lets it in."""
    as_user = ["setpriv", f"--reuid={monitor_user(0)}", "--clear-groups", "--no-new-privs"]
    attempt = [*as_user, "/usr/bin/python3", "-c", CONNECT_FROM, CONTROL, "8443", "49987"]
    with echo_server(world.control, CONTROL, 8443):
        found = subprocess.run(
            ["ip", "netns", "exec", world.host_a.name, *attempt],
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
        )
    assert found.stdout == "refused here\n", found.stderr


def test_strangers_cannot_put_frames_into_the_tunnel(world: World) -> None:
    """Only the relay's tunnel is taken, so nobody in the cloud's network plays the gateway."""
    injected = struct.pack("!BBHI", 8, 0, 0, 77 << 8) + ether(GATEWAY_MAC, ME.mac, 0x0800, udp(INTERNET, ME.ip, MARK))

    def inject(source: Place, text: bytes) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
            sending.sendto(injected.replace(MARK, text), (HOST_A, 4789))

    with closing(world.me.place.sniff("eth0")) as ear:
        world.control.call(inject, world.control, b"stranger" * 4 + b"1234")
        world.relay.call(inject, world.relay, MARK)
        assert not [each for each in heard_until(ear, MARK) if b"stranger" in each]


def test_a_restarted_daemon_finds_what_it_left(world: World) -> None:
    a = world.host_a
    a.call(world.network_a.admit, 49300, HOST_B)
    anew = HostNetwork(HOST_A, RELAY)
    with echo_server(world.internet, INTERNET, 7001), closing(world.me.place.connect(INTERNET, 7001)) as connection:
        a.call(anew.prepare)
        assert a.call(anew.adopt) == {0, 1}
        connection.sendall(b"still here")
        assert connection.recv(100) == b"still here"
    with echo_server(a, HOST_A, 49300):
        world.host_b.connect(HOST_A, 49300).close()
        a.call(anew.dismiss, 49300)
        with pytest.raises(TimeoutError):
            world.host_b.connect(HOST_A, 49300, 0.7)
    test_a_hostile_frame_leaves_its_tap_for_nowhere(world, "the neighbour's MAC and IP")


def test_a_tap_that_is_held_is_not_given_twice(world: World) -> None:
    with pytest.raises(TryLater, match="tap0"):
        world.host_a.call(world.network_a.open_tap, 0, ME, monitor_user(0))


def test_a_tap_is_deaf_and_dumb_until_it_is_attached_and_nothing_is_left_of_it(world: World) -> None:
    guest = Guest(world.site, "g5", guest_address(5))
    a, network = world.host_a, world.network_a
    world.relay.call(RelayNetwork(RELAY, "eth1", ()).change, None, entry(5, HOST_A))
    tap = a.call(network.open_tap, 5, guest.address, monitor_user(5))
    guest.cable.plug(tap)
    with echo_server(world.internet, INTERNET, 7002) as callers:
        assert not hears(guest.place, INTERNET, 7002)
        a.call(network.attach, 5)
        a.call(network.attach, 5)
        greet(guest.place, INTERNET, 7002)
        a.call(network.detach, 5)
        a.call(network.detach, 5)
        assert not hears(guest.place, INTERNET, 7002)
        assert len(callers) == 1
    a.call(network.close, 5)
    a.call(network.close, 5)
    a.call(network.detach, 5)
    assert "tap5" not in a.ip("link")
    assert "tap5" not in a.call(wires.run, "nft", "list", "ruleset")
    guest.cable.end()
