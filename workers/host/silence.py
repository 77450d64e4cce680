"""What a host does that the control plane has stopped answering: a pure function of what runs here and of the silence.

    heard ──15 min──▶ stop what has no job ─▶ let jobs finish ─▶ nothing is left: power off
      ▲ any answer                 │
      └────────────────────────────┘    a paused guest, or one in a migration, is left as it is, and so is the machine

Such a host is billed and serves nobody: it was cut off, or forgotten, or the control plane is no more.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from workers.domain.messages import GuestRunnerState, MonitorState, RunnerReport
from workers.domain.names import RunnerId

# Longer than a restart, an upgrade or a cloud's bad quarter of an hour.
SILENCE_LIMIT: Final = timedelta(minutes=15)
# GitHub ends every job after five days. A runner that was given none is removed by GitHub within six minutes, and its
# program ends then; so what still runs after the silence has a job, until this long.
JOB_LIMIT: Final = timedelta(days=5)


@dataclass(frozen=True)
class Stop:
    """End this microVM: it has no job."""

    runner_id: RunnerId
    epoch: int


@dataclass(frozen=True)
class PowerOff:
    """Nothing is left here."""


def steps(
    reports: Sequence[RunnerReport], moving: Collection[RunnerId], silent_for: timedelta, limit: timedelta
) -> tuple[Stop, ...] | PowerOff:
    """Say what to do after a silence; nothing to stop and no `PowerOff` is to wait."""
    if silent_for < limit:
        return ()
    if not reports and not moving:
        return PowerOff()
    is_hopeless = silent_for >= limit + JOB_LIMIT
    return tuple(
        Stop(one.runner_id, one.epoch)
        for one in reports
        if one.runner_id not in moving and not _stands_still(one) and (is_hopeless or _is_idle(one))
    )


def _stands_still(report: RunnerReport) -> bool:
    """Say whether somebody else may own this guest by now: only the row, which nobody can read, would tell."""
    return report.monitor in {MonitorState.PAUSED, MonitorState.INCOMING}


def _is_idle(report: RunnerReport) -> bool:
    is_over = report.monitor is MonitorState.GONE or report.guest is GuestRunnerState.ENDED
    return is_over or report.guest is GuestRunnerState.WAITING
