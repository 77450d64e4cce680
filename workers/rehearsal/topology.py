"""The rehearsal's network: one switch with two bridges, and a namespace for each machine that hangs on it.

root namespace            <p>-switch                          machines
(nothing; with --keep     bridge underlay ── 10.90.0.0/24 ──  <p>-control  <p>-relay  hosts
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
