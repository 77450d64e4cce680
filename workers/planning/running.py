"""What is to be done next about one runner: a pure function of what is known of it.

REQUESTED ─Boot─▶ BOOTING ─Start─▶ IDLE ─Retire─▶ RETIRING ─Deregister─▶ STOPPING ─AbortMove, TearDown─▶ GONE
                                    every state ─Bury─▶ GONE            (the cloud says that its machine is no more)
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Final, assert_never

from workers.domain.host import Host
from workers.domain.job import JOB, Job, JobState
from workers.domain.messages import GuestRunnerState, MonitorState, RunnerReport
from workers.domain.runner import Runner, RunnerEnd, RunnerState
from workers.planning.fleet import is_leaving, is_lost, is_terminated
from workers.planning.placement import counts_on

# GitHub removes an idle just-in-time runner after 2 to 6 minutes (actions/runner #4726), so an unused one is ended
# by us first; we look every 15 seconds.
UNUSED_RUNNER_LIMIT: Final = timedelta(seconds=100)
# A restore takes seconds, even where software executes the guest; what has not answered by then never will.
BOOT_LIMIT: Final = timedelta(minutes=2)


# It stands in line for GitHub's budget; within an hour there is a whole new one.
REGISTRATION_LIMIT: Final = timedelta(hours=1)


class RunnerStep(Enum):
    WAIT = auto()
    BOOT = auto()
    START = auto()
    """Point the relay, register, hand over the configuration."""
    NOTE_STARTED = auto()
    """It was handed over, and only our row does not say so yet."""
    RETIRE = auto()
    DEREGISTER = auto()
    ABORT_MOVE = auto()
    TEAR_DOWN = auto()
    BURY = auto()
    """Nothing of it can be running: the machine is no more."""


@dataclass(frozen=True)
class Ending:
    """End this runner, for this reason."""

    end: RunnerEnd


@dataclass(frozen=True)
class RunnerSeen:
    """What is known of a runner at one moment."""

    runner: Runner
    host: Host | None
    job: Job | None
    """The one that it was made for, or that it took."""
    report: RunnerReport | None
    """What its host last said of it."""
    park_limit: timedelta = timedelta.max
    """How long it may lie in the store."""
    is_spare: bool = False
    """No job counts on it, and none is about to."""


def next_step(seen: RunnerSeen, now: datetime) -> RunnerStep | Ending:
    """Say what to do next about this runner."""
    runner = seen.runner
    if runner.state is not RunnerState.GONE and is_dead(seen):
        return RunnerStep.BURY
    match runner.state:
        case RunnerState.REQUESTED | RunnerState.BOOTING:
            return _while_starting(seen, now)
        case RunnerState.IDLE:
            return _while_idle(seen, now)
        case RunnerState.BUSY:
            return _while_busy(seen, now)
        case RunnerState.RETIRING:
            return RunnerStep.DEREGISTER
        case RunnerState.STOPPING:
            return RunnerStep.ABORT_MOVE if runner.migration_id else RunnerStep.TEAR_DOWN
        case RunnerState.GONE:
            return RunnerStep.WAIT
        case _:
            assert_never(runner.state)


def is_dead(seen: RunnerSeen) -> bool:
    """Say whether nothing of it can be running, ever again; while a migration is undecided its target may hold it.

    A parked one lies safely, until it is given up.
    """
    is_given_up = not seen.runner.is_parked or seen.runner.end is RunnerEnd.PARKED_TOO_LONG
    return is_terminated(seen.host) and seen.runner.migration_id is None and is_given_up


def has_ended(seen: RunnerSeen) -> bool:
    """Say whether its host has told us that its program has ended."""
    report = _its_report(seen)
    return report is not None and report.guest is GuestRunnerState.ENDED


def has_vanished(seen: RunnerSeen) -> bool:
    """Say whether its host has told us that its microVM has ended, and its program had not.

    While it is on its way to another host, only that move's end says what is left of it.
    """
    report = _its_report(seen)
    is_gone = report is not None and report.monitor is MonitorState.GONE
    return is_gone and not has_ended(seen) and seen.runner.migration_id is None


def _its_report(seen: RunnerSeen) -> RunnerReport | None:
    """Return what was said of it since it is where it is now."""
    report = seen.report
    return report if report is not None and report.epoch == seen.runner.epoch else None


def _while_starting(seen: RunnerSeen, now: datetime) -> RunnerStep | Ending:
    runner, is_booted = seen.runner, seen.runner.state is RunnerState.BOOTING
    if seen.host is None or is_lost(seen.host):
        return Ending(RunnerEnd.HOST_LOST)
    if is_leaving(seen.host):
        return Ending(RunnerEnd.HOST_LEAVING)
    is_unknown_to_github = runner.github_id is None
    if seen.job is None or seen.job.state in JOB.last or (seen.is_spare and is_unknown_to_github):
        return Ending(RunnerEnd.UNUSED)
    waits_for_github = is_booted and runner.github_id is None
    if now - runner.requested_at > (REGISTRATION_LIMIT if waits_for_github else BOOT_LIMIT):
        return Ending(RunnerEnd.BOOT_FAILED)
    if is_booted and _has_started(seen):
        return RunnerStep.NOTE_STARTED
    return RunnerStep.START if is_booted else RunnerStep.BOOT


def _has_started(seen: RunnerSeen) -> bool:
    report = seen.report
    return (
        report is not None
        and report.epoch == seen.runner.epoch
        and report.guest in {GuestRunnerState.RUNNING, GuestRunnerState.ENDED}
    )


def _while_idle(seen: RunnerSeen, now: datetime) -> RunnerStep | Ending:
    """A runner that is not needed retires first: only GitHub knows whether it has been given a job meanwhile."""
    is_unused = seen.runner.idle_at is not None and now - seen.runner.idle_at > UNUSED_RUNNER_LIMIT
    leaves = seen.host is None or is_leaving(seen.host)
    needless = leaves or is_unused or _is_job_over(seen) or has_ended(seen) or has_vanished(seen)
    return RunnerStep.RETIRE if needless else RunnerStep.WAIT


def _while_busy(seen: RunnerSeen, now: datetime) -> RunnerStep | Ending:
    if has_ended(seen) or _is_job_over(seen):
        return Ending(RunnerEnd.JOB_COMPLETED)
    if has_vanished(seen):
        return Ending(RunnerEnd.VANISHED)
    parked_at = seen.runner.parked_at
    if parked_at is not None and now - parked_at > seen.park_limit:
        return Ending(RunnerEnd.PARKED_TOO_LONG)
    return _of_its_job(seen, now)


def _of_its_job(seen: RunnerSeen, now: datetime) -> RunnerStep | Ending:
    """Hold the job that runs here to what it may."""
    job = seen.job
    if job is None or job.runner_id != seen.runner.id or job.state is not JobState.RUNNING:
        return RunnerStep.WAIT
    if job.unserved is not None:
        return Ending(RunnerEnd.JOB_REFUSED)
    if job.must_end_at is not None and now > job.must_end_at:
        return Ending(RunnerEnd.JOB_TOO_LONG)
    return RunnerStep.WAIT


def _is_job_over(seen: RunnerSeen) -> bool:
    """Say whether the job that GitHub gave it has ended, so that it will never get another one."""
    job = seen.job
    return job is not None and job.runner_id == seen.runner.id and (job.end is not None or job.state is JobState.LOST)


def is_let_go(seen: RunnerSeen) -> bool:
    """Say whether GitHub removes its registration by itself: it was good for one job, and that is over.

    GitHub may say so a little later than its program ends. If it has not after all, the reaper finds what is left.
    """
    runner, job = seen.runner, seen.job
    if runner.end is RunnerEnd.JOB_COMPLETED and has_ended(seen):
        return True
    if job is None or job.runner_id != runner.id or runner.end not in {None, RunnerEnd.JOB_COMPLETED}:
        return False
    return job.started_at is not None and job.conclusion is not None


def end_of_retired(seen: RunnerSeen) -> RunnerEnd:
    """Say why a runner that GitHub has let go is ended."""
    if is_lost(seen.host):
        return RunnerEnd.HOST_LOST
    if _is_job_over(seen):
        return RunnerEnd.JOB_COMPLETED
    if has_ended(seen):
        return RunnerEnd.UNTOLD
    return RunnerEnd.HOST_LEAVING if seen.host is not None and is_leaving(seen.host) else RunnerEnd.UNUSED


def is_in_vain(seen: RunnerSeen) -> bool:
    """Say whether GitHub gave it no job although one waited all the time that it fits."""
    job, idle_at = seen.job, seen.runner.idle_at
    is_counted_on = job is not None and job.state is JobState.PLACED and job.runner_id == seen.runner.id
    return is_counted_on and job is not None and idle_at is not None and job.queued_at <= idle_at


def is_taken_away(seen: RunnerSeen) -> bool:
    """Say whether a running job can never end by itself: its machine is no more, or was ended to run it again."""
    match seen.runner.end:
        case RunnerEnd.REQUEUED | RunnerEnd.VANISHED:
            return True
        case RunnerEnd.JOB_TOO_LONG | RunnerEnd.JOB_REFUSED:
            return False
        case _:
            return is_terminated(seen.host) and is_dead(seen)


def goes_on(job: Job, runner: Runner, host: Host | None) -> bool:
    """Say whether all is well with a job and the runner that its row names, on this host."""
    if job.state is JobState.PLACED:
        return counts_on(job, runner)
    return job.state is JobState.RUNNING and not is_taken_away(RunnerSeen(runner, host, job, None))


def is_lost_with_its_host(seen: RunnerSeen, is_host_silent: bool) -> bool:  # noqa: FBT001 a fact, not a switch
    """Say whether a job that ended without success was ended by the loss of its host.

    GitHub fails a job whose lock has expired, and may tell us so before we have noticed that the host is gone. By
    then it has been silent for longer than a healthy one ever is, and its last word was not that the runner ended.
    """
    if has_ended(seen):
        return False
    if has_vanished(seen):
        return True
    if seen.runner.end in {RunnerEnd.REQUEUED, RunnerEnd.VANISHED}:
        return True
    if seen.runner.end not in {None, RunnerEnd.HOST_LOST, RunnerEnd.PARKED_TOO_LONG}:
        return False
    return is_host_silent or (is_lost(seen.host) and not seen.runner.is_parked)
