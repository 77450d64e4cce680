"""Connections across a move: one entry is re-pointed, and nobody else can do so."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.integration.relayed import (
    CONTROL,
    FORBIDDEN,
    HOST_A,
    HOST_B,
    INTERNET,
    INTERNET6,
    RELAY,
    Host,
    World,
    conversation,
    entry,
    make_host,
)
from tests.integration.wires import CALL_LIMIT_S, Guest, Site, arp, echo_server, ether, frame, greet, run, udp, udp6
from workers.domain.errors import Refused, Unreachable
from workers.domain.names import GATEWAY, GATEWAY_MAC, RunnerId, guest_address
from workers.identity import Authority, write_leaf
from workers.links import Links
from workers.ports import Forwarding
from workers.relay.client import RelayClient
from workers.relay.network import RelayNetwork
from workers.relay.server import Forwarder

pytestmark = pytest.mark.root

MESSAGES_AFTER_MOVE = 50


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    site = Site(f"h7r{os.getpid()}")
    try:
        relay = site.add("relay", eth0=f"underlay {RELAY}/24", eth1="internet 198.18.0.3/24 2001:db8:18::3/64")
        control = site.add("control", eth0=f"underlay {CONTROL}/24", eth1=f"internet {FORBIDDEN}/24")
        internet = site.add("net", eth0=f"internet {INTERNET}/24 {INTERNET6}/64")
        a, b = make_host(site, "a", HOST_A), make_host(site, "b", HOST_B)
        file = tmp_path_factory.mktemp("relay") / "forwarding.json"
        forwarder = relay.call(Forwarder, RelayNetwork(RELAY, "eth1", (f"{FORBIDDEN}/32",)), file)
        yield World(site, a, b, relay, control, internet, forwarder, file)
    finally:
        site.remove()


def test_a_connection_lives_on_when_its_guest_moves_and_moves_back(world: World) -> None:
    guest = world.guest_on(world.a, 0)
    with conversation(world, guest, 7000) as talk:
        for epoch, (source, target) in enumerate([(world.a, world.b), (world.b, world.a)] * 2, start=2):
            world.move(guest, 0, source, target, epoch)
            talk.wait_for(MESSAGES_AFTER_MOVE)
    world.move(guest, 0, world.a, world.b, 6)


@contextmanager
def flood(guest: Guest, frames: list[bytes]) -> Iterator[None]:
    ended = threading.Event()

    def send() -> None:
        while not ended.is_set():
            for each in frames:
                guest.send_frame(each)

    flooding = threading.Thread(target=send, daemon=True)
    flooding.start()
    try:
        yield
    finally:
        ended.set()
        flooding.join(CALL_LIMIT_S)


def test_a_neighbour_that_steals_addresses_during_a_move_costs_no_message(world: World) -> None:
    """On the source and on the target somebody claims the moving guest's MAC, IP and ARP entry all the time."""
    victim, thief_a, thief_b = world.guest_on(world.a, 10), world.guest_on(world.a, 11), world.guest_on(world.b, 12)
    mac, ip = victim.address.mac, victim.address.ip
    everyone = "ff:ff:ff:ff:ff:ff"
    stolen = [
        frame(victim.address, INTERNET, b"stolen"),
        ether(mac, everyone, 0x0806, arp(mac, ip, ip, operation=2)),
        ether(mac, everyone, 0x0806, arp(mac, ip, GATEWAY)),
        ether(mac, everyone, 0x8035, arp(mac, ip, ip, operation=3)),
        ether(mac, GATEWAY_MAC, 0x0806, arp(mac, ip, GATEWAY, operation=2)),
    ]
    own_mac = [
        ether(thief_a.address.mac, GATEWAY_MAC, 0x0806, arp(thief_a.address.mac, ip, GATEWAY, operation=2)),
        ether(thief_a.address.mac, GATEWAY_MAC, 0x0800, udp(ip, INTERNET, b"stolen")),
    ]
    with conversation(world, victim, 7001) as talk, flood(thief_a, stolen + own_mac), flood(thief_b, stolen):
        talk.wait_for(MESSAGES_AFTER_MOVE)
        for epoch, (source, target) in enumerate([(world.a, world.b), (world.b, world.a)], start=2):
            world.move(victim, 10, source, target, epoch)
            talk.wait_for(MESSAGES_AFTER_MOVE)


def drops(world: World) -> int:
    """How many tunnel frames the relay has refused."""
    text = run("ip", "netns", "exec", world.relay.name, "nft", "list", "chain", "inet", "spot_relay", "arriving")
    line = next(line for line in text.splitlines() if line.strip().startswith("udp dport 4789 counter"))
    return int(line.split()[line.split().index("packets") + 1])


def test_a_former_host_cannot_speak_for_a_guest_that_moved(world: World) -> None:
    """A source that still runs after the commit is heard by nobody."""
    guest = world.guest_on(world.a, 20)
    last = guest_address(21)
    world.guest_on(world.a, 21)
    with closing(world.internet.sniff("eth0")) as ear:
        guest.send_frame(frame(guest.address, INTERNET, b"before the commit"))
        wait_for(ear, b"before the commit")
        world.point(20, world.b, 2)
        before = drops(world)
        guest.send_frame(frame(guest.address, INTERNET, b"after the commit"))
        send_from(world.a, 21, frame(last, INTERNET, b"the last word"), world)
        heard = wait_for(ear, b"the last word")
        assert not [each for each in heard if b"after the commit" in each]
        assert drops(world) == before + 1


def send_from(host: Host, number: int, octets: bytes, world: World) -> None:
    """Speak for a guest as its own host's kernel would: a frame in the tunnel."""
    packet = struct.pack("!BBHI", 8, 0, 0, 77 << 8) + octets

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
            sending.sendto(packet, (RELAY, 4789))

    host.place.call(send)


def wait_for(ear: socket.socket, mark: bytes) -> list[bytes]:
    frames = [ear.recv(65536)]
    while mark not in frames[-1]:
        frames.append(ear.recv(65536))
    return frames


def test_a_host_cannot_speak_for_anothers_guest(world: World) -> None:
    """Somebody who broke out of a guest on A sends whatever he likes into the tunnel."""
    world.guest_on(world.b, 30)
    world.guest_on(world.a, 31)
    victim, own = guest_address(30), guest_address(31)
    attempts = [
        frame(victim, INTERNET, b"forged"),
        ether(own.mac, GATEWAY_MAC, 0x0800, udp(victim.ip, INTERNET, b"forged")),
        ether(victim.mac, GATEWAY_MAC, 0x0800, udp(own.ip, INTERNET, b"forged")),
        ether(own.mac, GATEWAY_MAC, 0x0806, arp(own.mac, victim.ip, GATEWAY, operation=2)),
        ether(own.mac, GATEWAY_MAC, 0x8100, struct.pack("!HH", 0, 0x0800) + udp(victim.ip, INTERNET, b"forged")),
        ether(victim.mac, GATEWAY_MAC, 0x86DD, udp6(victim.ip6, INTERNET6, b"forged")),
        ether(own.mac, GATEWAY_MAC, 0x86DD, udp6(victim.ip6, INTERNET6, b"forged")),
        ether(victim.mac, GATEWAY_MAC, 0x86DD, udp6(own.ip6, INTERNET6, b"forged")),
        ether(own.mac, GATEWAY_MAC, 0x86DD, udp6("fd73:706f:7401::a4d:2f", INTERNET6, b"forged")),
    ]
    with closing(world.internet.sniff("eth0")) as ear:
        before = drops(world)
        for octets in attempts:
            send_from(world.a, 31, octets, world)
        send_from(world.a, 31, ether(own.mac, GATEWAY_MAC, 0x86DD, udp6(own.ip6, INTERNET6, b"honest, too")), world)
        heard = wait_for(ear, b"honest, too")
        send_from(world.a, 31, frame(own, INTERNET, b"honest and old"), world)
        heard += wait_for(ear, b"honest and old")
        assert not [each for each in heard if b"forged" in each]
        assert drops(world) == before + len(attempts)


def test_the_relay_is_a_router_for_guests_alone(world: World) -> None:
    guest = world.guest_on(world.a, 43)
    host = world.a.place
    host.ip("route", "add", "198.18.0.0/24", "via", RELAY)

    def say() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
            sending.sendto(b"through the relay", (INTERNET, 4000))

    try:
        with closing(world.internet.sniff("eth0")) as ear:
            host.call(say)
            guest.send_frame(frame(guest.address, INTERNET, b"from a guest"))
            assert not [each for each in wait_for(ear, b"from a guest") if b"through the relay" in each]
    finally:
        host.ip("route", "del", "198.18.0.0/24")


def test_a_forbidden_network_is_refused_and_the_rest_of_its_bridge_is_not(world: World) -> None:
    guest = world.guest_on(world.a, 40)
    with echo_server(world.control, FORBIDDEN, 8080) as callers, echo_server(world.internet, INTERNET, 8080):
        greet(world.internet, FORBIDDEN, 8080)
        guest.place.connect(INTERNET, 8080).close()
        with pytest.raises(OSError):  # noqa: PT011  told at once that it is prohibited
            guest.place.connect(FORBIDDEN, 8080, 5)
        assert len(callers) == 1


def test_a_private_network_behind_the_public_interface_is_closed_too(world: World) -> None:
    guest = world.guest_on(world.a, 42)
    world.internet.ip("address", "add", "192.168.77.1/32", "dev", "lo")
    world.relay.ip("route", "add", "192.168.77.0/24", "via", INTERNET)
    with echo_server(world.internet, "192.168.77.1", 8080) as callers:
        greet(world.relay, "192.168.77.1", 8080)
        with pytest.raises(OSError):  # noqa: PT011  told at once that it is prohibited
            guest.place.connect("192.168.77.1", 8080, 5)
        assert len(callers) == 1


def test_nobody_outside_can_begin_a_connection_to_a_guest(world: World) -> None:
    guest = world.guest_on(world.a, 41)
    world.internet.ip("route", "replace", "10.77.0.0/16", "via", "198.18.0.3")
    with echo_server(guest.place, guest.address.ip, 7000) as callers:
        with pytest.raises(TimeoutError):
            world.internet.connect(guest.address.ip, 7000, 0.7)
        assert not callers
    world.internet.ip("route", "del", "10.77.0.0/16")


def test_a_lower_epoch_is_refused_and_changes_nothing(world: World) -> None:
    guest = world.guest_on(world.a, 50)
    with conversation(world, guest, 7002) as talk:
        world.move(guest, 50, world.a, world.b, 2)
        with pytest.raises(Refused, match="epoch"):
            world.point(50, world.a, 1)
        world.point(50, world.b, 2)
        talk.wait_for(MESSAGES_AFTER_MOVE)


def kernel_of(world: World) -> tuple[frozenset[tuple[str, str]], frozenset[tuple[str, str]]]:
    def look() -> tuple[frozenset[tuple[str, str]], frozenset[tuple[str, str]]]:
        with Links() as links:
            return links.tunnel_stations("guests"), links.neighbours("guests")

    return world.relay.call(look)


def test_holding_everything_puts_right_what_has_drifted(world: World) -> None:
    world.point(90, world.a, 1)
    world.point(91, world.b, 1)
    right = kernel_of(world)
    place = world.relay
    stray = guest_address(99)
    run("bridge", "-n", place.name, "fdb", "del", guest_address(90).mac, "dev", "guests")
    run("bridge", "-n", place.name, "fdb", "replace", guest_address(91).mac, "dev", "guests", "dst", HOST_A)
    run("bridge", "-n", place.name, "fdb", "add", stray.mac, "dev", "guests", "dst", HOST_A)
    place.ip("neigh", "replace", stray.ip, "lladdr", stray.mac, "dev", "guests", "nud", "permanent")
    place.ip("neigh", "replace", guest_address(91).ip, "lladdr", stray.mac, "dev", "guests", "nud", "permanent")
    assert kernel_of(world) != right
    world.relay.call(world.forwarder.replace_all, world.forwarder.entries)
    assert kernel_of(world) == right


def test_a_forgotten_guest_is_cut_off(world: World) -> None:
    guest = world.guest_on(world.a, 60)
    with echo_server(world.internet, INTERNET, 7003):
        guest.place.connect(INTERNET, 7003).close()
        world.relay.call(world.forwarder.forget, RunnerId("spot-runner-60"), 1)
        world.relay.call(world.forwarder.forget, RunnerId("spot-runner-60"), 1)
        with pytest.raises(OSError):  # noqa: PT011  silence or unreachable
            guest.place.connect(INTERNET, 7003, 0.7)
    assert guest.address.mac not in dict(kernel_of(world)[0])


def test_a_restarted_relay_forwards_on_from_its_file(world: World) -> None:
    guest = world.guest_on(world.a, 70)
    with conversation(world, guest, 7004) as talk:
        anew = world.relay.call(Forwarder, RelayNetwork(RELAY, "eth1", (f"{FORBIDDEN}/32",)), world.file)
        assert set(anew.entries) == set(world.forwarder.entries)
        talk.wait_for(MESSAGES_AFTER_MOVE)
        with pytest.raises(Refused):
            world.relay.call(anew.point, entry(70, HOST_B, 0))


# ---------------------------------------------------------------- the process


@contextmanager
def relay_process(world: World, home: Path) -> Iterator[subprocess.Popen[bytes]]:
    settings = {
        "SPOT_RUNNER_RELAY_HOME": str(home),
        "SPOT_RUNNER_RELAY_LISTEN": f"{RELAY}:8445",
        "SPOT_RUNNER_RELAY_ADDRESS": RELAY,
        "SPOT_RUNNER_RELAY_PUBLIC_INTERFACE": "eth1",
        "SPOT_RUNNER_RELAY_FORBIDDEN": f'["{FORBIDDEN}/32"]',
    }
    command = [sys.executable, "-c", "from workers.cli import main; main()", "relay"]
    with (home / "log").open("ab") as log:
        process = subprocess.Popen(
            ["ip", "netns", "exec", world.relay.name, *command],
            env={**os.environ, **settings, "PYTHONPATH": str(Path.cwd())},
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(CALL_LIMIT_S)


def until_answered(world: World, client: RelayClient, entries: list[Forwarding]) -> None:
    until = time.monotonic() + CALL_LIMIT_S
    while True:
        try:
            return world.control.call(client.replace_all, entries)
        except Unreachable:
            if time.monotonic() > until:
                raise


def test_the_relay_process_obeys_the_control_plane_alone_and_may_be_killed(world: World, tmp_path: Path) -> None:
    authority = Authority.open(tmp_path / "ca")
    ca = (authority.control_ca, authority.hosts_ca)
    for name in ("relay", "control", "intruder"):
        write_leaf(tmp_path / name, authority.control_leaf(name), *ca)
    guest = world.guest_on(world.a, 80)
    with (
        closing(RelayClient(f"https://{RELAY}:8445", tmp_path / "control")) as client,
        closing(RelayClient(f"https://{RELAY}:8445", tmp_path / "intruder")) as intruder,
        conversation(world, guest, 7005) as talk,
    ):
        with relay_process(world, tmp_path / "relay"):
            until_answered(world, client, [entry(80, HOST_A, 1)])
            talk.wait_for(MESSAGES_AFTER_MOVE)
            with pytest.raises(Refused, match="403"):
                world.control.call(intruder.replace_all, [])
            with pytest.raises(Refused, match="422"):
                world.control.call(client.point, entry(80, HOST_A, 0))
        talk.wait_for(MESSAGES_AFTER_MOVE)  # killed: the kernel forwards without it
        with relay_process(world, tmp_path / "relay") as process:
            talk.wait_for(MESSAGES_AFTER_MOVE)
            until_answered(world, client, [entry(80, HOST_A, 1)])
            world.control.call(client.forget, RunnerId("spot-runner-80"), 0)
            talk.wait_for(MESSAGES_AFTER_MOVE)
            process.send_signal(signal.SIGTERM)
            assert process.wait(CALL_LIMIT_S) == 0
