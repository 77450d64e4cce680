"""The rehearsal's network: one switch with two bridges, and a namespace for each machine that hangs on it.

root namespace            <p>-switch                          machines
(nothing; with --keep     bridge underlay ── 10.90.0.0/24 ──  <p>-control  <p>-relay  hosts, NATs ── hosts
 one veth, 198.18.0.1)    bridge internet ── 198.18.0.0/24 ─  <p>-control  <p>-relay  <p>-internet
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from pyroute2 import netns

from workers.domain.overlay import OVERLAY_NETWORK
from workers.links import apply_rules, set_sysctl
from workers.rehearsal import places as at
from workers.rehearsal.commands import run
from workers.rehearsal.places import Places
from workers.rehearsal.remains import NETNS, Journal, Kind

CONNECT_LIMIT_S: Final = 1.0
BRIDGES: Final = {at.UNDERLAY: "underlay", at.INTERNET: "internet"}


@dataclass(frozen=True)
class Plug:
    """One machine's interface on one bridge."""

    device: str
    network: IPv4Network
    address: IPv4Address | str


@dataclass(frozen=True)
class Inside:
    """A machine's place in the network behind its NAT."""

    network: IPv4Network
    gateway: IPv4Address
    address: IPv4Address | str


INSIDE: Final = Inside(at.PRIVATE, at.NAT_INSIDE, at.PRIVATE_HOST)
FIXED: Final = {
    "control": (
        Plug("eth0", at.UNDERLAY, at.CONTROL_UNDERLAY),
        Plug("eth1", at.INTERNET, at.CONTROL_INTERNET),
    ),
    "relay": (
        Plug("eth0", at.UNDERLAY, at.RELAY_UNDERLAY),
        Plug("eth1", at.INTERNET, at.RELAY_INTERNET),
    ),
    "internet": (Plug("eth0", at.INTERNET, at.INTERNET_SERVERS),),
}


NAT_RULES: Final = """\
table ip spot_nat {
  chain behind {
    type nat hook postrouting priority srcnat;
    oifname "eth0" masquerade
  }
  chain passing {
    type filter hook forward priority filter; policy drop;
    iifname "inside" accept
    ct state established,related accept
  }
}
"""


def nat_of(role: str) -> str:
    """Name the role of the NAT before a machine."""
    return f"{role}-nat"


class Topology:
    """Makes namespaces and their wires; each is in the journal before it exists."""

    def __init__(self, places: Places, journal: Journal) -> None:
        self.places = places
        self.journal = journal

    def build(self) -> None:
        """Make the switch and the machines that every rehearsal has."""
        switch = self.add_namespace("switch")
        for bridge in BRIDGES.values():
            run("ip", "-n", switch, "link", "add", "name", bridge, "type", "bridge")
            run("ip", "-n", switch, "link", "set", bridge, "up")
        for role, plugs in FIXED.items():
            self.add_namespace(role)
            for plug in plugs:
                self.wire(role, plug)

    def add_namespace(self, role: str) -> str:
        """Make the namespace of a role, with its loopback up, and return its name."""
        name = self.places.namespace(role)
        self.journal.note(Kind.NAMESPACE, name)
        run("ip", "netns", "add", name)
        run("ip", "-n", name, "link", "set", "lo", "up")
        return name

    def wire(self, role: str, plug: Plug, port: str | None = None) -> None:
        """Give a machine an interface; `port` names the switch's end, at most 15 characters."""
        switch, name = self.places.namespace("switch"), self.places.namespace(role)
        port = port or f"{role}-{plug.device}"
        run("ip", "-n", switch, "link", "add", "name", port, "type", "veth", "peer", "name", plug.device, "netns", name)
        run("ip", "-n", switch, "link", "set", port, "master", BRIDGES[plug.network], "up")
        run("ip", "-n", name, "address", "add", at.with_length(plug.address, plug.network), "dev", plug.device)
        run("ip", "-n", name, "link", "set", plug.device, "up")

    def hide(self, role: str, plug: Plug, port: str, inside: Inside = INSIDE) -> None:
        """Put a machine behind a NAT that has this address: it reaches everybody, and nobody can dial it."""
        outside = nat_of(role)
        self.add_namespace(outside)
        self.wire(outside, plug, port)
        nat, name = self.places.namespace(outside), self.places.namespace(role)
        run("ip", "-n", nat, "link", "add", "name", "inside", "type", "veth", "peer", "name", "eth0", "netns", name)
        for place, device, address in ((nat, "inside", inside.gateway), (name, "eth0", inside.address)):
            run("ip", "-n", place, "address", "add", at.with_length(address, inside.network), "dev", device)
            run("ip", "-n", place, "link", "set", device, "up")
        run("ip", "-n", name, "route", "add", "default", "via", str(inside.gateway))
        with standing_in(nat):
            set_sysctl("net/ipv4/ip_forward", "1")
            apply_rules(NAT_RULES)

    def route_overlay(self) -> None:
        """Let the control plane reach hosts by their overlay addresses: through the relay."""
        control = self.places.namespace("control")
        run("ip", "-n", control, "route", "add", str(OVERLAY_NETWORK), "via", str(at.RELAY_UNDERLAY))

    def open_window(self) -> None:
        """Let this machine itself reach the internet of the rehearsal, so that its URLs work in a browser."""
        device, switch = f"{self.places.name}-window", self.places.namespace("switch")
        self.journal.note(Kind.LINK, device)
        run("ip", "link", "add", "name", device, "type", "veth", "peer", "name", "window", "netns", switch)
        run("ip", "-n", switch, "link", "set", "window", "master", BRIDGES[at.INTERNET], "up")
        run("ip", "address", "add", at.with_length(at.WINDOW, at.INTERNET), "dev", device)
        run("ip", "link", "set", device, "up")


@contextlib.contextmanager
def standing_in(namespace: str) -> Iterator[None]:
    """Let this thread open its sockets inside a namespace; sockets stay where they were opened."""
    with (NETNS / namespace).open() as file:
        netns.pushns(file.fileno())  # by number: a name that is not there would be made
        try:
            yield
        finally:
            netns.popns()


def accepts(namespace: str, address: str, port: int) -> bool:
    """Say whether somebody accepts connections there, seen from inside a namespace."""
    with standing_in(namespace):
        try:
            socket.create_connection((address, port), timeout=CONNECT_LIMIT_S).close()
        except OSError:
            return False
    return True
