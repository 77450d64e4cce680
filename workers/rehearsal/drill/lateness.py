"""Lets what this network namespace sends to one address leave late: `lateness OWN ADDRESS SECONDS`, until SIGTERM.

    sender ──▶ rule: to ADDRESS ──▶ tun ──▶ this program, which waits ──▶ raw socket with a mark ──▶ rule: main ──▶ wire

Answers that come late make every round trip longer by as much, and there are far fewer of them than of what they
answer.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
import sys
import time
from collections import deque
from typing import Final

from workers.rehearsal.commands import run, run_quietly

DEVICE: Final = "late"
ROUTES: Final = 77
MARK: Final = 77
PACKET_MAX: Final = 65535
# From the kernel's include/uapi/linux/if_tun.h and include/uapi/asm-generic/socket.h.
TUNSETIFF: Final = 0x400454CA
IFF_TUN: Final = 0x0001
IFF_NO_PI: Final = 0x1000
SO_MARK: Final = 36
VERSION_4: Final = 4
# Where an IPv4 header has the address to which it goes.
DESTINATION: Final = slice(16, 20)


def open_tun() -> int:
    """Return a network device that is there for as long as this file is open."""
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), IFF_TUN | IFF_NO_PI))
    return file


def lead_through(own: str, address: str) -> None:
    """Send through the device whatever goes to the address and is not ours."""
    run("ip", "link", "set", DEVICE, "up")
    run("ip", "route", "add", address, "dev", DEVICE, "src", own, "table", str(ROUTES))
    run("ip", "rule", "add", "fwmark", str(MARK), "lookup", "main", "pref", str(ROUTES - 1))
    run("ip", "rule", "add", "to", address, "lookup", str(ROUTES), "pref", str(ROUTES))


def lead_back() -> None:
    """Let everything take its ordinary way; the device's routes go with it."""
    for preference in (ROUTES, ROUTES - 1):
        run_quietly("ip", "rule", "del", "pref", str(preference))


def carry(tun: int, seconds: float) -> None:
    """Hand on every packet so many seconds after it came, for ever."""
    out = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    out.setsockopt(socket.SOL_SOCKET, SO_MARK, MARK)
    waiting: deque[tuple[float, bytes]] = deque()
    while True:
        rest = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        if select.select([tun], [], [], rest)[0]:
            waiting.append((time.monotonic() + seconds, os.read(tun, PACKET_MAX)))
        while waiting and waiting[0][0] <= time.monotonic():
            packet = waiting.popleft()[1]
            if packet[0] >> 4 == VERSION_4:  # the kernel also says IPv6's hello to the device
                with contextlib.suppress(OSError):  # a wire loses what it has no room for
                    out.sendto(packet, (socket.inet_ntoa(packet[DESTINATION]), 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("own")
    parser.add_argument("address")
    parser.add_argument("seconds", type=float)
    told = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    tun = open_tun()
    try:
        lead_through(told.own, told.address)
        carry(tun, told.seconds)
    finally:
        lead_back()


if __name__ == "__main__":
    main()
