"""Two hosts, a relay and the internet behind it, and a conversation that a guest holds with somebody there."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.integration.wires import CALL_LIMIT_S, Guest, Place, Site, echo_server
from workers.domain.names import RunnerId, guest_address, monitor_user
from workers.host.network import HostNetwork
from workers.ports import Forwarding
from workers.relay.server import Forwarder

HOST_A, HOST_B, RELAY, CONTROL = "10.90.0.16", "10.90.0.17", "10.90.0.3", "10.90.0.2"
INTERNET, INTERNET6, FORBIDDEN = "198.18.0.10", "2001:db8:18::10", "198.18.0.2"


@dataclass
class Host:
    place: Place
    network: HostNetwork
    address: str

    def open(self, number: int) -> int:
        return self.place.call(self.network.open_tap, number, guest_address(number), monitor_user(number))


@dataclass
class World:
    site: Site
    a: Host
    b: Host
    relay: Place
    control: Place
    internet: Place
    forwarder: Forwarder
    file: Path

    def point(self, number: int, host: Host, epoch: int) -> None:
        self.relay.call(self.forwarder.point, entry(number, host.address, epoch))

    def guest_on(self, host: Host, number: int, epoch: int = 1) -> Guest:
        guest = Guest(self.site, f"g{number}", guest_address(number))
        guest.cable.plug(host.open(number))
        host.place.call(host.network.attach, number)
        self.point(number, host, epoch)
        return guest

    def move(self, guest: Guest, number: int, source: Host, target: Host, epoch: int) -> None:
        """What happens around a commit, as far as the network sees it."""
        tap, former = target.open(number), guest.cable.host_end
        guest.cable.plug(None)
        source.place.call(source.network.detach, number)
        target.place.call(target.network.attach, number)
        guest.cable.plug(tap)
        self.point(number, target, epoch)
        source.place.call(source.network.close, number)
        assert former is not None
        os.close(former)


def entry(number: int, host: str, epoch: int = 1) -> Forwarding:
    return Forwarding(RunnerId(f"spot-runner-{number}"), epoch, guest_address(number), host)


def make_host(site: Site, name: str, address: str) -> Host:
    place = site.add(name, eth0=f"underlay {address}/24")
    network = HostNetwork(address, RELAY)
    place.call(network.prepare)
    return Host(place, network, address)


class Conversation:
    """Numbered messages, each sent when the one before it has come back; nothing may be lost or come twice."""

    def __init__(self, connection: socket.socket) -> None:
        self.returned = 0
        self.trouble: Exception | None = None
        self._connection = connection
        self._connection.settimeout(CALL_LIMIT_S)
        self._more = threading.Condition()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._talk, daemon=True)
        self._thread.start()

    def wait_for(self, count: int) -> None:
        """Wait until so many more messages have come back."""
        with self._more:
            goal = self.returned + count
            assert self._more.wait_for(lambda: self.returned >= goal or self.trouble, CALL_LIMIT_S)
        if self.trouble is not None:
            raise self.trouble

    def end(self) -> None:
        self._ended.set()
        self._thread.join(CALL_LIMIT_S)
        self._connection.close()
        assert self.trouble is None

    def _talk(self) -> None:
        try:
            while not self._ended.wait(0.002):
                self._exchange(struct.pack("!Q", self.returned))
        except (OSError, AssertionError) as error:
            self.trouble = error
        with self._more:
            self._more.notify_all()

    def _exchange(self, message: bytes) -> None:
        self._connection.sendall(message)
        answer = b""
        while len(answer) < len(message):
            piece = self._connection.recv(len(message) - len(answer))
            assert piece, "the connection ended"
            answer += piece
        assert answer == message
        with self._more:
            self.returned += 1
            self._more.notify_all()


@contextmanager
def conversation(world: World, guest: Guest, port: int) -> Iterator[Conversation]:
    with echo_server(world.internet, INTERNET, port):
        talk = Conversation(guest.place.connect(INTERNET, port))
        talk.wait_for(10)
        yield talk
        talk.end()
