"""What a guest may not say in IPv6."""

from __future__ import annotations

import socket
import struct

from tests.integration.neighbourhood import FAR, HOST6_A, INTERNET6, MARK, ME, METADATA6, NEIGHBOUR
from tests.integration.wires import ether, udp6
from workers.domain.names import GATEWAY6, GATEWAY_MAC

ALL_NODES, ALL_NODES_MAC = "ff02::1", "33:33:00:00:00:01"
HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION, ICMP, UDP, IPV4 = 0, 43, 44, 60, 58, 17, 4


def ip6(source: str, target: str, kind: int, payload: bytes) -> bytes:
    head = struct.pack("!IHBB", 0x60000000, len(payload), kind, 255)
    return head + socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target) + payload


def icmp6(source: str, target: str, kind: int, about: str = "::", option: str = "") -> bytes:
    """A message about neighbours or routers; the kernels that hear it check no more than we want to see dropped."""
    body = struct.pack("!BBHI", kind, 0, 0, 0xE0000000) + socket.inet_pton(socket.AF_INET6, about)
    body += b"\2\1" + bytes.fromhex(option.replace(":", "")) if option else b""
    return ip6(source, target, ICMP, body + MARK)


def sent(packet: bytes, source: str = ME.mac, target: str = GATEWAY_MAC) -> bytes:
    return ether(source, target, 0x86DD, packet)


def headed(kind: int) -> bytes:
    """An empty header of this kind, and behind it the UDP that would be seen without."""
    inner = udp6(ME.ip6, INTERNET6, MARK)[40:]
    return ip6(ME.ip6, INTERNET6, kind, struct.pack("!BB6x", UDP, 0) + inner)


ADVERTISEMENT = icmp6("fe80::1", ALL_NODES, 134)
HOSTILE6 = {
    "router advertisement": sent(ADVERTISEMENT, target=ALL_NODES_MAC),
    "router advertisement to the gateway": sent(ADVERTISEMENT),
    "router advertisement in its own name": sent(icmp6(ME.ip6, GATEWAY6, 134)),
    "router advertisement in a fragment": sent(
        ip6(ME.ip6, GATEWAY6, FRAGMENT, struct.pack("!BBHI", ICMP, 0, 1, 7) + icmp6(ME.ip6, GATEWAY6, 134)[40:])
    ),
    "router solicitation": sent(icmp6(ME.ip6, "ff02::2", 133), target="33:33:00:00:00:02"),
    "neighbour solicitation for the gateway": sent(
        icmp6(ME.ip6, "ff02::1:ff4d:1", 135, GATEWAY6, NEIGHBOUR.mac), target="33:33:ff:4d:00:01"
    ),
    "neighbour advertisement for the neighbour": sent(icmp6(ME.ip6, GATEWAY6, 136, NEIGHBOUR.ip6, ME.mac)),
    "neighbour advertisement for the gateway": sent(
        icmp6(ME.ip6, ALL_NODES, 136, GATEWAY6, ME.mac), target=ALL_NODES_MAC
    ),
    "neighbour advertisement to the neighbour": sent(
        icmp6(ME.ip6, NEIGHBOUR.ip6, 136, GATEWAY6, ME.mac), target=NEIGHBOUR.mac
    ),
    "redirect": sent(icmp6(ME.ip6, NEIGHBOUR.ip6, 137, INTERNET6, ME.mac), target=NEIGHBOUR.mac),
    "multicast listener report": sent(icmp6(ME.ip6, "ff02::16", 143), target="33:33:00:00:00:16"),
    "IPv6 with a foreign MAC": sent(udp6(ME.ip6, INTERNET6, MARK), source=NEIGHBOUR.mac),
    "IPv6 in the neighbour's name": sent(udp6(NEIGHBOUR.ip6, INTERNET6, MARK)),
    "IPv6 as the neighbour": sent(udp6(NEIGHBOUR.ip6, INTERNET6, MARK), source=NEIGHBOUR.mac),
    "IPv6 from a link-local address": sent(udp6("fe80::1", INTERNET6, MARK)),
    "IPv6 from an address of its own making": sent(udp6("2001:db8::5", INTERNET6, MARK)),
    "IPv6 from nobody": sent(udp6("::", INTERNET6, MARK)),
    "IPv6 to the metadata service": sent(udp6(ME.ip6, METADATA6, MARK)),
    "IPv6 to the host": sent(udp6(ME.ip6, HOST6_A, MARK)),
    "IPv6 to the neighbour": sent(udp6(ME.ip6, NEIGHBOUR.ip6, MARK)),
    "IPv6 to the neighbour's MAC": sent(udp6(ME.ip6, NEIGHBOUR.ip6, MARK), target=NEIGHBOUR.mac),
    "IPv6 to a far guest": sent(udp6(ME.ip6, FAR.ip6, MARK)),
    "IPv6 to an IPv4 address": sent(udp6(ME.ip6, "::ffff:169.254.169.254", MARK)),
    "IPv6 to everybody": sent(udp6(ME.ip6, ALL_NODES, MARK), target=ALL_NODES_MAC),
    "IPv6 to loopback": sent(udp6(ME.ip6, "::1", MARK)),
    "DHCPv6 answer": sent(udp6(ME.ip6, INTERNET6, MARK, sport=547, dport=546)),
    "hop-by-hop header": sent(headed(HOP_BY_HOP)),
    "routing header": sent(headed(ROUTING)),
    "destination options": sent(headed(DESTINATION)),
    "IPv4 inside IPv6": sent(ip6(ME.ip6, INTERNET6, IPV4, MARK)),
}
