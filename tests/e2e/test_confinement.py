"""What root inside a real guest can reach, and what it can take from its neighbour: nothing, and nothing.

hostile (root) ─┐                                    ┌─ control plane
neighbour ──────┴─ host a ══ relay (Forwarder) ══════┼─ internet: echo server, and the desk that the guests call
far (root) ─────── host b ══╝                        └─ metadata service on 169.254.169.254 at a, b and the relay
"""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.engine_rig import LIMIT_S, RELAY, Rig, eventually, runner_package
from tests.e2e.scripted_guest import scripted_package
from tests.integration.wires import Place, arp, echo_server, ether, frame, greet, mac, run, udp
from workers.domain.messages import BootOrder, StartOrder
from workers.domain.migration import MigrationPhase
from workers.domain.names import GATEWAY, GATEWAY6, GATEWAY_MAC, GuestAddress, guest_address
from workers.host.network import BRIDGE_MAC
from workers.ports import Forwarding
from workers.rehearsal.imds import ADDRESS as METADATA
from workers.rehearsal.imds import Service
from workers.relay.network import RelayNetwork
from workers.relay.server import Forwarder

pytestmark = [pytest.mark.root, pytest.mark.guest, pytest.mark.timeout(600)]

PROGRAM = Path(__file__).with_name("hostile_guest.py")
INTERNET, CONTROL, CONTROL_PUBLIC, RELAY_PUBLIC = "198.18.0.10", "10.90.0.2", "198.18.0.2", "198.18.0.3"
HOST6_A, HOST6_B, RELAY6, CONTROL6 = "fd90::16", "fd90::17", "fd90::3", "fd90::2"
INTERNET6, CONTROL6_PUBLIC, RELAY6_PUBLIC = "2001:db8:18::10", "2001:db8:18::2", "2001:db8:18::3"
METADATA6 = "fd00:ec2::254"
DESK_PORT, ECHO_PORT, SINK_PORT = 7001, 7000, 7002
HOSTILE, NEIGHBOUR, FAR = 700, 701, 702
ME, VICTIM, OTHER = (guest_address(number) for number in (HOSTILE, NEIGHBOUR, FAR))
EVERYBODY = "ff:ff:ff:ff:ff:ff"
MESSAGES = 50
FLOOD_MIN = 1000
FINISHED, COMMITTED, ABORTED = MigrationPhase.FINISHED, MigrationPhase.COMMITTED, MigrationPhase.ABORTED


class Hand:
    """The far end of the program in one guest."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(LIMIT_S)
        self._connection, self._lines = connection, connection.makefile("rw")
        self.number = int(self._lines.readline())

    def call(self, function: str, *arguments: object) -> Any:  # noqa: ANN401 - whatever the function returns
        print(json.dumps([function, *arguments]), file=self._lines, flush=True)
        answer = self._lines.readline()
        assert answer, f"guest {self.number} hung up on {function}"
        return json.loads(answer)

    def close(self) -> None:
        self._lines.close()
        self._connection.close()


@dataclass
class World:
    rig: Rig
    relay: Place
    control: Place
    internet: Place
    forwarder: Forwarder
    orders: dict[int, BootOrder] = field(default_factory=dict)
    hands: dict[int, Hand] = field(default_factory=dict)

    def point(self, number: int, host: str, epoch: int) -> None:
        entry = Forwarding(self.orders[number].runner_id, epoch, guest_address(number), self.rig[host].address)
        self.relay.call(self.forwarder.point, entry)

    def boot(self, number: int, host: str, desk: socket.socket) -> None:
        order = self.orders[number] = self.rig.order(number)
        self.point(number, host, 1)
        program = ["sudo", "python3", "-c", PROGRAM.read_text(), str(number), INTERNET, str(DESK_PORT)]
        start = StartOrder(1, f"import os; os.execvp('sudo', {program!r})")
        engine, inside = self.rig[host].engine, self.rig[host].inside
        inside.run(engine.boot(order))
        inside.run(engine.start_runner(order.runner_id, start))
        hand = Hand(desk.accept()[0])
        self.hands[hand.number] = hand


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    rig = Rig(scripted_package(runner_package()), ("a", "b"))
    with ExitStack() as ends:
        ends.callback(rig.end)
        relay_public = f"internet {RELAY_PUBLIC}/24 {RELAY6_PUBLIC}/64"
        relay = rig._site.add("relay", eth0=f"underlay {RELAY}/24 {RELAY6}/64", eth1=relay_public)
        control_public = f"internet {CONTROL_PUBLIC}/24 {CONTROL6_PUBLIC}/64"
        control = rig._site.add("control", eth0=f"underlay {CONTROL}/24 {CONTROL6}/64", eth1=control_public)
        internet = rig._site.add("net", eth0=f"internet {INTERNET}/24 {INTERNET6}/64")
        for name, address in (("a", HOST6_A), ("b", HOST6_B)):
            rig[name].place.ip("address", "add", f"{address}/64", "dev", "eth0", "nodad")
        network = RelayNetwork(RELAY, "eth1", (f"{CONTROL_PUBLIC}/32", f"{CONTROL6_PUBLIC}/128"))
        forwarder = relay.call(Forwarder, network, tmp_path_factory.mktemp("relay") / "forwarding.json")
        world = World(rig, relay, control, internet, forwarder)
        desk = ends.enter_context(internet.listen(INTERNET, DESK_PORT))
        desk.settimeout(LIMIT_S)
        for number, host in ((HOSTILE, "a"), (NEIGHBOUR, "a"), (FAR, "b")):
            world.boot(number, host, desk)
            ends.callback(world.hands[number].close)
        yield world


# ---------------------------------------------------------------- what it reaches


@contextmanager
def metadata_service(place: Place, file: Path) -> Iterator[None]:
    place.ip("address", "replace", f"{METADATA}/32", "dev", "lo")
    place.ip("address", "replace", f"{METADATA6}/128", "dev", "lo", "nodad")
    with place.call(partial(Service, (METADATA, 80), file)) as service:
        threading.Thread(target=service.serve_forever, daemon=True).start()
        place.connect(METADATA, 80).close()
        try:
            yield
        finally:
            service.shutdown()


@contextmanager
def listening(place: Place, port: int) -> Iterator[None]:
    """Somebody is there; and in the end nobody but he himself has called."""
    with echo_server(place, "::", port) as callers:  # wherever a guest may look for it, by IPv4 too
        greet(place, "127.0.0.1", port)
        yield
        assert callers == ["::ffff:127.0.0.1"]


@contextmanager
def everybody_listening(world: World, served: Path) -> Iterator[None]:
    a, b = world.rig["a"].place, world.rig["b"].place
    with ExitStack() as ends:
        for place in (a, b, world.relay):
            ends.enter_context(metadata_service(place, served))
        for place, port in ((a, 8444), (b, 8444), (world.relay, 8445), (world.control, 8443)):
            ends.enter_context(listening(place, port))
        for address in (INTERNET, INTERNET6):
            ends.enter_context(echo_server(world.internet, address, ECHO_PORT))
        yield


TARGETS = {
    "the metadata service": (METADATA, 80, BRIDGE_MAC),
    "its host": ("10.90.0.16", 8444, BRIDGE_MAC),
    "the other host": ("10.90.0.17", 8444, BRIDGE_MAC),
    "the relay": (RELAY, 8445, GATEWAY_MAC),
    "the relay's public address": (RELAY_PUBLIC, 8445, GATEWAY_MAC),
    "the control plane": (CONTROL, 8443, GATEWAY_MAC),
    "the control plane's public address": (CONTROL_PUBLIC, 8443, GATEWAY_MAC),
    "its neighbour": (VICTIM.ip, DESK_PORT, VICTIM.mac),
    "a guest on the other host": (OTHER.ip, DESK_PORT, OTHER.mac),
    "the metadata service, IPv6": (METADATA6, 80, BRIDGE_MAC),
    "its host, IPv6": (HOST6_A, 8444, BRIDGE_MAC),
    "the other host, IPv6": (HOST6_B, 8444, BRIDGE_MAC),
    "the relay, IPv6": (RELAY6, 8445, GATEWAY_MAC),
    "the relay's public address, IPv6": (RELAY6_PUBLIC, 8445, GATEWAY_MAC),
    "the control plane, IPv6": (CONTROL6, 8443, GATEWAY_MAC),
    "the control plane's public address, IPv6": (CONTROL6_PUBLIC, 8443, GATEWAY_MAC),
    "its neighbour, IPv6": (VICTIM.ip6, DESK_PORT, VICTIM.mac),
    "a guest on the other host, IPv6": (OTHER.ip6, DESK_PORT, OTHER.mac),
}
TRICKS = {
    "as its routes say": [],
    "as if on its own link": ["route replace {ip} dev eth0"],
    "at the MAC that has it": [
        "route replace {ip} dev eth0",
        "neigh replace {ip} lladdr {mac} dev eth0 nud permanent",
    ],
    "at the gateway's MAC": [
        "route replace {ip} dev eth0",
        f"neigh replace {{ip}} lladdr {GATEWAY_MAC} dev eth0 nud permanent",
    ],
}


@pytest.mark.parametrize("trick", TRICKS)
def test_root_in_a_guest_reaches_the_internet_and_nothing_of_ours(world: World, tmp_path: Path, trick: str) -> None:
    targets = [(name, ip, port) for name, (ip, port, _) in TARGETS.items()]
    routes = [step.format(ip=ip, mac=owner) for ip, _, owner in TARGETS.values() for step in TRICKS[trick]]
    with everybody_listening(world, tmp_path / "metadata"), ExitStack() as ends:
        taps = ((world.rig["a"].place, NEIGHBOUR), (world.rig["b"].place, FAR))
        ears = [ends.enter_context(closing(place.sniff(f"tap{number}"))) for place, number in taps]
        control = ("the internet", INTERNET, ECHO_PORT)
        gateways = [("the gateway", GATEWAY, 8445), ("the gateway, IPv6", GATEWAY6, 8445)]
        also = [*gateways, ("the internet, IPv6", INTERNET6, ECHO_PORT)]
        answered = world.hands[HOSTILE].call("probe", control, [*targets, *also], routes)
        # The gateway answers a ping, so that a job can see that its network is there; nothing else of it answers.
        reached = ("the internet", "the internet, IPv6")
        pinged = [["the gateway", "ping"], ["the gateway, IPv6", "ping"]]
        wanted = pinged + [[name, kind] for name in reached for kind in ("ping", "tcp", "udp")]
        assert answered == wanted, answered
        heard = [octets for ear in ears for octets in drained(ear)]
        assert not [octets for octets in heard if mac(ME.mac) in octets or socket.inet_aton(ME.ip) in octets]


def drained(ear: socket.socket) -> Iterator[bytes]:
    ear.setblocking(False)
    while True:
        try:
            yield ear.recv(65536)
        except BlockingIOError:
            return


# ---------------------------------------------------------------- what it takes


def theft(thief: GuestAddress) -> list[str]:
    """Everything by which a guest could claim to be its neighbour, or its neighbour's gateway."""
    mine, its, ip = thief.mac, VICTIM.mac, VICTIM.ip
    claims = [(sender, owner) for sender in (mine, its) for owner in (ip, GATEWAY)]
    frames = [
        ether(its, GATEWAY_MAC, 0x0800, udp(ip, INTERNET, b"stolen", dport=SINK_PORT)),
        ether(mine, GATEWAY_MAC, 0x0800, udp(ip, INTERNET, b"stolen", dport=SINK_PORT)),
        ether(its, GATEWAY_MAC, 0x0800, udp(thief.ip, INTERNET, b"stolen", dport=SINK_PORT)),
        ether(its, EVERYBODY, 0x8035, arp(its, ip, ip, operation=3)),
        *(ether(sender, EVERYBODY, 0x0806, arp(sender, owner, owner, operation=2)) for sender, owner in claims),
        *(ether(sender, EVERYBODY, 0x0806, arp(sender, owner, GATEWAY)) for sender, owner in claims),
        *(ether(sender, its, 0x0806, arp(sender, owner, ip, operation=2)) for sender, owner in claims),
        *(ether(sender, GATEWAY_MAC, 0x0806, arp(sender, owner, GATEWAY, operation=2)) for sender, owner in claims),
    ]
    return [octets.hex() for octets in frames]


@contextmanager
def flooded(world: World, thieves: dict[int, str]) -> Iterator[None]:
    for number in thieves:
        world.hands[number].call("flood", theft(guest_address(number)))
    yield
    for number in thieves:
        world.hands[number].call("calm")


def dropped(world: World, number: int, host: str) -> int:
    """How many frames the filter of a guest's tap has dropped."""
    place = world.rig[host].place.name
    rules = run("ip", "netns", "exec", place, "nft", "list", "table", "netdev", f"spot_tap{number}")
    return sum(int(packets) for packets in re.findall(r"counter packets (\d+) bytes \d+ drop", rules))


def move(world: World, number: int) -> None:
    """Let the control plane move a guest from a to b, with the relay following the commit."""
    row = world.rig.begin(world.orders[number], "a", "b", seconds=120.0)
    assert world.rig.rows.wait(row.id, COMMITTED, FINISHED, ABORTED, limit_s=120.0).phase is not ABORTED
    world.point(number, "b", row.epoch)
    world.rig.rows.wait(row.id, FINISHED)


def test_a_neighbour_that_claims_to_be_it_costs_a_moving_guest_no_message(world: World) -> None:
    """One thief beside it where it leaves and one where it arrives, from before the move until after it."""
    victim, thieves = world.hands[NEIGHBOUR], {HOSTILE: "a", FAR: "b"}

    def exchanged(count: int) -> None:
        goal = victim.call("progress")[1] + count
        eventually(lambda: _progress(victim) >= goal, f"{count} more messages came back")

    with (
        echo_server(world.internet, INTERNET, ECHO_PORT) as callers,
        closing(world.internet.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)) as sink,
    ):
        sink.bind((INTERNET, SINK_PORT))
        sink.settimeout(LIMIT_S)
        for number in thieves:
            world.hands[number].call(
                "send_frame", frame(guest_address(number), INTERNET, b"own", dport=SINK_PORT).hex()
            )
            assert sink.recv(100) == b"own", "a guest's raw frames do arrive, if they are its own"
        victim.call("begin", INTERNET, ECHO_PORT)
        exchanged(MESSAGES)
        with flooded(world, thieves):
            exchanged(MESSAGES)
            before = {number: dropped(world, number, host) for number, host in thieves.items()}
            move(world, NEIGHBOUR)
            during = {number: dropped(world, number, host) - before[number] for number, host in thieves.items()}
            exchanged(MESSAGES)
        sent, returned, trouble = victim.call("end")
        assert (returned, trouble) == (sent, "")
        assert callers == [RELAY_PUBLIC], "one connection, from the first message to the last"
        assert list(drained(sink)) == []
        assert min(during.values()) > FLOOD_MIN, during


def _progress(victim: Hand) -> int:
    sent, returned, trouble = victim.call("progress")
    assert not trouble, f"after {returned} of {sent} messages: {trouble}"
    return int(returned)
