"""Just enough of rtnetlink to bring one interface up: a process for it would cost 50 ms under software emulation.

Every change is one message with the kernel's acknowledgement awaited; formats are those of rtnetlink(7).
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass
from typing import Final

RTM_NEWLINK: Final = 16
RTM_NEWADDR: Final = 20
RTM_NEWROUTE: Final = 24
RTM_NEWNEIGH: Final = 28
NLMSG_ERROR: Final = 2
# NLM_F_REQUEST | NLM_F_ACK, and NLM_F_REPLACE | NLM_F_CREATE: what is set twice is set once.
CHANGE: Final = 0x1 | 0x4
REPLACE: Final = CHANGE | 0x100 | 0x400

IFF_UP: Final = 1
NUD_PERMANENT: Final = 0x80
RT_TABLE_MAIN: Final = 254
RTPROT_STATIC: Final = 4
RTN_UNICAST: Final = 1
# Nobody else can have a guest's address, so nothing is asked before it is used.
IFA_F_NODAD: Final = 2


@dataclass(frozen=True)
class Address:
    """What an interface is called on the wire, and through whom it reaches everybody else."""

    mac: str
    ip: str
    prefix_length: int
    gateway: str
    gateway_mac: str
    mtu: int
    ip6: str = ""
    """Empty: no IPv6."""
    prefix6_length: int = 64
    gateway6: str = ""

    @property
    def families(self) -> tuple[Family, ...]:
        """Its addresses, the IPv4 one first."""
        ipv4 = Family(socket.AF_INET, self.ip, self.prefix_length, self.gateway)
        ipv6 = Family(socket.AF_INET6, self.ip6, self.prefix6_length, self.gateway6)
        return (ipv4, ipv6) if self.ip6 else (ipv4,)


@dataclass(frozen=True)
class Family:
    """One address, and the way to everybody else of its kind."""

    kind: int
    ip: str
    prefix_length: int
    gateway: str


def bring_up(interface: str, address: Address) -> None:
    """Give the interface its address and only then let it up. Raises `OSError` with the kernel's reason."""
    index = socket.if_nametoindex(interface)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.bind((0, 0))
        _change(netlink, RTM_NEWLINK, CHANGE, _link(index, 0) + _mac_and_mtu(address))
        for family in address.families:
            _change(netlink, RTM_NEWADDR, REPLACE, _ip(index, family))
            _change(netlink, RTM_NEWNEIGH, REPLACE, _neighbour(index, family, address.gateway_mac))
        _change(netlink, RTM_NEWLINK, CHANGE, _link(index, IFF_UP))
        # The kernel takes no route over an interface that is down.
        for family in address.families:
            _change(netlink, RTM_NEWROUTE, REPLACE, _default_route(index, family))


def _change(netlink: socket.socket, kind: int, flags: int, body: bytes) -> None:
    netlink.send(struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body)
    answer = netlink.recv(65536)
    _, answered, _, _, _, code = struct.unpack_from("=IHHIIi", answer)
    if answered != NLMSG_ERROR or code:
        raise OSError(-code, f"rtnetlink message {kind}: {os.strerror(-code)}")


def _link(index: int, flags: int) -> bytes:
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, flags, IFF_UP)


def _mac_and_mtu(address: Address) -> bytes:
    return _attribute(1, _octets(address.mac)) + _attribute(4, struct.pack("=I", address.mtu))


def _ip(index: int, family: Family) -> bytes:
    ip = socket.inet_pton(family.kind, family.ip)
    header = struct.pack("=BBBBi", family.kind, family.prefix_length, IFA_F_NODAD, 0, index)
    return header + _attribute(1, ip) + _attribute(2, ip)


def _neighbour(index: int, family: Family, gateway_mac: str) -> bytes:
    header = struct.pack("=BxxxiHBB", family.kind, index, NUD_PERMANENT, 0, 0)
    return header + _attribute(1, socket.inet_pton(family.kind, family.gateway)) + _attribute(2, _octets(gateway_mac))


def _default_route(index: int, family: Family) -> bytes:
    header = struct.pack("=BBBBBBBBI", family.kind, 0, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, 0, RTN_UNICAST, 0)
    gateway = socket.inet_pton(family.kind, family.gateway)
    return header + _attribute(5, gateway) + _attribute(4, struct.pack("=I", index))


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))
