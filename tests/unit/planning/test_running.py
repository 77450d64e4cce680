from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.planning.rows import MINUTE, NOW, SECOND, a_host, a_job, a_report, a_runner
from workers.domain.host import Host, HostState
from workers.domain.job import Job, JobEnd, JobState
from workers.domain.messages import GuestRunnerState, MonitorState, RunnerReport
from workers.domain.names import MigrationId, RunnerId
from workers.domain.runner import Runner, RunnerEnd, RunnerState
from workers.planning.running import (
    BOOT_LIMIT,
    REGISTRATION_LIMIT,
    UNUSED_RUNNER_LIMIT,
    Ending,
    RunnerSeen,
    RunnerStep,
    end_of_retired,
    is_let_go,
    is_lost_with_its_host,
    is_taken_away,
    next_step,
)

R = RunnerState
STARTING = [R.REQUESTED, R.BOOTING]
OPEN = [state for state in R if state is not R.GONE]
READY = a_host()
PLACED = a_job(1, JobState.PLACED, "r")
DONE = replace(a_job(1, JobState.COMPLETED, "r"), end=JobEnd.SUCCEEDED)
NOTICED = a_host(state=HostState.DRAINING, deadline_at=NOW + MINUTE)
GONE = [HostState.LOST, HostState.TERMINATING]


def seen(
    runner: Runner, host: Host | None = READY, job: Job | None = PLACED, report: RunnerReport | None = None
) -> RunnerSeen:
    return RunnerSeen(runner, host, job, report)


def test_the_way_up_is_boot_then_start() -> None:
    assert next_step(seen(a_runner(state=R.REQUESTED)), NOW) is RunnerStep.BOOT
    assert next_step(seen(a_runner(state=R.BOOTING)), NOW) is RunnerStep.START


def test_a_runner_that_was_started_is_not_started_again() -> None:
    booting = a_runner(state=R.BOOTING)
    assert next_step(seen(booting, report=a_report()), NOW) is RunnerStep.NOTE_STARTED
    assert next_step(seen(booting, report=a_report(GuestRunnerState.WAITING)), NOW) is RunnerStep.START
    assert next_step(seen(booting, report=a_report(epoch=2)), NOW) is RunnerStep.START


@pytest.mark.parametrize("state", STARTING)
def test_a_runner_that_has_not_started_ends_with_its_reason(state: RunnerState) -> None:
    runner = a_runner(state=state)
    assert next_step(seen(runner, NOTICED), NOW) == Ending(RunnerEnd.HOST_LEAVING)
    assert next_step(seen(runner, a_host(state=HostState.LOST)), NOW) == Ending(RunnerEnd.HOST_LOST)
    assert next_step(seen(runner, job=DONE), NOW) == Ending(RunnerEnd.UNUSED)
    assert next_step(seen(runner, job=None), NOW) == Ending(RunnerEnd.UNUSED)
    limit = REGISTRATION_LIMIT if state is R.BOOTING else BOOT_LIMIT
    assert next_step(seen(runner), NOW + limit) in {RunnerStep.BOOT, RunnerStep.START}
    assert next_step(seen(runner), NOW + limit + SECOND) == Ending(RunnerEnd.BOOT_FAILED)


def test_a_runner_that_was_registered_and_does_not_start_is_not_waited_for_long() -> None:
    registered = replace(a_runner(state=R.BOOTING), github_id=7)
    assert next_step(seen(registered), NOW + BOOT_LIMIT + SECOND) == Ending(RunnerEnd.BOOT_FAILED)


def test_an_idle_runner_waits_for_a_job_for_so_long() -> None:
    idle = seen(a_runner(state=R.IDLE))
    assert next_step(idle, NOW + UNUSED_RUNNER_LIMIT) is RunnerStep.WAIT
    assert next_step(idle, NOW + UNUSED_RUNNER_LIMIT + SECOND) is RunnerStep.RETIRE


@pytest.mark.parametrize(
    "needless",
    [
        seen(a_runner(state=R.IDLE), NOTICED),
        seen(a_runner(state=R.IDLE), a_host(state=HostState.LOST)),
        seen(a_runner(state=R.IDLE), job=DONE),
        seen(a_runner(state=R.IDLE), report=a_report(GuestRunnerState.ENDED)),
    ],
)
def test_an_idle_runner_is_never_stopped_before_github_has_let_it_go(needless: RunnerSeen) -> None:
    assert next_step(needless, NOW) is RunnerStep.RETIRE
    retiring = replace(needless, runner=replace(needless.runner, state=R.RETIRING))
    assert next_step(retiring, NOW) is RunnerStep.DEREGISTER


@pytest.mark.parametrize("host", [NOTICED, *(a_host(state=state) for state in GONE)])
def test_a_busy_runner_waits_whatever_becomes_of_its_host(host: Host) -> None:
    running = a_job(1, JobState.RUNNING, "r")
    assert next_step(seen(a_runner(), host, running, a_report()), NOW + 10 * MINUTE) is RunnerStep.WAIT


@pytest.mark.parametrize("monitor", [MonitorState.RUNNING, MonitorState.GONE])
def test_a_busy_runner_ends_with_its_program_or_its_job(monitor: MonitorState) -> None:
    running = a_job(1, JobState.RUNNING, "r")
    report = a_report(GuestRunnerState.ENDED, monitor)
    assert next_step(seen(a_runner(), job=running, report=report), NOW) == Ending(RunnerEnd.JOB_COMPLETED)
    assert next_step(seen(a_runner(), job=DONE), NOW) == Ending(RunnerEnd.JOB_COMPLETED)
    elsewhere = replace(DONE, runner_id=None)
    assert next_step(seen(a_runner(), job=elsewhere), NOW) is RunnerStep.WAIT


def test_a_microvm_that_died_under_its_job_is_no_end_of_the_job() -> None:
    """Its job is lost with it, so it is run again; it has not failed by itself."""
    died = seen(a_runner(), job=a_job(1, JobState.RUNNING, "r"), report=a_report(monitor=MonitorState.GONE))
    assert next_step(died, NOW) == Ending(RunnerEnd.VANISHED)
    assert is_lost_with_its_host(died, is_host_silent=False)
    assert is_taken_away(replace(died, runner=replace(a_runner(), end=RunnerEnd.VANISHED)))


def test_of_a_guest_on_its_way_only_the_row_says_what_is_left() -> None:
    """Its source's monitor may be gone because everything is at the target already."""
    moving = replace(a_runner(), migration_id=MigrationId("m"))
    died = seen(moving, job=a_job(1, JobState.RUNNING, "r"), report=a_report(monitor=MonitorState.GONE))
    assert next_step(died, NOW) is RunnerStep.WAIT
    assert not is_lost_with_its_host(died, is_host_silent=False)


def test_what_a_host_said_of_a_former_epoch_says_nothing() -> None:
    moved = replace(a_runner(), epoch=2)
    assert next_step(seen(moved, report=a_report(GuestRunnerState.ENDED)), NOW) is RunnerStep.WAIT


def test_a_stopping_runner_first_gives_up_its_migration() -> None:
    stopping = a_runner(state=R.STOPPING)
    assert next_step(seen(replace(stopping, migration_id=MigrationId("m"))), NOW) is RunnerStep.ABORT_MOVE
    assert next_step(seen(stopping), NOW) is RunnerStep.TEAR_DOWN


@pytest.mark.parametrize("state", OPEN)
def test_a_runner_is_buried_only_when_the_cloud_says_so_and_nobody_else_may_hold_it(state: RunnerState) -> None:
    dead, runner = a_host(state=HostState.TERMINATED), a_runner(state=state)
    assert next_step(seen(runner, dead), NOW) is RunnerStep.BURY
    moving = replace(runner, migration_id=MigrationId("m"))
    assert next_step(seen(moving, dead), NOW) is not RunnerStep.BURY
    for host_state in GONE:
        assert next_step(seen(runner, a_host(state=host_state)), NOW) is not RunnerStep.BURY


def test_a_gone_runner_needs_nothing() -> None:
    assert next_step(seen(a_runner(state=R.GONE), a_host(state=HostState.TERMINATED)), NOW) is RunnerStep.WAIT


def test_why_a_retired_runner_ends() -> None:
    runner = a_runner(state=R.RETIRING)
    assert end_of_retired(seen(runner)) is RunnerEnd.UNUSED
    assert end_of_retired(seen(runner, job=DONE)) is RunnerEnd.JOB_COMPLETED
    assert end_of_retired(seen(runner, NOTICED)) is RunnerEnd.HOST_LEAVING
    assert end_of_retired(seen(runner, a_host(state=HostState.LOST))) is RunnerEnd.HOST_LOST


def test_a_failure_is_a_loss_if_the_host_was_gone_and_had_not_said_that_the_runner_ended() -> None:
    silent = seen(a_runner(), report=a_report())
    assert is_lost_with_its_host(silent, is_host_silent=True)
    assert not is_lost_with_its_host(silent, is_host_silent=False)
    assert is_lost_with_its_host(replace(silent, host=a_host(state=HostState.TERMINATED)), is_host_silent=False)
    ended = replace(silent, report=a_report(GuestRunnerState.ENDED))
    assert not is_lost_with_its_host(ended, is_host_silent=True)
    stopped = replace(silent, runner=replace(a_runner(), end=RunnerEnd.JOB_COMPLETED))
    assert not is_lost_with_its_host(stopped, is_host_silent=True)
    buried = replace(silent, runner=replace(a_runner(), end=RunnerEnd.HOST_LOST))
    assert is_lost_with_its_host(buried, is_host_silent=True)


TAKEN = replace(DONE, started_at=NOW, conclusion="success")


@pytest.mark.parametrize(
    ("job", "end", "is_gone"),
    [
        (TAKEN, RunnerEnd.JOB_COMPLETED, True),
        (TAKEN, None, True),
        (replace(TAKEN, conclusion="failure"), RunnerEnd.JOB_COMPLETED, True),
        (TAKEN, RunnerEnd.HOST_LOST, False),
        (TAKEN, RunnerEnd.JOB_TOO_LONG, False),
        (replace(TAKEN, conclusion=None), RunnerEnd.JOB_COMPLETED, False),
        (replace(TAKEN, started_at=None, conclusion="cancelled"), None, False),
        (replace(TAKEN, runner_id=RunnerId("other")), RunnerEnd.JOB_COMPLETED, False),
        (None, RunnerEnd.JOB_COMPLETED, False),
    ],
    ids=["usual", "idle yet", "failed", "lost", "too long", "not told", "taken by nobody", "another's", "unknown"],
)
def test_github_has_let_go_of_a_runner_whose_one_job_is_over(
    job: Job | None, end: RunnerEnd | None, *, is_gone: bool
) -> None:
    assert is_let_go(seen(replace(a_runner(), end=end), job=job)) is is_gone
