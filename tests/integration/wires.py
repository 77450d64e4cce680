"""Namespaces that play hosts, relay and internet, and guests whose frames go through real taps.

guest namespace ── eth0 (tap) ══ cable (copies frames) ══ tap<n> ── host namespace ── underlay ── relay ── internet
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from pyroute2 import netns

from workers.domain.names import GATEWAY, GATEWAY6, GATEWAY_MAC, GuestAddress
from workers.domain.overlay import GUEST_MTU

T = TypeVar("T")
NO_OFFLOAD = bytes(10)
"""The virtio header that a tap with IFF_VNET_HDR puts before each frame."""
CALL_LIMIT_S = 30.0


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


class Place:
    """One network namespace and the thread that is in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        run("ip", "netns", "add", name)
        run("ip", "-n", name, "link", "set", "lo", "up")
        self._inside = ThreadPoolExecutor(1, initializer=netns.setns, initargs=(name,))

    def call(self, function: Callable[..., T], *args: object) -> T:
        return self._inside.submit(function, *args).result(CALL_LIMIT_S)

    def ip(self, *words: str) -> str:
        return run("ip", "-n", self.name, *words)

    def listen(self, address: str, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        both = address == "::"
        return self.call(lambda: socket.create_server((address, port), family=family, dualstack_ipv6=both))

    def connect(self, address: str, port: int, limit_s: float = 5.0) -> socket.socket:
        return self.call(lambda: socket.create_connection((address, port), timeout=limit_s))

    def sniff(self, device: str) -> socket.socket:
        """Everything that crosses a device, both ways."""

        def open_socket() -> socket.socket:
            every_protocol = socket.htons(3)
            ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, every_protocol)
            ear.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            ear.bind((device, 3))
            ear.settimeout(CALL_LIMIT_S)
            return ear

        return self.call(open_socket)

    def remove(self) -> None:
        self._inside.shutdown()
        subprocess.run(["ip", "netns", "del", self.name], check=False, capture_output=True, timeout=30)


class Site:
    """A switch with an underlay and an internet, and what is plugged in there."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._places: list[Place] = []
        self.switch = self.add("switch")
        for bridge in ("underlay", "internet"):
            self.switch.ip("link", "add", "name", bridge, "type", "bridge")
            self.switch.ip("link", "set", bridge, "up")

    def add(self, role: str, **plugs: str) -> Place:
        """Add a namespace; `eth0="underlay 10.90.0.2/24 fd90::2/64"`."""
        place = Place(f"{self._prefix}-{role}")
        self._places.append(place)
        for device, plug in plugs.items():
            self.plug(place, device, plug)
        return place

    def plug(self, place: Place, device: str, plug: str) -> None:
        """Give a place an interface on one of the switch's bridges."""
        bridge, *addresses = plug.split()
        port = f"{place.name.removeprefix(self._prefix + '-')}-{device}"
        self.switch.ip("link", "add", "name", port, "type", "veth", "peer", "name", device, "netns", place.name)
        self.switch.ip("link", "set", port, "master", bridge, "up")
        for address in addresses:
            place.ip("address", "add", address, "dev", device, *(["nodad"] if ":" in address else []))
        place.ip("link", "set", device, "up")

    def remove(self) -> None:
        for place in self._places:
            place.remove()


@dataclass
class Cable:
    """Copies frames between the guest's end and the tap of whichever host it is plugged into."""

    guest_end: int
    host_end: int | None = None
    _ended: threading.Event = field(default_factory=threading.Event)
    _is_frozen: bool = False

    def __post_init__(self) -> None:
        self._wake, self._waker = os.pipe()
        self._thread = threading.Thread(target=self._copy, daemon=True)
        self._thread.start()

    def plug(self, host_end: int | None) -> None:
        self.host_end, self._is_frozen = host_end, False
        os.write(self._waker, b"x")

    def freeze(self) -> None:
        """Let the guest stand still until it is plugged in again: it neither takes frames nor gives any."""
        self._is_frozen = True
        os.write(self._waker, b"x")

    def end(self) -> None:
        self._ended.set()
        os.write(self._waker, b"x")
        self._thread.join(CALL_LIMIT_S)

    def _copy(self) -> None:
        while not self._ended.is_set():
            host_end = self.host_end
            ends = [self.guest_end, self._wake] + ([host_end] if host_end is not None else [])
            if self._is_frozen:
                ends = [self._wake]
            for ready in select.select(ends, [], [], CALL_LIMIT_S)[0]:
                if ready == self._wake:
                    os.read(self._wake, 64)
                    continue
                with contextlib.suppress(OSError):  # a tap that is down, or was just closed: the frame is lost
                    frame = os.read(ready, 65536)
                    if host_end is not None:
                        os.write(host_end if ready == self.guest_end else self.guest_end, frame)


class Guest:
    """A namespace whose only wire is a cable into some host's tap."""

    def __init__(self, site: Site, role: str, address: GuestAddress, mtu: int = GUEST_MTU) -> None:
        self.address = address
        self.place = site.add(role)
        self.cable = Cable(self.place.call(_open_tap, "eth0"))
        self.place.ip("link", "set", "eth0", "address", address.mac, "mtu", str(mtu), "addrgenmode", "none")
        self.place.ip("address", "add", f"{address.ip}/{address.prefix_length}", "dev", "eth0")
        self.place.ip("address", "add", f"{address.ip6}/64", "dev", "eth0", "nodad")
        self.place.ip("neigh", "replace", GATEWAY6, "lladdr", GATEWAY_MAC, "dev", "eth0", "nud", "permanent")
        self.place.ip("link", "set", "eth0", "up")
        for gateway in (GATEWAY, GATEWAY6):
            self.place.ip("route", "add", "default", "via", gateway)

    def send_frame(self, frame: bytes) -> None:
        """Send a frame of any making, past the guest's own kernel."""
        assert self.cable.host_end is not None
        os.write(self.cable.host_end, NO_OFFLOAD + frame)


def _open_tap(name: str) -> int:
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x0002 | 0x1000 | 0x4000))
    return tap


@contextlib.contextmanager
def echo_server(place: Place, address: str, port: int) -> Iterator[list[str]]:
    """Answer every connection with what it says; yields the addresses that callers came from."""
    callers: list[str] = []
    listening = place.listen(address, port)
    open_connections: list[socket.socket] = []

    def echo(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            while said := connection.recv(65536):
                connection.sendall(said)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, caller = listening.accept()
                callers.append(caller[0])
                open_connections.append(connection)
                threading.Thread(target=echo, args=(connection,), daemon=True).start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield callers
    finally:
        _hang_up(listening)
        accepting.join(CALL_LIMIT_S)  # what it had taken just before is among the connections now
        for each in open_connections:
            _hang_up(each)


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def greet(place: Place, address: str, port: int) -> None:
    """Call an echo server and hear it answer: from then on it counts this call among its callers."""
    with contextlib.closing(place.connect(address, port)) as connection:
        connection.sendall(b"greeting")
        assert connection.recv(8)


def hears(place: Place, address: str, port: int, limit_s: float = 0.7) -> bool:
    """Whether somebody answers there; a connection that carries nothing is none, and whatever is opened is closed."""
    try:
        with contextlib.closing(place.connect(address, port, limit_s)) as connection:
            connection.sendall(b"is anybody there")
            return bool(connection.recv(1))
    except OSError:  # refused, unreachable and silence are all the same
        return False


# ---------------------------------------------------------------- frames


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def ether(source: str, target: str, kind: int, payload: bytes) -> bytes:
    return mac(target) + mac(source) + struct.pack("!H", kind) + payload


def arp(sender_mac: str, sender_ip: str, target_ip: str, *, operation: int = 1, target_mac: str = "") -> bytes:
    return (
        struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
        + mac(sender_mac)
        + socket.inet_aton(sender_ip)
        + mac(target_mac or "00:00:00:00:00:00")
        + socket.inet_aton(target_ip)
    )


def udp(source: str, target: str, payload: bytes, *, sport: int = 4000, dport: int = 4000) -> bytes:
    """An IPv4 packet with a UDP datagram (which needs no checksum)."""
    datagram = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(datagram), 0, 0, 64, 17, 0)
    head += socket.inet_aton(source) + socket.inet_aton(target)
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + datagram


def udp6(source: str, target: str, payload: bytes, *, sport: int = 4000, dport: int = 4000) -> bytes:
    """An IPv6 packet with a UDP datagram, which needs its checksum."""
    ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target)
    length = 8 + len(payload)
    counted = ends + struct.pack("!IIHHHH", length, 17, sport, dport, length, 0) + payload
    check = checksum(counted + bytes(len(counted) % 2))
    head = struct.pack("!IHBB", 0x60000000, length, 17, 64) + ends
    return head + struct.pack("!HHHH", sport, dport, length, check) + payload


def checksum(octets: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def frame(address: GuestAddress, target_ip: str, payload: bytes, **ports: int) -> bytes:
    """What an honest guest sends: IPv4 through its gateway."""
    return ether(address.mac, GATEWAY_MAC, 0x0800, udp(address.ip, target_ip, payload, **ports))
