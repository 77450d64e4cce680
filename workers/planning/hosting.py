"""What is to be done next about one host: a pure function of what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Final, assert_never

from workers.domain.host import Host, HostState

# Clouds sell again what they could not sell a minute ago; then another host is asked for.
LAUNCH_LIMIT: Final = timedelta(minutes=3)
# A machine boots, registers, fetches packages and proves itself; longer than this it costs and serves nobody.
PREPARE_LIMIT: Final = timedelta(minutes=10)
# A host that the cloud calls running and that we do not hear is cut off, or we are: its jobs go on meanwhile. It is
# given up once it must have ended itself; sooner only if others are heard, so that the fault is not ours.
CUT_OFF_LIMIT: Final = timedelta(minutes=5)
ALL_CUT_OFF_LIMIT: Final = timedelta(minutes=20)


class HostStep(Enum):
    WAIT = auto()
    LAUNCH = auto()
    GIVE_UP = auto()
    """Nothing runs here: let the machine go."""
    LOSE = auto()
    """It has gone silent or never came: count on it no more."""
    DRAIN = auto()
    EVACUATE = auto()
    REOPEN = auto()
    TERMINATE = auto()


@dataclass(frozen=True)
class HostSeen:
    """What is known of a host at one moment."""

    host: Host
    is_used: bool
    """Runners hold room here, or a migration from or to here has not ended."""
    is_surplus: bool
    """Nobody needs it and its period ends."""
    is_told_dead: bool
    """The cloud says that the instance is no more, or off; asked once it is silent or its deadline has passed."""
    silent_for: timedelta = timedelta()
    """Since when it has not been heard, as far as we were there to hear it."""
    others_are_heard: bool = True


def next_step(seen: HostSeen, now: datetime) -> HostStep:
    """Say what to do next about this host."""
    host = seen.host
    age = now - host.requested_at
    match host.state:
        case HostState.REQUESTED:
            return HostStep.GIVE_UP if age > LAUNCH_LIMIT else HostStep.LAUNCH
        case HostState.LAUNCHING | HostState.PREPARING:
            if age > PREPARE_LIMIT:
                return HostStep.LOSE
            return HostStep.WAIT if host.deadline_at is None else HostStep.GIVE_UP
        case HostState.READY | HostState.DRAINING:
            return HostStep.LOSE if _is_gone(seen) else _while_heard(seen)
        case HostState.LOST | HostState.TERMINATING:
            return HostStep.TERMINATE
        case HostState.TERMINATED:
            return HostStep.WAIT
        case _:
            assert_never(host.state)


def _is_gone(seen: HostSeen) -> bool:
    return seen.is_told_dead or seen.silent_for > (CUT_OFF_LIMIT if seen.others_are_heard else ALL_CUT_OFF_LIMIT)


def _while_heard(seen: HostSeen) -> HostStep:
    has_notice = seen.host.deadline_at is not None
    if seen.host.state is HostState.READY:
        return HostStep.DRAIN if has_notice or seen.is_surplus else HostStep.WAIT
    if not seen.is_used:
        return HostStep.GIVE_UP
    return HostStep.EVACUATE if has_notice else HostStep.REOPEN


def is_past_deadline(host: Host, now: datetime) -> bool:
    """Say whether the cloud may have taken it back by now."""
    return host.deadline_at is not None and now > host.deadline_at
