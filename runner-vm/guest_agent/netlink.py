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


@dataclass(frozen=True)
class Address:
    """What an interface is called on the wire, and through whom it reaches everybody else."""

    mac: str
    ip: str
    prefix_length: int
    gateway: str
    gateway_mac: str
    mtu: int


def bring_up(interface: str, address: Address) -> None:
    """Give the interface its address and only then let it up. Raises `OSError` with the kernel's reason."""
    index = socket.if_nametoindex(interface)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.bind((0, 0))
        _change(netlink, RTM_NEWLINK, CHANGE, _link(index, 0) + _mac_and_mtu(address))
        _change(netlink, RTM_NEWADDR, REPLACE, _ip(index, address))
        _change(netlink, RTM_NEWNEIGH, REPLACE, _neighbour(index, address))
        _change(netlink, RTM_NEWLINK, CHANGE, _link(index, IFF_UP))
        # The kernel takes no route over an interface that is down.
        _change(netlink, RTM_NEWROUTE, REPLACE, _default_route(index, address))


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


def _ip(index: int, address: Address) -> bytes:
    ip = socket.inet_aton(address.ip)
    header = struct.pack("=BBBBi", socket.AF_INET, address.prefix_length, 0, 0, index)
    return header + _attribute(1, ip) + _attribute(2, ip)


def _neighbour(index: int, address: Address) -> bytes:
    header = struct.pack("=BxxxiHBB", socket.AF_INET, index, NUD_PERMANENT, 0, 0)
    return header + _attribute(1, socket.inet_aton(address.gateway)) + _attribute(2, _octets(address.gateway_mac))


def _default_route(index: int, address: Address) -> bytes:
    header = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, 0, RTN_UNICAST, 0)
    return header + _attribute(5, socket.inet_aton(address.gateway)) + _attribute(4, struct.pack("=I", index))


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))
