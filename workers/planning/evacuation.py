"""Evacuation: what becomes of each busy runner of a host that the cloud takes back.

    guests, targets ─▶ errands ─▶ some schedules ─▶ the one that saves most by the deadline ─▶ a decision each

It is made anew every second from what is known then, so it only ever has to be right about what begins now: a move
that took longer, a target that came or went, a line that turned out faster are in the next plan.

The schedules to choose from do not depend on the deadline (a hold is kept or not, parks wait until the moves are over
or take their turn, the line is shared or not), so more time never saves fewer jobs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from workers.domain.host_class import HostClass
from workers.domain.names import HostId, RunnerId
from workers.planning.estimates import FIXED_S, move_time, sent_mib
from workers.planning.lanes import Errand, Guest, Slot, Target, errands, line_speed, schedule, why_nowhere

# The source gives up when so little is left (workers/host/sending.py), because backing out takes time too.
MARGIN: Final = timedelta(seconds=1)
# Even an empty guest needs about this long; what starts later costs the guest its last seconds, in which its job might
# have ended by itself.
LEAST: Final = MARGIN + timedelta(seconds=FIXED_S)
# What is put off begins with half again its time in hand, and with some seconds, since times are estimated.
RESERVE: Final = 0.5
RESERVE_LEAST: Final = timedelta(seconds=5)
# Clouds ask about 9 cents for a GiB that leaves them; a minute of a job, with the machine and those who wait, is
# counted as 3 cents.
FAR_S_PER_GIB: Final = 180.0
# GitHub fails the job of a guest that was stopped once its lock has expired; then the rerun waits for the end of its
# whole attempt, for a runner, and for a boot.
LOCK_S: Final = 600.0
RERUN_S: Final = LOCK_S + 60.0
MIB_PER_GIB: Final = 1024.0


@dataclass(frozen=True)
class Move:
    """Move it live; not before `starts_at`."""

    runner_id: RunnerId
    target_id: HostId
    starts_at: datetime
    ends_at: datetime
    """When its target runs it, as estimated."""
    share_mib_s: float | None
    """Of the line; None: the line was never measured, so it is not divided but shared evenly by its streams."""
    reason: str
    breaks_hold_until: datetime | None = None
    """The hold that the deadline does not allow to be kept."""


@dataclass(frozen=True)
class Park:
    """Put it into the store; not before `starts_at`, since a host may become ready until then."""

    runner_id: RunnerId
    starts_at: datetime
    ends_at: datetime
    reason: str


@dataclass(frozen=True)
class LetFinish:
    """Leave it alone: its job ends before the host does."""

    runner_id: RunnerId
    reason: str


@dataclass(frozen=True)
class Requeue:
    """Run its job again: at once if that is cheaper, at the deadline if nothing else is possible until then."""

    runner_id: RunnerId
    starts_at: datetime
    reason: str
    chance: HostId | None = None
    """It is not expected to get there in time, but nothing is lost by trying once the line is free."""
    is_cheaper: bool = False
    """It could be moved in time, at a higher cost."""


Decision = Move | Park | LetFinish | Requeue


@dataclass(frozen=True)
class Situation:
    """What is known of a host that leaves."""

    source: HostClass | None
    deadline_at: datetime
    guests: tuple[Guest, ...]
    """The busy runners that are not on their way yet."""
    targets: tuple[Target, ...] = ()
    under_way: tuple[datetime, ...] = ()
    """When each move that has begun is expected to end."""
    can_park: bool = False


def plan(seen: Situation, now: datetime) -> tuple[Decision, ...]:
    """Decide for every guest, in the order in which the moves begin; every guest gets exactly one decision."""
    found = errands(seen.source, seen.guests, seen.targets)
    short = [one for one in found if _ends_by_itself(one.guest, seen, now)]
    dear = {one.guest.runner_id: why for one in found if one not in short and (why := _cheaper_again(one, seen))}
    travelling = [one for one in found if one not in short and one.guest.runner_id not in dear]
    usable_until = seen.deadline_at - MARGIN
    slots = max(_schedules(travelling, seen, now), key=lambda slots: _saved(slots, usable_until))
    moved = (_decided(slot, seen) for slot in _late(slots, usable_until))
    left_alone = (_left_alone(one.guest, seen) for one in (*_homeless(travelling, slots), *short))
    return (*moved, *left_alone, *(Requeue(key, now, why, is_cheaper=True) for key, why in dear.items()))


def moves_now(decisions: Sequence[Decision], seen: Situation, now: datetime) -> tuple[Move, ...]:
    """Return the moves that begin now: whose turn has come, or, if the line has nothing else to carry, one chance."""
    moves = [one for one in decisions if isinstance(one, Move)]
    if moves or seen.under_way or seen.deadline_at - now < LEAST:
        return tuple(move for move in moves if move.starts_at <= now)
    held = {guest.runner_id: guest.hold_until for guest in seen.guests if guest.hold_until and now < guest.hold_until}
    chances = (
        Move(one.runner_id, one.chance, now, seen.deadline_at, None, _worth_it(one), held.get(one.runner_id))
        for one in decisions
        if isinstance(one, Requeue) and one.chance is not None
    )
    return tuple(chances)[:1]


def parks_now(decisions: Sequence[Decision], now: datetime) -> tuple[Park, ...]:
    """Return the parks that begin now: a host that becomes ready later comes too late for them."""
    return tuple(one for one in decisions if isinstance(one, Park) and one.starts_at <= now)


def requeues_now(decisions: Sequence[Decision]) -> tuple[Requeue, ...]:
    """Return whose jobs are stopped now to be run again; who can only be saved by luck keeps running until the end."""
    return tuple(one for one in decisions if isinstance(one, Requeue) and one.is_cheaper)


def _worth_it(tried: Requeue) -> str:
    return f"worth a try, although {tried.reason}"


# ---------------------------------------------------------------- what is cheaper, what ends by itself


def _cheaper_again(errand: Errand, seen: Situation) -> str | None:
    """Say why running it again costs less than moving it, None if it does not or must not be."""
    guest, target = errand.guest, errand.target
    if not guest.may_rerun or guest.job_age is None or target is None or target.is_near:
        return None
    again_s = guest.job_age.total_seconds() + RERUN_S
    gib = sent_mib(guest.burden, min(target.speed_mib_s, line_speed(seen.targets))) / MIB_PER_GIB
    if again_s >= gib * FAR_S_PER_GIB:
        return None
    return f"running it again costs {again_s:.0f} s, moving it to another cloud as much as {gib * FAR_S_PER_GIB:.0f} s"


def _ends_by_itself(guest: Guest, seen: Situation, now: datetime) -> bool:
    """Say whether it is over before even a move that begins now and has the whole line."""
    return guest.ends_at is not None and guest.ends_at <= now + move_time(guest.burden, line_speed(seen.targets))


def _left_alone(guest: Guest, seen: Situation) -> LetFinish | Requeue:
    if guest.ends_at is not None and guest.ends_at <= seen.deadline_at - MARGIN:
        return LetFinish(guest.runner_id, "its job is expected to end first")
    return Requeue(guest.runner_id, seen.deadline_at, why_nowhere(seen.source, seen.targets))


# ---------------------------------------------------------------- which schedule


def _schedules(travelling: Sequence[Errand], seen: Situation, now: datetime) -> Iterator[tuple[Slot, ...]]:
    """Yield the schedules to choose from, the kindest first: holds break one by one, then parks take their turn."""
    going = [one for one in travelling if one.target is not None or seen.can_park]
    held = [one for one in going if _is_held(one, now)]
    held.sort(key=lambda one: (one.guest.hold_until or now, one.guest.runner_id), reverse=True)
    orders = [_kind(going, {one.guest.runner_id for one in held[:broken]}, now) for broken in range(len(held) + 1)]
    line = line_speed(seen.targets)
    for order in (*orders, going):
        yield schedule(order, line, seen.under_way, now)
        yield schedule(order, line, seen.under_way, now, lanes_max=1)


def _kind(going: Sequence[Errand], ignored: set[RunnerId], now: datetime) -> list[Errand]:
    """Put off whoever is held, and whoever goes to the store."""
    return [
        replace(
            one,
            put_off=one.target is None or _is_held(one, now),
            not_before=None if one.guest.runner_id in ignored else one.guest.hold_until,
        )
        for one in going
    ]


def _is_held(errand: Errand, now: datetime) -> bool:
    return errand.guest.hold_until is not None and now < errand.guest.hold_until


def _saved(slots: Sequence[Slot], usable_until: datetime) -> int:
    return sum(slot.ends_at <= usable_until or _ends_until(slot, usable_until) for slot in slots)


def _ends_until(slot: Slot, usable_until: datetime) -> bool:
    ends_at = slot.errand.guest.ends_at
    return ends_at is not None and ends_at <= usable_until


def _homeless(travelling: Sequence[Errand], slots: Sequence[Slot]) -> Iterator[Errand]:
    scheduled = {slot.errand.guest.runner_id for slot in slots}
    return (one for one in travelling if one.guest.runner_id not in scheduled)


def _late(slots: Sequence[Slot], usable_until: datetime) -> Iterator[Slot]:
    """Begin what is put off as late as is safe: until then a hold is kept, and a host may come for who has none."""
    put_off = [slot for slot in slots if _is_free_to_wait(slot) and slot.ends_at <= usable_until]
    if not put_off:
        return iter(slots)
    ends_at = max(slot.ends_at for slot in put_off)
    takes = ends_at - min(slot.begins_at for slot in put_off)
    until = min([usable_until, *(slot.begins_at for slot in slots if slot.errand.not_before)])
    wait = max(timedelta(), until - ends_at - max(takes * RESERVE, RESERVE_LEAST))
    return (_waited(slot, wait) if slot in put_off else slot for slot in slots)


def _is_free_to_wait(slot: Slot) -> bool:
    return slot.errand.put_off and slot.errand.not_before is None


def _waited(slot: Slot, wait: timedelta) -> Slot:
    return replace(slot, begins_at=slot.begins_at + wait, ends_at=slot.ends_at + wait)


# ---------------------------------------------------------------- the decisions


def _decided(slot: Slot, seen: Situation) -> Decision:
    guest, target = slot.errand.guest, slot.errand.target
    takes = slot.ends_at - slot.begins_at
    if slot.ends_at > seen.deadline_at - MARGIN:
        return _out_of_time(slot, seen)
    if target is None:
        reason = f"{why_nowhere(seen.source, seen.targets)}, and the store takes {takes.total_seconds():.0f} s"
        return Park(guest.runner_id, slot.begins_at, slot.ends_at, reason)
    is_measured = target.line_mib_s is not None
    return Move(
        guest.runner_id,
        target.host_id,
        slot.begins_at,
        slot.ends_at,
        slot.share_mib_s if is_measured else None,
        f"{takes.total_seconds():.0f} s at {slot.share_mib_s:.0f} MiB/s{'' if is_measured else ' as assumed'}",
        guest.hold_until if guest.hold_until is not None and slot.begins_at < guest.hold_until else None,
    )


def _out_of_time(slot: Slot, seen: Situation) -> LetFinish | Requeue:
    left_alone = _left_alone(slot.errand.guest, seen)
    if isinstance(left_alone, LetFinish):
        return left_alone
    late_s = (slot.ends_at - seen.deadline_at + MARGIN).total_seconds()
    chance = None if slot.errand.target is None else slot.errand.target.host_id
    return replace(left_alone, reason=f"it would arrive {late_s:.0f} s too late", chance=chance)
