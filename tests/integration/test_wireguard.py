"""The overlay on real wires: one host that anybody reaches, two behind NATs of their own, and the hub between them.

a (10.90.0.16) ─────────────┐
n (192.168.1.2) ── NAT .21 ─┼── underlay ── hub/relay (10.90.0.3) ── internet
m (192.168.1.2) ── NAT .22 ─┘
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.nats import behind_nat
from tests.integration.wires import CALL_LIMIT_S, Guest, Place, Site, echo_server, greet, run
from workers.domain.names import RunnerId, guest_address, monitor_user
from workers.domain.overlay import (
    FIRST_PLACE,
    GUEST_MTU,
    HUB_ADDRESS,
    OVERLAY_NETWORK,
    OVERLAY_PORT,
    Overlay,
    Station,
    peers_of_host,
    peers_of_hub,
    tunnel_mtu,
)
from workers.host.network import HostNetwork
from workers.ports import Forwarding
from workers.relay.network import RelayNetwork
from workers.relay.rules import OverlaySide
from workers.wireguard import Seat, Wireguard

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]

RELAY, HOST_A, INTERNET, RELAY_PUBLIC = "10.90.0.3", "10.90.0.16", "198.18.0.10", "198.18.0.3"


@dataclass
class Machine:
    """One station with its link."""

    name: str
    place: Place
    wireguard: Wireguard
    station: Station

    @property
    def seat(self) -> Seat:
        mtu = tunnel_mtu(1500, Overlay.WIREGUARD)
        return Seat(self.station.address, OVERLAY_NETWORK.prefixlen, OVERLAY_PORT, mtu)

    def prepare(self) -> None:
        self.place.call(self.wireguard.prepare, self.seat)


@dataclass
class World:
    site: Site
    hub: Machine
    hosts: dict[str, Machine]
    internet: Place

    def project(self) -> None:
        """Tell everybody who the others are, as the control plane does from its rows: first those that are dialled.

        Who dials a machine that does not know it yet is not answered, and tries again after five seconds.
        """
        stations = [host.station for host in self.hosts.values()]
        self.hub.place.call(self.hub.wireguard.set_peers, peers_of_hub(stations))
        for host in self.hosts.values():
            host.place.call(host.wireguard.set_peers, peers_of_host(host.station, self.hub.station, stations))


def machine(place: Place, home: Path, name: str, address: str, endpoint: str | None) -> Machine:
    wireguard = Wireguard(f"{name} of {os.getpid()}", home / name)
    one = Machine(name, place, wireguard, Station(wireguard.public_key, address, endpoint))
    one.prepare()
    return one


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    site, home = Site(f"h7w{os.getpid()}"), tmp_path_factory.mktemp("wireguard")
    made: list[Machine] = []
    try:
        relay = site.add("relay", eth0=f"underlay {RELAY}/24", eth1=f"internet {RELAY_PUBLIC}/24")
        internet = site.add("net", eth0=f"internet {INTERNET}/24")
        places = {
            "a": site.add("a", eth0=f"underlay {HOST_A}/24"),
            "n": behind_nat(site, "n", "10.90.0.21"),
            "m": behind_nat(site, "m", "10.90.0.22"),
        }
        hub = machine(relay, home, "hub", HUB_ADDRESS, f"{RELAY}:{OVERLAY_PORT}")
        made.append(hub)
        endpoints = {"a": f"{HOST_A}:{OVERLAY_PORT}", "n": None, "m": None}
        for number, (name, place) in enumerate(places.items()):
            address = str(OVERLAY_NETWORK[FIRST_PLACE + number])
            made.append(machine(place, home, name, address, endpoints[name]))
        world = World(site, hub, {one.name: one for one in made[1:]}, internet)
        entry = Forwarding(RunnerId("spot-runner-0"), 1, guest_address(0), world.hosts["n"].station.address)
        network = RelayNetwork(HUB_ADDRESS, "eth1", (), GUEST_MTU, overlay=OverlaySide(hub.wireguard.name))
        relay.call(network.hold, [entry])
        world.project()
        yield world
    finally:
        for one in made:
            one.place.call(one.wireguard.remove)
        site.remove()


def eventually(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + CALL_LIMIT_S
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.05)


@pytest.mark.parametrize(("caller", "called"), [("a", "n"), ("n", "a"), ("n", "m"), ("m", "n"), ("m", "a")])
def test_every_host_reaches_every_other_whatever_is_between_them(world: World, caller: str, called: str) -> None:
    one, other = world.hosts[caller], world.hosts[called]
    with echo_server(other.place, other.station.address, 7000) as callers:
        greet(one.place, other.station.address, 7000)
        assert callers == [one.station.address]


def crossed(world: World) -> int:
    """How many octets the hub has taken from all hosts."""
    shown = world.hub.place.call(run, "wg", "show", world.hub.wireguard.name, "transfer")
    return sum(int(line.split()[1]) for line in shown.splitlines())


@pytest.mark.parametrize(("caller", "called", "way"), [("n", "a", "direct"), ("a", "m", "direct"), ("n", "m", "hub")])
def test_hosts_that_can_dial_each_other_do_not_burden_the_hub(world: World, caller: str, called: str, way: str) -> None:
    size = 400_000
    one, other = world.hosts[caller], world.hosts[called]
    with echo_server(other.place, other.station.address, 7001):
        greet(one.place, other.station.address, 7001)
        before = crossed(world)
        with closing(one.place.connect(other.station.address, 7001)) as connection:
            connection.sendall(bytes(size))
            heard = 0
            while heard < size:
                heard += len(connection.recv(1 << 16))
        assert (crossed(world) - before < size // 10) is (way == "direct")


def test_a_guest_behind_a_nat_sends_its_longest_packet_to_the_internet(world: World) -> None:
    """VXLAN inside WireGuard inside a NAT, and nothing is cut on the way."""
    n = world.hosts["n"]
    network = HostNetwork(n.station.address, HUB_ADDRESS, GUEST_MTU)
    n.place.call(network.prepare)
    guest = Guest(world.site, "guest", guest_address(0))
    guest.cable.plug(n.place.call(network.open_tap, 0, guest.address, monitor_user(0)))
    n.place.call(network.attach, 0)
    pinged = ["ip", "netns", "exec", guest.place.name, "ping", "-M", "do", "-c", "1", "-W", "5"]
    with closing(n.place.sniff("eth0")) as ear, echo_server(world.internet, INTERNET, 7002) as callers:
        assert "1 received" in run(*pinged, "-s", str(GUEST_MTU - 28), INTERNET)
        greet(guest.place, INTERNET, 7002)
        assert callers == [RELAY_PUBLIC]
        ear.settimeout(1)
        lengths = [len(octets) - 14 for octets in heard(ear)]
    # WireGuard over IPv4 is 20 octets shorter than what is kept free for IPv6, and pads to 16.
    assert 1472 <= max(lengths) <= 1500


def heard(ear: socket.socket) -> Iterator[bytes]:
    ear.setblocking(False)
    while True:
        try:
            yield ear.recv(65536)
        except BlockingIOError:
            return


def test_a_host_s_longest_packet_arrives_whole(world: World) -> None:
    n, a = world.hosts["n"], world.hosts["a"]
    ping = ["ip", "netns", "exec", n.place.name, "ping", "-M", "do", "-c", "1", "-W", "5", a.station.address, "-s"]
    with closing(n.place.sniff("eth0")) as ear:
        assert "1 received" in run(*ping, str(n.seat.mtu - 28))
        longer = subprocess.run([*ping, str(n.seat.mtu - 27)], check=False, capture_output=True, text=True, timeout=30)
        assert max(len(octets) - 14 for octets in heard(ear)) <= 1500
    assert "too long" in longer.stderr


def test_a_stranger_with_a_key_of_his_own_gets_nothing(world: World, tmp_path: Path) -> None:
    """He knows the hub's key and address, and takes an address that a host has."""
    place = world.site.add("stranger", eth0="underlay 10.90.0.66/24")
    stranger = machine(place, tmp_path, "stranger", world.hosts["m"].station.address, None)
    try:
        place.call(stranger.wireguard.set_peers, peers_of_host(stranger.station, world.hub.station, []))
        with pytest.raises(OSError):  # noqa: PT011  silence
            place.connect(HUB_ADDRESS, 7003, 1.0)
        assert place.call(stranger.wireguard.heard) == {world.hub.station.key: 0}
    finally:
        place.call(stranger.wireguard.remove)


def test_a_host_speaks_for_no_address_but_its_own(world: World) -> None:
    n, m, a = world.hosts["n"], world.hosts["m"], world.hosts["a"]
    n.place.ip("address", "add", "10.91.9.9/32", "dev", n.wireguard.name)
    with closing(a.place.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)) as ear:
        ear.bind((a.station.address, 7004))
        ear.settimeout(CALL_LIMIT_S)

        def say(source: str, text: bytes) -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth:
                mouth.bind((source, 0))
                mouth.sendto(text, (a.station.address, 7004))

        n.place.call(say, "10.91.9.9", b"forged")
        n.place.call(say, n.station.address, b"honest")
        assert ear.recvfrom(100)[0] == b"honest"
        m.place.call(say, m.station.address, b"honest, too")
        assert ear.recvfrom(100)[0] == b"honest, too"
    n.place.ip("address", "del", "10.91.9.9/32", "dev", n.wireguard.name)


def test_a_daemon_that_starts_again_finds_its_tunnels_and_breaks_no_connection(world: World) -> None:
    n, a = world.hosts["n"], world.hosts["a"]
    address = a.station.address
    with echo_server(a.place, address, 7005), closing(n.place.connect(address, 7005)) as connection:
        anew = Wireguard(f"n of {os.getpid()}", n.wireguard._home)
        assert anew.public_key == n.station.key
        n.place.call(anew.prepare, n.seat)
        world.project()
        connection.sendall(b"still here")
        assert connection.recv(10) == b"still here"


def test_what_has_ended_is_started_again(world: World) -> None:
    """wireguard-go is a process: it may be killed, and its link goes with it."""
    m, a = world.hosts["m"], world.hosts["a"]
    child = m.wireguard._child
    if child is None:
        pytest.skip("this kernel has WireGuard, so there is no process to kill")
    os.kill(child.pid, signal.SIGKILL)
    child.wait(CALL_LIMIT_S)
    m.prepare()
    assert m.wireguard.public_key == m.station.key
    world.project()
    with echo_server(a.place, a.station.address, 7006):
        greet(m.place, a.station.address, 7006)


def test_a_link_is_removed_with_its_process(world: World, tmp_path: Path) -> None:
    place = world.site.add("brief", eth0="underlay 10.90.0.67/24")
    brief = machine(place, tmp_path, "brief", "10.91.7.7", None)
    child = brief.wireguard._child
    for _ in range(2):
        place.call(brief.wireguard.remove)
    assert brief.wireguard.name not in place.ip("link")
    assert child is None or child.poll() is not None
    assert (tmp_path / "brief" / "wireguard.key").stat().st_mode & 0o777 == 0o600
