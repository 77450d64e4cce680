"""What can be done to the wires of the rehearsal's hosts. Everything returns what mends it, harmless when repeated.

This kernel has no netem, so packets that are to come late go through a program: see `lateness`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from workers.rehearsal.commands import run, run_quietly
from workers.rehearsal.drill import lateness
from workers.rehearsal.places import Places
from workers.rehearsal.processes import Processes, Program
from workers.rehearsal.remains import Journal

TABLE: Final = "drill"
LATE_LIMIT_S: Final = 20.0

Repair = Callable[[], object]


@dataclass(frozen=True)
class Wires:
    """The wires of one rehearsal; `role` is a host or a part of the service."""

    places: Places
    journal: Journal

    def cut(self, role: str, address: str, verdict: str = "drop") -> Repair:
        """Let a role not hear an address; `verdict` is nftables' for each packet."""
        nft = (*self._inside(role), "nft")
        chain = f"type filter hook input priority -300; ip saddr {address} {verdict};"
        run(*nft, f"table inet {TABLE} {{ chain in {{ {chain} }}; }}")
        return partial(run_quietly, *nft, "delete", "table", "inet", TABLE)

    def slow(self, role: str) -> Repair:
        """Let a role send 5 Mbit/s."""
        tc = (*self._inside(role), "tc", "qdisc")
        run(*tc, "add", "dev", "eth0", "root", "tbf", "rate", "5mbit", "burst", "32kb", "latency", "50ms")
        return partial(run_quietly, *tc, "del", "dev", "eth0", "root")

    def part(self, role: str, own: str, address: str, seconds: float) -> Repair:
        """Let what a role sends to an address from its own come so many seconds late."""
        command = (sys.executable, "-m", lateness.__name__, own, address, str(seconds))
        programs = Processes(self.places.logs, self.journal)
        running = programs.start(Program(f"late.{role}", command, self.places.namespace(role)))
        running.wait_ready(lambda: self._is_parted(role), LATE_LIMIT_S)
        return programs.stop

    def _is_parted(self, role: str) -> bool:
        return f"lookup {lateness.ROUTES}" in run(*self._inside(role), "ip", "rule")

    def _inside(self, role: str) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self.places.namespace(role))
