"""How long a host took from being wanted until it was READY, stage by stage, by what the timeline says of it. Pure.

requested ─▶ launched ─▶ running ─▶ registered ─▶ (class measured, packages verified, proved) ─▶ READY
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Final

from workers.domain.events import Event, Happening
from workers.domain.names import HostId

ORDER: Final = (
    Happening.HOST_REQUESTED,
    Happening.HOST_LAUNCHED,
    Happening.HOST_RUNNING,
    Happening.HOST_REGISTERED,
    Happening.HOST_READY,
)


@dataclass(frozen=True)
class Readying:
    """One host on its way."""

    at: Mapping[Happening, datetime]
    """When each stage that was seen had been reached, in their order."""
    own_s: Mapping[str, float]
    """What the host itself took for what, between its registration and READY."""

    @property
    def ready_s(self) -> float | None:
        """Seconds from "running" until READY, None if it has not come so far."""
        begun, ready = self.at.get(Happening.HOST_RUNNING), self.at.get(Happening.HOST_READY)
        return None if begun is None or ready is None else (ready - begun).total_seconds()

    @property
    def spans_s(self) -> Mapping[str, float]:
        """Seconds from each stage that was seen to the next one, under the latter's name."""
        return {
            stage.value.removeprefix("host_"): round((at - before).total_seconds(), 3)
            for (_, before), (stage, at) in pairwise(self.at.items())
        }


def readying(events: Iterable[Event]) -> Mapping[HostId, Readying]:
    """Return how each host that the timeline tells of came to be ready; the first time counts."""
    at: dict[HostId, dict[Happening, datetime]] = {}
    own: dict[HostId, dict[str, float]] = {}
    for event in events:
        if event.host_id is None or event.happening not in ORDER:
            continue
        at.setdefault(event.host_id, {}).setdefault(event.happening, event.at)
        if event.happening is Happening.HOST_READY and event.host_id not in own:
            own[event.host_id] = {
                name: float(took) for name, took in event.detail.items() if isinstance(took, int | float)
            }
    return {
        host_id: Readying({stage: seen[stage] for stage in ORDER if stage in seen}, own.get(host_id, {}))
        for host_id, seen in at.items()
    }
