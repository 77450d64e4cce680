from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.unit.planning.rows import NOW, SECOND, a_job
from workers.domain.events import SWEPT, JobAction, JobFact
from workers.domain.job import JOB, Job, JobState
from workers.planning.facts import polled_fact
from workers.planning.standing import APPROVAL_LIMIT, QUEUE_LIMIT, RUN_LIMIT, SLACK_LIMIT, is_overdue

LATER = NOW + timedelta(hours=3)
LIMITS = {
    JobState.WAITING: APPROVAL_LIMIT,
    JobState.QUEUED: QUEUE_LIMIT,
    JobState.PLACED: QUEUE_LIMIT,
    JobState.RUNNING: RUN_LIMIT,
    JobState.LOST: QUEUE_LIMIT,
}


def a_fact(job: Job) -> JobFact:
    return replace(polled_fact(job, JobAction.QUEUED, None, (None, None), LATER), delivery=f"{SWEPT}1")


@pytest.mark.parametrize("state", sorted(JOB.open))
def test_an_open_job_is_overdue_once_it_has_had_githubs_own_time(state: JobState) -> None:
    job, end = a_job(state=state), NOW + LIMITS[state] + SLACK_LIMIT
    assert not is_overdue(job, [], None, end)
    assert is_overdue(job, [], None, end + SECOND)


@pytest.mark.parametrize("field", ["started_at", "asked_at", "lost_at"])
def test_its_time_begins_with_the_last_that_the_row_knows(field: str) -> None:
    job = replace(a_job(), **{field: LATER})  # type: ignore[arg-type]  # each of them is a moment
    assert not is_overdue(job, [], None, LATER + QUEUE_LIMIT + SLACK_LIMIT)
    assert is_overdue(job, [], None, LATER + QUEUE_LIMIT + SLACK_LIMIT + SECOND)


def test_its_time_begins_with_the_last_that_github_has_said() -> None:
    job, end = a_job(), LATER + QUEUE_LIMIT + SLACK_LIMIT
    assert not is_overdue(job, [a_fact(job)], None, end)
    assert not is_overdue(job, [], LATER, end)
    assert is_overdue(job, [a_fact(job)], LATER, end + SECOND)


def test_a_job_that_is_over_is_never_overdue() -> None:
    assert not is_overdue(a_job(state=JobState.COMPLETED), [], None, NOW + timedelta(days=10_000))
