"""What a guest must do when it wakes up from a snapshot that others woke up from, too.

The order matters. Whoever draws a random number before the reseed draws what
all its siblings draw; whoever opens a connection before the clock is set
checks certificates against the day of the snapshot; and a link that is up
before the address has changed speaks in another's name.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path
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

    @property
    def address(self) -> Address:
        """Its place in the network."""
        return Address(self.mac, self.ip, self.prefix_length, self.gateway, self.gateway_mac, self.mtu)


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
    Path(f"/proc/sys/net/ipv6/conf/{INTERFACE}/disable_ipv6").write_text("1")
    bring_up(INTERFACE, identity.address)
    return {"clock_step_s": step}


def reseed(seed: bytes) -> None:
    """Make the kernel's random numbers this guest's own; `seed` comes from the host and is used once."""
    if len(seed) != SEED_SIZE:
        raise ValueError(f"a seed has {SEED_SIZE} bytes")
    with Path("/dev/urandom").open("wb") as random:
        fcntl.ioctl(random, RNDADDENTROPY, entropy(seed))
        fcntl.ioctl(random, RNDRESEEDCRNG)


def entropy(seed: bytes) -> bytes:
    """Return `struct rand_pool_info`: how many bits to credit, how many bytes follow, the bytes."""
    return struct.pack("=ii", len(seed) * 8, len(seed)) + seed


def set_clock(now: float) -> float:
    """Step the wall clock and return by how many seconds it moved."""
    step = now - time.time()
    time.clock_settime(time.CLOCK_REALTIME, now)
    return step


def take_name(machine_id: str, hostname: str, root: Path = Path("/")) -> None:
    """Write the machine id and the host name where programs look for them."""
    (root / "etc/machine-id").write_text(f"{machine_id}\n")
    (root / "etc/hostname").write_text(f"{hostname}\n")
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {hostname}\n")
    if root == Path("/"):
        socket.sethostname(hostname)
