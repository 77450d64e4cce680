"""Two hosts with their taps filtered, a relay, and guests on both that may try what they like."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.integration.wires import Guest, Place, Site
from workers.domain.names import RunnerId, guest_address, monitor_user
from workers.domain.overlay import GUEST_MTU
from workers.egress import CONNECTIONS_MAX
from workers.host.network import HostNetwork
from workers.host.rules import GUEST_MBIT
from workers.ports import Forwarding
from workers.relay.network import RelayNetwork

ME, NEIGHBOUR, FAR = (guest_address(number) for number in (0, 1, 2))
HOST_A, HOST_B, RELAY, CONTROL = "10.90.0.16", "10.90.0.17", "10.90.0.3", "10.90.0.2"
RELAY_PUBLIC, INTERNET = "198.18.0.3", "198.18.0.10"
METADATA = "169.254.169.254"
HOST6_A, HOST6_B, RELAY6, CONTROL6 = "fd90::16", "fd90::17", "fd90::3", "fd90::2"
RELAY6_PUBLIC, INTERNET6 = "2001:db8:18::3", "2001:db8:18::10"
METADATA6 = "fd00:ec2::254"
MARK = b"marked by the test of hostile frames"


@dataclass
class World:
    site: Site
    host_a: Place
    host_b: Place
    relay: Place
    control: Place
    internet: Place
    network_a: HostNetwork
    network_b: HostNetwork
    me: Guest
    neighbour: Guest
    far: Guest


def entry(number: int, host: str, epoch: int = 1) -> Forwarding:
    return Forwarding(RunnerId(f"spot-runner-{number}"), epoch, guest_address(number), host)


def plug_in(place: Place, network: HostNetwork, guest: Guest, number: int) -> None:
    guest.cable.plug(place.call(network.open_tap, number, guest.address, monitor_user(number)))
    place.call(network.attach, number)


@contextmanager
def guarded_world(
    name: str, mtu: int = GUEST_MTU, connections_max: int = CONNECTIONS_MAX, mbit: int = GUEST_MBIT
) -> Iterator[World]:
    site = Site(f"{name}{os.getpid()}")
    try:
        host_a = site.add("a", eth0=f"underlay {HOST_A}/24 {HOST6_A}/64")
        host_b = site.add("b", eth0=f"underlay {HOST_B}/24 {HOST6_B}/64")
        public = f"internet {RELAY_PUBLIC}/24 {RELAY6_PUBLIC}/64"
        relay = site.add("relay", eth0=f"underlay {RELAY}/24 {RELAY6}/64", eth1=public)
        control = site.add("control", eth0=f"underlay {CONTROL}/24 {CONTROL6}/64")
        internet = site.add("net", eth0=f"internet {INTERNET}/24 {INTERNET6}/64")
        for place in (host_a, host_b, relay):
            place.ip("address", "add", f"{METADATA}/32", "dev", "lo")
            place.ip("address", "add", f"{METADATA6}/128", "dev", "lo", "nodad")
        network_a, network_b = (HostNetwork(address, RELAY, mtu, mbit) for address in (HOST_A, HOST_B))
        for place, network in ((host_a, network_a), (host_b, network_b)):
            place.call(network.prepare)
        entries = [entry(0, HOST_A), entry(1, HOST_A), entry(2, HOST_B)]
        relay.call(RelayNetwork(RELAY, "eth1", (), mtu, connections_max).hold, entries)
        guests = [Guest(site, f"g{number}", guest_address(number), mtu) for number in range(3)]
        plug_in(host_a, network_a, guests[0], 0)
        plug_in(host_a, network_a, guests[1], 1)
        plug_in(host_b, network_b, guests[2], 2)
        yield World(site, host_a, host_b, relay, control, internet, network_a, network_b, *guests)
    finally:
        site.remove()


def heard_until(ear: socket.socket, last: bytes) -> list[bytes]:
    frames = [ear.recv(65536)]
    while last not in frames[-1]:
        frames.append(ear.recv(65536))
    return frames


def drain(ear: socket.socket) -> Iterator[bytes]:
    ear.setblocking(False)
    while True:
        try:
            yield ear.recv(65536)
        except BlockingIOError:
            return
