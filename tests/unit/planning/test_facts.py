from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.planning.rows import NOW, a_fact, a_job
from workers.domain.errors import IllegalMove
from workers.domain.events import JobAction, JobFact
from workers.domain.job import Job, JobEnd, JobState, Rerun
from workers.domain.names import RunnerId
from workers.planning.facts import (
    completed,
    first_row,
    is_wanted,
    lost,
    polled_fact,
    rerun_asked,
    started,
    sum_of,
)

QUEUED = a_fact(JobAction.QUEUED)
TAKEN = a_fact(JobAction.IN_PROGRESS, "spot-runner-1")
ENDED = a_fact(JobAction.COMPLETED, "spot-runner-1", "success")
MINE = RunnerId("spot-runner-1")


def folded(facts: list[JobFact], job: Job) -> Job:
    told = sum_of(facts)
    if told.is_started:
        job = started(job, MINE)
    return completed(job, told.conclusion, with_its_host=False) if told.conclusion else job


@given(st.permutations([QUEUED, TAKEN, ENDED]), st.lists(st.sampled_from([QUEUED, TAKEN, ENDED]), max_size=4))
def test_order_and_doubles_make_no_difference(facts: list[JobFact], doubles: list[JobFact]) -> None:
    job = folded([*facts, *doubles], a_job())
    assert (job.state, job.end, job.conclusion) == (JobState.COMPLETED, JobEnd.SUCCEEDED, "success")
    assert job.runner_id == MINE


@given(st.permutations([QUEUED, TAKEN, ENDED]))
def test_facts_may_be_folded_one_by_one_or_all_at_once(facts: list[JobFact]) -> None:
    job = a_job()
    for count in range(1, len(facts) + 1):
        job = folded(facts[:count], job)
    assert job.state is JobState.COMPLETED


def test_an_end_alone_says_who_ran_it() -> None:
    told = sum_of([ENDED])
    assert (told.is_started, told.github_id, told.runner_name) == (True, 7, "spot-runner-1")


def test_a_job_that_was_cancelled_in_the_queue_was_never_started() -> None:
    told = sum_of([QUEUED, a_fact(JobAction.COMPLETED, None, "cancelled")])
    assert not told.is_started
    job = completed(a_job(), "cancelled", with_its_host=False)
    assert (job.state, job.end, job.rerun) == (JobState.CANCELLED, JobEnd.CANCELLED, Rerun.NONE)


def test_a_job_that_waits_for_an_approval_is_none_yet() -> None:
    waiting = a_fact(JobAction.WAITING)
    assert not is_wanted([waiting])
    assert not is_wanted([])
    assert is_wanted([waiting, QUEUED])


def test_the_first_fact_of_any_kind_makes_the_row() -> None:
    job = first_row([replace(ENDED, seen_at=NOW), QUEUED])
    assert (job.state, job.queued_at, job.labels) == (JobState.QUEUED, NOW, ("spot-runner",))


def test_a_late_start_does_not_bring_a_job_back() -> None:
    job = replace(a_job(state=JobState.COMPLETED), end=JobEnd.SUCCEEDED)
    assert started(job, MINE) == job
    assert completed(job, "failure", with_its_host=True) == job


def test_a_job_that_runs_elsewhere_is_none_of_our_runners() -> None:
    assert started(a_job(state=JobState.PLACED, runner="r"), None).runner_id is None


@pytest.mark.parametrize("seen_first", [True, False])
def test_a_job_that_fails_with_its_host_is_lost_whoever_noticed_first(*, seen_first: bool) -> None:
    job = a_job(state=JobState.RUNNING)
    job = (
        completed(lost(job), "failure", with_its_host=False)
        if seen_first
        else completed(job, "failure", with_its_host=True)
    )
    assert (job.state, job.end, job.rerun) == (JobState.LOST, JobEnd.LOST, Rerun.WANTED)
    closed = rerun_asked(job)
    assert (closed.state, closed.rerun) == (JobState.COMPLETED, Rerun.ASKED)


def test_a_failure_of_its_own_is_not_run_again() -> None:
    job = completed(a_job(state=JobState.RUNNING), "failure", with_its_host=False)
    assert (job.state, job.end, job.rerun) == (JobState.COMPLETED, JobEnd.FAILED, Rerun.NONE)


@pytest.mark.parametrize(("conclusion", "end"), [("success", JobEnd.SUCCEEDED), ("cancelled", JobEnd.CANCELLED)])
def test_a_job_that_ended_well_before_its_host_did_is_not_run_again(conclusion: str, end: JobEnd) -> None:
    job = completed(lost(a_job(state=JobState.RUNNING)), conclusion, with_its_host=True)
    assert (job.end, job.rerun) == (end, Rerun.NONE)


def test_only_a_running_job_is_lost() -> None:
    with pytest.raises(IllegalMove):
        lost(a_job())


@pytest.mark.parametrize(
    ("status", "action"),
    [
        ("queued", JobAction.QUEUED),
        ("in_progress", JobAction.IN_PROGRESS),
        ("completed", JobAction.COMPLETED),
        ("waiting", JobAction.WAITING),
        ("requested", JobAction.QUEUED),
    ],
)
def test_a_poll_says_what_a_webhook_would_have_said(status: str, action: JobAction) -> None:
    fact = polled_fact(a_job(), status, None, (7, "spot-runner-1"), NOW)
    assert (fact.action, fact.runner_id, fact.runner_name) == (action, 7, "spot-runner-1")
