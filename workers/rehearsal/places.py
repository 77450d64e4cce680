"""Where a rehearsal keeps its things and how they are called; two rehearsals with different names never meet.

underlay 10.90.0.0/24                  internet 198.18.0.0/24
control .2   relay .3   hosts .16+     control .2   relay .3   internet .10   this machine .1 (with --keep)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final

from workers.domain.errors import BadInput

UNDERLAY: Final = IPv4Network("10.90.0.0/24")
INTERNET: Final = IPv4Network("198.18.0.0/24")
CONTROL_UNDERLAY: Final = UNDERLAY[2]
CONTROL_INTERNET: Final = INTERNET[2]
RELAY_UNDERLAY: Final = UNDERLAY[3]
RELAY_INTERNET: Final = INTERNET[3]
INTERNET_SERVERS: Final = INTERNET[10]
# Where clouds that are played answer: hosts reach them too, since guests are parked in their object store.
CLOUDS: Final = UNDERLAY[4]
# What stands at Hetzner has its own address out of this; everything at AWS is behind a NAT below it.
HETZNER: Final = IPv4Network("10.90.0.192/26")
NATS: Final = IPv4Network("10.90.0.0/25")
# Behind every NAT of the rehearsal there is the same network, as there is behind most.
PRIVATE: Final = IPv4Network("192.168.1.0/24")
NAT_INSIDE: Final = PRIVATE[1]
PRIVATE_HOST: Final = PRIVATE[2]
WINDOW: Final = INTERNET[1]
FIRST_HOST: Final = 16
LAST_HOST: Final = 250

GITHUB_PORT: Final = 8000
GIT_PORT: Final = 9418
ECHO_PORT: Final = 7000
STEADY_PORT: Final = 7001
MARKET_PORT: Final = 8700
AWS_PORT: Final = 8701
MOTO_PORT: Final = 8702
HETZNER_PORT: Final = 8703
AWS_URL: Final = f"http://{CLOUDS}:{AWS_PORT}"
MOTO_URL: Final = f"http://127.0.0.1:{MOTO_PORT}"
"""Nobody outside reaches it but through `AWS_URL`."""
HETZNER_URL: Final = f"http://{CLOUDS}:{HETZNER_PORT}"
WEBHOOK_PORT: Final = 8080
HOST_LISTENER_PORT: Final = 8443
RELAY_PORT: Final = 8445

# No hyphen, so that no rehearsal's name is the beginning of another's; short, because interface names are.
NAME: Final = re.compile(r"[a-z][a-z0-9]{0,7}")


@dataclass(frozen=True)
class Places:
    """One rehearsal's folders and names."""

    name: str

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise BadInput(f"rehearsal name {self.name!r}: use 1 to 8 of a-z and 0-9, beginning with a letter")

    @property
    def run(self) -> Path:
        """Journal and sockets."""
        return Path("/run/spot-runner") / self.name

    @property
    def lock(self) -> Path:
        """Held while the rehearsal runs; outside `run`, because that folder is removed at the end."""
        return Path("/run/spot-runner") / f"{self.name}.lock"

    @property
    def journal(self) -> Path:
        """What was made on this machine."""
        return self.run / "journal.jsonl"

    @property
    def state(self) -> Path:
        """What needs a disk: homes of the programs, repositories."""
        return Path("/var/lib/spot-rehearsal") / self.name

    @property
    def logs(self) -> Path:
        """One file for each program; kept until the next rehearsal of this name."""
        return Path("/var/log/spot-rehearsal") / self.name

    def namespace(self, role: str) -> str:
        """Name the network namespace of a role (`switch`, `control`, `relay`, `internet`) or of a host."""
        return f"{self.name}-{role}"


def host_address(number: int) -> str:
    """Return the address of the market's host with this number, counted from 0."""
    if not 0 <= number <= LAST_HOST - FIRST_HOST:
        raise BadInput(
            f"host number {number}: the rehearsal's underlay has room for {LAST_HOST - FIRST_HOST + 1} hosts"
        )
    return str(UNDERLAY[FIRST_HOST + number])


def with_length(address: IPv4Address | str, network: IPv4Network) -> str:
    """Write an address the way `ip address add` wants it."""
    return f"{address}/{network.prefixlen}"
