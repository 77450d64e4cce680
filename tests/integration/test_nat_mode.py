"""Guests that leave through their host: what they reach, and how their connections end when they move."""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import pytest

from guest_agent.sockets import reset_connections
from tests.integration.wires import CALL_LIMIT_S, Guest, Place, Site, echo_server, greet, run
from workers.domain.names import GATEWAY, GATEWAY6, guest_address, monitor_user
from workers.domain.overlay import GUEST_MTU, GuestNetwork
from workers.host.network import HostNetwork

pytestmark = pytest.mark.root

RELAY, INTERNET, INTERNET6, FORBIDDEN = "10.90.0.3", "198.18.0.10", "2001:db8:18::10", "198.18.0.2"
CONNECTIONS_MAX = 24
METADATA, METADATA6 = "169.254.169.254", "fd00:ec2::254"
AT_ONCE_S = 1.0
"""Far below the minutes for which TCP would go on trying, far above what a busy machine needs."""


@dataclass
class Host:
    place: Place
    network: HostNetwork
    number: int

    @property
    def public(self) -> str:
        return f"198.18.0.{self.number}"

    @property
    def public6(self) -> str:
        return f"2001:db8:18::{self.number}"

    @property
    def underlay(self) -> str:
        return f"10.90.0.{self.number}"

    def open(self, number: int) -> int:
        address, user = guest_address(number), monitor_user(number)
        return self.place.call(self.network.open_tap, number, address, user, GuestNetwork.NAT)


@dataclass
class World:
    site: Site
    a: Host
    b: Host
    internet: Place
    names: Iterator[int] = field(default_factory=itertools.count)

    @contextmanager
    def guest(self, number: int) -> Iterator[Guest]:
        """A guest that is on a when it comes, and nowhere in the end."""
        guest = Guest(self.site, f"g{next(self.names)}", guest_address(number))
        guest.cable.plug(self.a.open(number))
        self.a.place.call(self.a.network.attach, number)
        try:
            yield guest
        finally:
            guest.cable.end()
            for host in (self.a, self.b):
                host.place.call(host.network.close, number)

    def move(self, guest: Guest, number: int) -> None:
        tap, former = self.b.open(number), guest.cable.host_end
        guest.cable.freeze()
        self.a.place.call(self.a.network.detach, number)
        self.b.place.call(self.b.network.attach, number)
        guest.cable.plug(tap)
        self.a.place.call(self.a.network.close, number)
        assert former is not None
        os.close(former)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    site = Site(f"h7n{os.getpid()}")
    try:
        hosts = []
        for name, number in (("a", 16), ("b", 17)):
            public = f"internet 198.18.0.{number}/24 2001:db8:18::{number}/64"
            place = site.add(name, eth0=f"underlay 10.90.0.{number}/24", eth1=public)
            for address in (f"{METADATA}/32", f"{METADATA6}/128"):
                place.ip("address", "add", address, "dev", "lo")
            network = HostNetwork(
                f"10.90.0.{number}", RELAY, forbidden=[f"{FORBIDDEN}/32"], connections_max=CONNECTIONS_MAX
            )
            place.call(network.prepare)
            hosts.append(Host(place, network, number))
        internet = site.add("net", eth0=f"internet {INTERNET}/24 {INTERNET6}/64")
        internet.ip("address", "add", f"{FORBIDDEN}/24", "dev", "eth0")
        yield World(site, hosts[0], hosts[1], internet)
    finally:
        site.remove()


@pytest.mark.parametrize("there", [INTERNET, INTERNET6])
def test_a_guest_leaves_with_its_host_s_address(world: World, there: str) -> None:
    with world.guest(0) as guest, echo_server(world.internet, there, 7000) as callers:
        greet(guest.place, there, 7000)
        assert callers == [world.a.public if there == INTERNET else world.a.public6]


@pytest.mark.parametrize("there", [INTERNET, INTERNET6])
def test_a_client_that_speaks_after_a_move_is_reset_at_once_and_may_call_again(world: World, there: str) -> None:
    with world.guest(1) as guest, echo_server(world.internet, there, 7001) as callers:
        with closing(guest.place.connect(there, 7001)) as connection:
            connection.sendall(b"before")
            assert connection.recv(6) == b"before"
            world.move(guest, 1)
            with a_silent_far_end(world):
                began = time.monotonic()
                with pytest.raises(ConnectionResetError):
                    speak_until_told(connection)
                assert time.monotonic() - began < AT_ONCE_S
        greet(guest.place, there, 7001)
        assert callers[-1] == (world.b.public if there == INTERNET else world.b.public6)


@contextmanager
def a_silent_far_end(world: World) -> Iterator[None]:
    """It need not answer a stranger that speaks in the middle of something, so the next host itself has to."""
    for address in (world.b.public, world.b.public6):
        world.internet.ip("route", "add", "blackhole", address)
    try:
        yield
    finally:
        for address in (world.b.public, world.b.public6):
            world.internet.ip("route", "del", "blackhole", address)


def speak_until_told(connection: socket.socket) -> None:
    connection.settimeout(CALL_LIMIT_S)
    connection.sendall(b"after")
    assert connection.recv(5) == b""


@pytest.mark.parametrize("there", [INTERNET, INTERNET6])
def test_a_client_that_only_listens_is_told_by_its_own_agent(world: World, there: str) -> None:
    with world.guest(2) as guest, echo_server(world.internet, there, 7002):
        with closing(guest.place.connect(there, 7002)) as connection, local_pair(guest.place) as local:
            world.move(guest, 2)
            connection.settimeout(CALL_LIMIT_S)
            told: list[BaseException] = []
            waiting = threading.Thread(target=wait_to_be_told, args=(connection, told))
            waiting.start()
            assert guest.place.call(reset_connections) == 1, "this one, and none of its own loopback"
            waiting.join(AT_ONCE_S)
            assert [type(one) for one in told] == [ConnectionAbortedError]
            local[0].sendall(b"between its own programs")
            assert local[1].recv(7) == b"between"
        assert guest.place.call(reset_connections) == 0


def wait_to_be_told(connection: socket.socket, told: list[BaseException]) -> None:
    try:
        connection.recv(1)
    except OSError as error:
        told.append(error)


@contextmanager
def local_pair(place: Place) -> Iterator[tuple[socket.socket, socket.socket]]:
    with (
        closing(place.listen("127.0.0.1", 7900)) as listening,
        closing(place.connect("127.0.0.1", 7900)) as one,
        closing(listening.accept()[0]) as other,
    ):
        yield one, other


def test_what_a_guest_must_not_reach_is_closed_here_too(world: World) -> None:
    with world.guest(3) as guest, world.guest(4) as neighbour:
        closed = {
            "its host": (world.a.place, world.a.underlay),
            "its host's public address": (world.a.place, world.a.public),
            "its host's public address, IPv6": (world.a.place, world.a.public6),
            "the metadata service": (world.a.place, METADATA),
            "the metadata service, IPv6": (world.a.place, METADATA6),
            "the gateway": (world.a.place, GATEWAY),
            "the gateway, IPv6": (world.a.place, GATEWAY6),
            "another host": (world.b.place, world.b.underlay),
            "a neighbour": (neighbour.place, neighbour.address.ip),
            "a neighbour, IPv6": (neighbour.place, neighbour.address.ip6),
            "a forbidden network": (world.internet, FORBIDDEN),
        }
        reached = [what for what, (place, address) in closed.items() if is_reached(guest, place, address)]
        assert reached == []
        with echo_server(world.internet, INTERNET, 7003):
            greet(guest.place, INTERNET, 7003)


def is_reached(guest: Guest, place: Place, address: str) -> bool:
    with echo_server(place, address, 8445) as callers:
        greet(place, address, 8445)
        try:
            guest.place.connect(address, 8445, 0.5).close()
        except OSError:
            return len(callers) > 1
        return True


def test_nobody_outside_begins_a_connection_to_a_guest(world: World) -> None:
    with world.guest(5) as guest, echo_server(guest.place, guest.address.ip, 7004) as callers:
        world.internet.ip("route", "replace", "10.77.0.0/16", "via", world.a.public)
        with pytest.raises(OSError):  # noqa: PT011  silence
            world.internet.connect(guest.address.ip, 7004, 0.7)
        world.internet.ip("route", "del", "10.77.0.0/16")
        assert not callers


def test_a_guest_holds_so_many_connections_at_its_host_too(world: World) -> None:
    with world.guest(6) as guest, echo_server(world.internet, INTERNET, 7005):
        held = []
        for _ in range(CONNECTIONS_MAX + 4):
            try:
                held.append(guest.place.connect(INTERNET, 7005))
            except ConnectionRefusedError:
                break
        assert 0 < len(held) <= CONNECTIONS_MAX
        for one in held:
            one.close()


def test_a_restarted_daemon_breaks_no_connection(world: World) -> None:
    with (
        world.guest(7) as guest,
        echo_server(world.internet, INTERNET, 7006),
        closing(guest.place.connect(INTERNET, 7006)) as connection,
    ):
        anew = HostNetwork(world.a.underlay, RELAY, forbidden=[f"{FORBIDDEN}/32"], connections_max=CONNECTIONS_MAX)
        world.a.place.call(anew.prepare)
        world.a.place.call(anew.adopt)
        connection.sendall(b"still here")
        assert connection.recv(10) == b"still here"


def test_its_longest_packet_passes_whole(world: World) -> None:
    with world.guest(8) as guest:
        words = ["ping", "-M", "do", "-c", "1", "-W", "5", "-s", str(GUEST_MTU - 28), INTERNET]
        assert "1 received" in run("ip", "netns", "exec", guest.place.name, *words)
