"""Names and addresses: one string for one thing, in the cloud, in GitHub, in the store and on disk.

A guest keeps its MAC and its IP address wherever it runs, so both follow from
the runner's number alone, and so does the unprivileged user that its monitor
runs as.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final, NewType

from workers.domain.errors import Bug

HostId = NewType("HostId", str)
RunnerId = NewType("RunnerId", str)
MigrationId = NewType("MigrationId", str)
JobId = NewType("JobId", int)
"""GitHub's own number of a job; a rerun is another job."""
PackageDigest = NewType("PackageDigest", str)
"""`sha256:` and the hex digest of the package's file."""

GUEST_NETWORK: Final = ipaddress.IPv4Network("10.77.0.0/16")
GATEWAY: Final = str(GUEST_NETWORK[1])
GATEWAY_MAC: Final = "52:54:00:77:00:01"
# An IPv6 address ends in the IPv4 one, so that whoever checks the one can check the other.
GUEST_NETWORK6: Final = ipaddress.IPv6Network("fd73:706f:7400::/64")
GATEWAY6: Final = str(GUEST_NETWORK6[int(GUEST_NETWORK[1])])
# The first numbers are left to the gateway and to what may come to stand beside it.
FIRST_NUMBER: Final = 16
NUMBERS_MAX: Final = GUEST_NETWORK.num_addresses - FIRST_NUMBER - 1
# Above every user that a distribution or a container runtime hands out by itself.
FIRST_USER: Final = 1_900_000_000


@dataclass(frozen=True)
class GuestAddress:
    """What a runner's guest is called on the wire."""

    mac: str
    ip: str
    gateway: str = GATEWAY
    prefix_length: int = GUEST_NETWORK.prefixlen

    @property
    def ip6(self) -> str:
        """Its IPv6 address, which follows from the IPv4 one."""
        return str(GUEST_NETWORK6[int(ipaddress.IPv4Address(self.ip))])


def host_id(token: str) -> HostId:
    """Name a host; `token` is any short unique text."""
    return HostId(f"spot-host-{token}")


def runner_id(token: str) -> RunnerId:
    """Name a runner; GitHub shows this name to the user."""
    return RunnerId(f"spot-runner-{token}")


def migration_id(token: str) -> MigrationId:
    """Name a migration."""
    return MigrationId(f"spot-move-{token}")


def move_name(host: HostId, move: MigrationId) -> str:
    """Name one host's part in one migration: its certificate is good for that and for nothing else."""
    return f"{host}.{move}"


def guest_address(number: int) -> GuestAddress:
    """Return the address of the runner with this number, 0 <= number < `NUMBERS_MAX`."""
    if not 0 <= number < NUMBERS_MAX:
        raise Bug(f"runner number {number} has no address")
    place = FIRST_NUMBER + number
    return GuestAddress(mac=f"52:54:00:77:{place >> 8:02x}:{place & 255:02x}", ip=str(GUEST_NETWORK[place]))


def monitor_user(number: int) -> int:
    """Return the user id that the monitor of the runner with this number runs as."""
    if not 0 <= number < NUMBERS_MAX:
        raise Bug(f"runner number {number} has no user")
    return FIRST_USER + number
