"""What a job may ask for with `runs-on:`.

So far one label is served: `spot-runner`, alone or with the labels that GitHub
gives every self-hosted runner.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

SERVED: Final = "spot-runner"
# GitHub gives these to every self-hosted Linux runner by itself.
IMPLIED: Final = frozenset({"self-hosted", "linux", "x64"})


@dataclass(frozen=True)
class Unserved:
    """Nobody here serves these labels, and why."""

    reason: str


def served(labels: Iterable[str]) -> Unserved | None:
    """Return None if a runner of ours fits these labels, else the reason. GitHub compares labels without case."""
    asked = {label.lower() for label in labels}
    if SERVED not in asked:
        return Unserved(f"runs-on {sorted(asked)} does not name {SERVED!r}; write `runs-on: {SERVED}`")
    if unknown := asked - IMPLIED - {SERVED}:
        return Unserved(f"runs-on asks for {sorted(unknown)}, which no pool offers; remove them or add a pool")
    return None
