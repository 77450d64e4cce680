"""Who shares the source's line with whom: targets are given out, then moves take their turns on a few lanes.

    lane 1  ─ smallest ──┬─ third ────────┐                  a lane is an equal part of the line
    lane 2  ─ second ─────┴─ fourth ──────┴─ put off ───     and what is put off comes last

At an equal total fewer moves at a time with bigger shares bring the first ones home sooner, and what a guest writes
meanwhile is sent again less often. One alone would leave the line idle while its target starts and while it switches
over, hence two; and as one stream cannot fill a fast line, more where the line is fast.

Nothing here knows the deadline, so a schedule is the same for every deadline and a later one can only save more of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from workers.domain.host import fits
from workers.domain.host_class import HostClass, mismatch
from workers.domain.messages import Load
from workers.domain.names import HostId, RunnerId
from workers.domain.runner import Shape
from workers.planning.estimates import FAR_MIB_S, NEAR_MIB_S, load_or_guess, move_time
from workers.planning.fleet import minus

# One stream under TLS was measured to carry 190 to 205 MB/s.
STREAM_MIB_S: Final = 190.0
LANES_MIN: Final = 2
# The row, heartbeats and the guests' own connections use the line too.
USABLE: Final = 0.9


@dataclass(frozen=True)
class Guest:
    """One busy runner that must leave."""

    runner_id: RunnerId
    shape: Shape
    load: Load | None = None
    """As its host measured it; None: not yet, so the worst is assumed."""
    job_age: timedelta | None = None
    may_rerun: bool = False
    """Its workflow says that its job may be stopped and run again instead."""
    hold_until: datetime | None = None
    """Its job has asked not to be moved before."""
    ends_at: datetime | None = None
    """When its job is expected to end, if that is known."""
    tried: tuple[HostId, ...] = ()
    """Where it was sent in vain, the latest last."""

    @property
    def burden(self) -> Load:
        """What a move carries, guessed as far as it was not measured."""
        return load_or_guess(self.load, self.shape)


@dataclass(frozen=True)
class Target:
    """A host that takes guests now."""

    host_id: HostId
    host_class: HostClass | None
    room: Shape
    is_near: bool = True
    """In the source's own cloud."""
    line_mib_s: float | None = None
    """From the source to here, as it was measured; None: never."""

    @property
    def speed_mib_s(self) -> float:
        """The line's speed, assumed if it was never measured."""
        return self.line_mib_s or (NEAR_MIB_S if self.is_near else FAR_MIB_S)


@dataclass(frozen=True)
class Errand:
    """A guest and where it goes."""

    guest: Guest
    target: Target | None
    """None: no host has room for it; if it goes, it goes to the store."""
    put_off: bool = False
    """After all others, whoever is smaller."""
    not_before: datetime | None = None


@dataclass(frozen=True)
class Slot:
    """An errand's turn on the line."""

    errand: Errand
    begins_at: datetime
    ends_at: datetime
    share_mib_s: float


def errands(source: HostClass | None, guests: Iterable[Guest], targets: Sequence[Target]) -> tuple[Errand, ...]:
    """Give every guest a target that can run it and has room, the smallest guest first.

    A target that failed it before comes after the others, another cloud after the own one; among equals the fullest,
    so that whole hosts stay empty.
    """
    left = {target.host_id: target for target in targets if _can_run(source, target)}
    found = []
    for guest in sorted(guests, key=lambda guest: (move_time(guest.burden, NEAR_MIB_S), guest.runner_id)):
        target = min(
            (one for one in left.values() if fits(guest.shape, one.room)),
            key=lambda one: (*_distance(guest, one), one.room.memory_mib, one.host_id),
            default=None,
        )
        if target is not None:
            left[target.host_id] = replace(target, room=minus(target.room, guest.shape))
        found.append(Errand(guest, target))
    return tuple(found)


def _distance(guest: Guest, target: Target) -> tuple[int, bool, float]:
    before = guest.tried.index(target.host_id) if target.host_id in guest.tried else -1
    return before, not target.is_near, -target.speed_mib_s


def why_nowhere(source: HostClass | None, targets: Sequence[Target]) -> str:
    """Say in a few words why a guest that got no target got none."""
    if not targets:
        return "no other host takes guests now"
    if any(_can_run(source, target) for target in targets):
        return "no host has room for it"
    refusals = (source and one.host_class and mismatch(source, one.host_class) for one in targets)
    return f"no host can run it ({next((why for why in refusals if why), 'their class is not known yet')})"


def _can_run(source: HostClass | None, target: Target) -> bool:
    return source is not None and target.host_class is not None and mismatch(source, target.host_class) is None


def line_speed(targets: Sequence[Target]) -> float:
    """Return how fast the source's line is: as fast as to the best target; without one, as is assumed of any."""
    return max((target.speed_mib_s for target in targets), default=NEAR_MIB_S)


def lane_count(line_mib_s: float, moves: int) -> int:
    """Return how many moves share the line at a time."""
    return max(1, min(moves, max(LANES_MIN, 1 + math.ceil(line_mib_s / STREAM_MIB_S))))


def schedule(
    wanted: Sequence[Errand],
    line_mib_s: float,
    under_way: Sequence[datetime],
    now: datetime,
    lanes_max: int | None = None,
) -> tuple[Slot, ...]:
    """Give every errand its turn and its share, the shortest first, what is put off last.

    `under_way` says when each move that has begun is expected to end; until then it keeps its lane.
    """
    lanes = lanes_max or lane_count(line_mib_s, len(wanted) + len(under_way))
    share = line_mib_s * USABLE / lanes
    free_at = ([now] * lanes + sorted(max(now, at) for at in under_way))[-lanes:]
    slots = []
    for errand in sorted(wanted, key=lambda errand: _turn(errand, share, now)):
        free_at.sort()
        begins_at = max(free_at[0], errand.not_before or now)
        free_at[0] = begins_at + _length(errand, share)
        slots.append(Slot(errand, begins_at, free_at[0], _share(errand, share)))
    return tuple(slots)


def _turn(errand: Errand, share_mib_s: float, now: datetime) -> tuple[bool, datetime, timedelta, RunnerId]:
    return (
        errand.put_off,
        max(now, errand.not_before or now),
        _length(errand, share_mib_s),
        errand.guest.runner_id,
    )


def _length(errand: Errand, share_mib_s: float) -> timedelta:
    return move_time(errand.guest.burden, _share(errand, share_mib_s))


def _share(errand: Errand, share_mib_s: float) -> float:
    return share_mib_s if errand.target is None else min(share_mib_s, errand.target.speed_mib_s)
