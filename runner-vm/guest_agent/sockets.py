"""Ends every TCP connection of this guest at once: where it is now, nobody knows them.

After a move to a host that does the NAT itself a program that sends hears of it by a reset; one that only waits would
wait for ever, so the kernel is told to end its connections (sock_diag(7), SOCK_DESTROY, as `ss -K` does).
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from typing import Final

NETLINK_SOCK_DIAG: Final = 4
SOCK_DIAG_BY_FAMILY: Final = 20
SOCK_DESTROY: Final = 21
NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
REQUEST: Final = 0x1
ACK: Final = 0x4
DUMP: Final = 0x300
TCP_LISTEN: Final = 10
# Everything but those that listen and those that are over already (TIME_WAIT, CLOSE).
ALIVE: Final = 0xFFFFFFFF & ~(1 << TCP_LISTEN | 1 << 6 | 1 << 7)
# struct inet_diag_sockid: ports, both addresses, interface, cookie.
SOCKID: Final = struct.Struct("=4s16s16s4s8s")
LIMIT_S: Final = 2.0


def reset_connections() -> int:
    """End every TCP connection that leaves this machine; return how many. Raises `OSError` if the kernel cannot."""
    ended = 0
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as diag:
        diag.settimeout(LIMIT_S)
        diag.bind((0, 0))
        for family in (socket.AF_INET, socket.AF_INET6):
            for sockid in list(_connections(diag, family)):
                ended += not _is_local(family, sockid) and _destroy(diag, family, sockid)
    return ended


def _connections(diag: socket.socket, family: int) -> Iterator[bytes]:
    _ask(diag, SOCK_DIAG_BY_FAMILY, REQUEST | DUMP, family, bytes(SOCKID.size))
    while True:
        for kind, body in _messages(diag.recv(1 << 16)):
            if kind == NLMSG_DONE:
                return
            if kind == NLMSG_ERROR:
                code = struct.unpack_from("=i", body)[0]
                raise OSError(-code, os.strerror(-code))
            # struct inet_diag_msg: family, state, timer, retransmissions, then the socket's id.
            yield body[4 : 4 + SOCKID.size]


def _destroy(diag: socket.socket, family: int, sockid: bytes) -> bool:
    _ask(diag, SOCK_DESTROY, REQUEST | ACK, family, sockid)
    for kind, body in _messages(diag.recv(1 << 16)):
        if kind == NLMSG_ERROR:
            code = struct.unpack_from("=i", body)[0]
            if code not in {0, -2}:  # ENOENT: it has just ended by itself
                raise OSError(-code, os.strerror(-code))
            return bool(code == 0)
    return False


def _ask(diag: socket.socket, kind: int, flags: int, family: int, sockid: bytes) -> None:
    # struct inet_diag_req_v2
    body = struct.pack("=BBBxI", family, socket.IPPROTO_TCP, 0, ALIVE) + sockid
    diag.send(struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body)


def _messages(octets: bytes) -> Iterator[tuple[int, bytes]]:
    while octets:
        length, kind = struct.unpack_from("=IH", octets)
        yield kind, octets[16:length]
        octets = octets[(length + 3) & ~3 :]


def _is_local(family: int, sockid: bytes) -> bool:
    target = SOCKID.unpack(sockid)[2]
    if family == socket.AF_INET:
        return ipaddress.IPv4Address(target[:4]).is_loopback
    address = ipaddress.IPv6Address(target)
    return (address.ipv4_mapped or address).is_loopback
