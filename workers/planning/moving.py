"""What is to be done next about one migration: a pure function of its row, its hosts and its runner."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Final, assert_never

from workers.domain.host import Host
from workers.domain.migration import MIGRATION, Migration, MigrationPhase, Ports, aborted
from workers.domain.runner import Runner, RunnerState
from workers.planning.fleet import is_leaving, is_lost, is_terminated

# A target that lives answers within a second or two; another one may be quicker than this one's next answer.
RECEIVE_LIMIT: Final = timedelta(seconds=12)
# A host that has not taken a parked guest out by then is stuck; another may be quicker, and the guest lies safely.
RESUME_LIMIT: Final = timedelta(seconds=90)
# Clouds take a machine back a little later than they said, and what is nearly done should not be thrown away.
DEADLINE_GRACE: Final = timedelta(seconds=10)

_M = MigrationPhase


class MigrationStep(Enum):
    WAIT = auto()
    RECEIVE = auto()
    """Make the target listen."""
    SEND = auto()
    """Make the source send."""
    POINT = auto()
    """Point the relay to the target."""
    FINISH = auto()


@dataclass(frozen=True)
class Abort:
    """Give this attempt up, if the row still allows it."""

    reason: str


@dataclass(frozen=True)
class MigrationSeen:
    """What is known of a migration at one moment."""

    row: Migration
    source: Host | None
    target: Host | None
    runner: Runner | None


def next_step(seen: MigrationSeen, now: datetime) -> MigrationStep | Abort:
    """Say what to do next about this migration."""
    phase = seen.row.phase
    if phase in {_M.PLANNED, _M.RECEIVING, _M.COPYING, _M.PAUSED} and (reason := reason_to_abort(seen, now)):
        return Abort(reason)
    match phase:
        case _M.PLANNED:
            return MigrationStep.RECEIVE
        case _M.RECEIVING:
            return MigrationStep.SEND
        case _M.COPYING:
            is_unheard = seen.row.is_resume or seen.row.source_seen_at is None
            return MigrationStep.SEND if is_unheard else MigrationStep.WAIT
        case _M.COMMITTED | _M.FINISHED:
            return _after_commit(seen)
        case _M.PAUSED | _M.ABORTED:
            return MigrationStep.WAIT
        case _:
            assert_never(phase)


def _is_source_terminated(seen: MigrationSeen) -> bool:
    """Say whether its machine is no more; the object store always is there."""
    return not seen.row.is_resume and is_terminated(seen.source)


def _is_source_lost(seen: MigrationSeen) -> bool:
    return not seen.row.is_resume and is_lost(seen.source)


def _is_target_terminated(seen: MigrationSeen) -> bool:
    return not seen.row.is_park and is_terminated(seen.target)


def _is_target_lost(seen: MigrationSeen) -> bool:
    return not seen.row.is_park and is_lost(seen.target)


def reason_to_abort(seen: MigrationSeen, now: datetime) -> str | None:
    """Say why this attempt cannot succeed any more, None while it can."""
    row = seen.row
    if row.phase is _M.PAUSED:
        return _reason_while_paused(seen, now)
    if _is_target_lost(seen):
        return "the target is lost"
    if _is_source_lost(seen):
        return "the source is lost"
    if seen.runner is None or seen.runner.state in {RunnerState.STOPPING, RunnerState.GONE}:
        return "the runner is not needed any more"
    if now > row.deadline_at + DEADLINE_GRACE:
        return "the deadline has passed"
    is_early = row.phase in {_M.PLANNED, _M.RECEIVING}
    if is_early and seen.target is not None and is_leaving(seen.target):
        return "the target is taken back too"
    if is_early and now - row.planned_at > RECEIVE_LIMIT:
        return "the target did not get ready"
    return None


def _reason_while_paused(seen: MigrationSeen, now: datetime) -> str | None:
    """The target holds everything: it is waited for, unless the source is the only one left, or nobody is."""
    if _is_source_terminated(seen):
        return "both hosts are gone" if _is_target_terminated(seen) else None
    if _is_source_lost(seen):
        return None
    if _is_target_lost(seen):
        return "the target is lost"
    if seen.row.is_resume and now - seen.row.planned_at > RESUME_LIMIT:
        return "the target did not take the guest out of the store in time"
    return "the deadline has passed" if now > seen.row.deadline_at + DEADLINE_GRACE else None


def given_up(seen: MigrationSeen, reason: str) -> Migration:
    """Return the aborted row, or the row as it is if it must not be aborted.

    Without its source a paused guest may only go forward, unless its target is no more either.
    """
    forward_only = _is_source_terminated(seen) and not _is_target_terminated(seen)
    return aborted(seen.row, reason, source_is_gone=forward_only)


def _after_commit(seen: MigrationSeen) -> MigrationStep:
    row = seen.row
    if row.is_park:
        return MigrationStep.WAIT  # its end is the park's own business
    is_over = seen.runner is None or seen.runner.state is RunnerState.GONE
    if "relay_pointed_at" not in row.figures and not is_over and not is_lost(seen.target):
        return MigrationStep.POINT
    if row.phase is _M.FINISHED:
        return MigrationStep.WAIT
    is_wiped = row.wiped_at is not None or row.is_resume or is_terminated(seen.source)
    is_settled = row.running_at is not None or is_lost(seen.target) or is_over
    return MigrationStep.FINISH if is_wiped and is_settled else MigrationStep.WAIT


def receiving(row: Migration, ports: Ports | None) -> Migration:
    """Note where the target listens."""
    return replace(row, phase=MIGRATION.move(row.phase, _M.RECEIVING), ports=ports)


def copying(row: Migration) -> Migration:
    """Let the source begin."""
    return replace(row, phase=MIGRATION.move(row.phase, _M.COPYING))


def closed(row: Migration) -> Migration:
    """Finish: both sides have said their last word, or cannot say one any more."""
    return replace(row, phase=MIGRATION.move(row.phase, _M.FINISHED))


def pointed(row: Migration, now: datetime) -> Migration:
    """Note that the relay knows."""
    return replace(row, figures={**row.figures, "relay_pointed_at": now.timestamp()})
