"""What a job on a host that was taken back has come to, as the store tells it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.planning.rows import NOW, a_job, a_runner
from workers.domain.job import Job, JobEnd, JobState
from workers.domain.migration import Migration, MigrationPhase
from workers.domain.names import HostId, JobId, MigrationId
from workers.domain.runner import Runner, RunnerState
from workers.rehearsal.drill.interruption import Outcome
from workers.rehearsal.drill.standing import Standing, at_the_end, outcome_of

TAKEN, OTHER = HostId("spot-host-taken"), HostId("spot-host-other")
RUNNING = replace(a_job(), state=JobState.RUNNING)
LOST = replace(a_job(), state=JobState.LOST)


def again(end: JobEnd | None) -> Job:
    state = JobState.RUNNING if end is None else JobState.COMPLETED
    return replace(a_job(), id=JobId(77), run_attempt=2, state=state, end=end)


def on(host: HostId | None, state: RunnerState = RunnerState.BUSY) -> Runner:
    return replace(a_runner(), host_id=host, state=state)


def park(phase: MigrationPhase) -> Migration:
    return Migration(MigrationId("spot-move-1"), a_runner().id, TAKEN, None, phase, 2, NOW, NOW)


@pytest.mark.parametrize(
    ("seen", "outcome"),
    [
        (Standing(RUNNING, on(TAKEN), ()), None),
        (Standing(RUNNING, on(OTHER), ()), Outcome.SURVIVED),
        (Standing(RUNNING, on(None), (park(MigrationPhase.COMMITTED),)), None),
        (Standing(RUNNING, on(OTHER), (park(MigrationPhase.FINISHED),)), Outcome.PARKED),
        (Standing(RUNNING, on(OTHER), (park(MigrationPhase.ABORTED),)), Outcome.SURVIVED),
        (Standing(replace(RUNNING, state=JobState.COMPLETED, end=JobEnd.SUCCEEDED), None, ()), Outcome.SURVIVED),
        (Standing(replace(RUNNING, state=JobState.COMPLETED, end=JobEnd.FAILED), None, ()), Outcome.SURVIVED),
        (Standing(LOST, None, ()), None),
        (Standing(LOST, None, (), (again(None),)), None),
        (Standing(LOST, None, (), (again(JobEnd.SUCCEEDED),)), Outcome.RERUN),
        (Standing(LOST, None, (), (again(JobEnd.CANCELLED),)), Outcome.RERUN),
        (Standing(LOST, None, (), (again(JobEnd.FAILED),)), Outcome.LOST),
        (Standing(replace(LOST, state=JobState.COMPLETED, end=JobEnd.LOST), None, ()), None),
    ],
)
def test_a_job_is_judged_by_where_it_stands(seen: Standing, outcome: Outcome | None) -> None:
    assert outcome_of(seen, TAKEN) is outcome


def test_nobody_is_said_to_have_survived_who_was_not_seen_to() -> None:
    assert at_the_end(None) is Outcome.LOST
    assert at_the_end(Outcome.PARKED) is Outcome.PARKED
