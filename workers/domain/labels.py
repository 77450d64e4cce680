"""What a job may ask for with `runs-on:`.

So far `spot-runner` is served, alone or with the labels that GitHub gives every
self-hosted runner, and with `network=relay` or `network=nat`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from workers.domain.overlay import GuestNetwork

SERVED: Final = "spot-runner"
# GitHub gives these to every self-hosted Linux runner by itself.
IMPLIED: Final = frozenset({"self-hosted", "linux", "x64"})
NETWORKS: Final = {f"network={each}": each for each in GuestNetwork}


@dataclass(frozen=True)
class Unserved:
    """Nobody here serves these labels, and why."""

    reason: str


def served(labels: Iterable[str]) -> Unserved | None:
    """Return None if a runner of ours fits these labels, else the reason. GitHub compares labels without case."""
    asked = {label.lower() for label in labels}
    if SERVED not in asked:
        return Unserved(f"runs-on {sorted(asked)} does not name {SERVED!r}; write `runs-on: {SERVED}`")
    if len(asked & NETWORKS.keys()) > 1:
        return Unserved(f"runs-on asks for {' and '.join(sorted(asked & NETWORKS.keys()))}; name one of them")
    if unknown := asked - IMPLIED - {SERVED} - NETWORKS.keys():
        return Unserved(f"runs-on asks for {sorted(unknown)}, which no pool offers; remove them or add a pool")
    return None


def network_of(labels: Iterable[str], default: GuestNetwork) -> GuestNetwork:
    """Return the network that these labels ask for, or else the default."""
    asked = {label.lower() for label in labels}
    return next((network for label, network in NETWORKS.items() if label in asked), default)
