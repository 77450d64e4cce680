"""What a guest must do when it wakes up from a snapshot that others woke up from, too.

The order matters. Whoever draws a random number before the reseed draws what
all its siblings draw; whoever opens a connection before the clock is set
checks certificates against the day of the snapshot; and a link that is up
before the address has changed speaks in another's name.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import time
from dataclasses import dataclass
from typing import Any, Final

from guest_agent.netlink import Address, bring_up

INTERFACE: Final = "eth0"
# <linux/random.h>: mix bytes in and credit them, then throw the generator's present key away.
RNDADDENTROPY: Final = 0x40085203
RNDRESEEDCRNG: Final = 0x5207
SEED_SIZE: Final = 32


@dataclass(frozen=True)
class Identity:
    """Who a restored guest is from now on; the names are the protocol's."""

    seed: str
    now: float
    machine_id: str
    hostname: str
    mac: str
    ip: str
    prefix_length: int
    gateway: str
    gateway_mac: str
    mtu: int
    ip6: str = ""
    prefix6_length: int = 64
    gateway6: str = ""

    @property
    def address(self) -> Address:
        """Its place in the network."""
        return Address(
            self.mac,
            self.ip,
            self.prefix_length,
            self.gateway,
            self.gateway_mac,
            self.mtu,
            self.ip6,
            self.prefix6_length,
            self.gateway6,
        )


def after_resume(reason: str, told: dict[str, Any]) -> dict[str, float]:
    """Become somebody (`restored`) or only learn what time it is (`unparked`); return by how much the clock moved."""
    identity = Identity(**told)
    if reason == "unparked":
        return {"clock_step_s": set_clock(identity.now)}
    if reason != "restored":
        raise ValueError("the reason is neither restored nor unparked")
    reseed(bytes.fromhex(identity.seed))
    step = set_clock(identity.now)
    take_name(identity.machine_id, identity.hostname)
    _set_ipv6(INTERFACE, is_wanted=bool(identity.ip6))
    bring_up(INTERFACE, identity.address)
    return {"clock_step_s": step}


def reseed(seed: bytes) -> None:
    """Make the kernel's random numbers this guest's own; `seed` comes from the host and is used once."""
    if len(seed) != SEED_SIZE:
        raise ValueError(f"a seed has {SEED_SIZE} bytes")
    random = os.open("/dev/urandom", os.O_WRONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(random, RNDADDENTROPY, entropy(seed))
        fcntl.ioctl(random, RNDRESEEDCRNG)
    finally:
        os.close(random)


def entropy(seed: bytes) -> bytes:
    """Return `struct rand_pool_info`: how many bits to credit, how many bytes follow, the bytes."""
    return struct.pack("=ii", len(seed) * 8, len(seed)) + seed


def set_clock(now: float) -> float:
    """Step the wall clock and return by how many seconds it moved."""
    step = now - time.time()
    time.clock_settime(time.CLOCK_REALTIME, now)
    return step


def take_name(machine_id: str, hostname: str, root: str = "/") -> None:
    """Write the machine id and the host name where programs look for them."""
    _write(f"{root}/etc/machine-id", f"{machine_id}\n")
    _write(f"{root}/etc/hostname", f"{hostname}\n")
    _write(f"{root}/etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {hostname}\n")
    if root == "/":
        socket.sethostname(hostname)


def _set_ipv6(interface: str, *, is_wanted: bool) -> None:
    """Let IPv6 have the address that we give it and no other: none of its own making, none that a router offers."""
    settings = {"addr_gen_mode": 1, "accept_ra": 0, "disable_ipv6": int(not is_wanted)}
    for name, value in settings.items():
        _write(f"/proc/sys/net/ipv6/conf/{interface}/{name}", str(value))


def _write(path: str, text: str) -> None:
    """Write a file by bare system calls: what is code here has to be translated first, while the host waits."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)
