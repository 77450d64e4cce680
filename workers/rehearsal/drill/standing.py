"""What has become of a job that was on a host which was taken back, as the store tells it. Pure.

moved or ended by itself ─▶ survived     in the store, or out of it again ─▶ parked
lost, and another attempt succeeded ─▶ rerun     lost, and none did ─▶ lost     else ─▶ not known yet
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workers.domain.job import Job, JobEnd, JobState
from workers.domain.migration import Migration, MigrationPhase
from workers.domain.names import HostId
from workers.domain.runner import Runner, RunnerState
from workers.rehearsal.drill.interruption import Outcome

_OURS_NO_MORE = frozenset({MigrationPhase.COMMITTED, MigrationPhase.FINISHED})


@dataclass(frozen=True)
class Standing:
    """One job and what the store has about it."""

    job: Job
    runner: Runner | None
    moves: Sequence[Migration]
    """All of its runner's."""
    later: Sequence[Job] = ()
    """Later attempts at the same job, oldest first."""


def outcome_of(seen: Standing, host: HostId) -> Outcome | None:
    """Return what the loss of this host came to for this job; None: that is not known yet."""
    if seen.job.state is JobState.LOST or seen.job.end is JobEnd.LOST:
        return _of_the_rerun(seen.later)
    if seen.job.end is not None or _has_left(seen.runner, host):
        return Outcome.PARKED if _was_parked(seen.moves, host) else Outcome.SURVIVED
    return None


def at_the_end(outcome: Outcome | None) -> Outcome:
    """Judge what is not known when the time is over: nobody can say that such a job survived."""
    return outcome or Outcome.LOST


def _of_the_rerun(later: Sequence[Job]) -> Outcome | None:
    if not later or later[-1].end is None:
        return None
    return Outcome.RERUN if later[-1].end in {JobEnd.SUCCEEDED, JobEnd.CANCELLED} else Outcome.LOST


def _has_left(runner: Runner | None, host: HostId) -> bool:
    """Say whether its guest is another host's now; one that lies in the store has not arrived yet."""
    return runner is not None and runner.state is RunnerState.BUSY and runner.host_id not in {None, host}


def _was_parked(moves: Sequence[Migration], host: HostId) -> bool:
    return any(move.is_park and move.source_id == host and move.phase in _OURS_NO_MORE for move in moves)
