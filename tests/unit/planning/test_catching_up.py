from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.unit.planning.rows import NOW, a_job
from workers.domain.events import JobAction
from workers.domain.job import Job, JobEnd, JobState
from workers.domain.listed import JobListed, Scope
from workers.domain.names import JobId
from workers.planning.catching_up import news, runs_to_ask
from workers.planning.facts import first_row, sum_of
from workers.planning.pace import slowed

HERE = Scope(1, "octo/hello")
MINUTES = timedelta(minutes=4)


def listed(status: str, conclusion: str | None = None, runner: int | None = None) -> JobListed:
    name = "spot-runner-x" if runner else None
    return JobListed(JobId(1), 1, 1, "build", ("spot-runner",), status, conclusion, runner, name)


def test_a_list_does_not_say_whether_a_job_deploys() -> None:
    (found,) = news([listed("queued")], {}, HERE, NOW)
    assert found.fact is not None
    assert found.fact.has_deployment is None
    assert first_row([found.fact]).has_deployment is None


def actions(status: str, row: Job | None) -> list[JobAction]:
    rows = {} if row is None else {row.id: row}
    return [one.fact.action for one in news([listed(status, "success")], rows, HERE, NOW) if one.fact]


@pytest.mark.parametrize(
    ("status", "row", "expected"),
    [
        ("queued", None, [JobAction.QUEUED]),
        ("in_progress", None, [JobAction.IN_PROGRESS]),
        ("waiting", None, [JobAction.WAITING]),
        ("pending", None, [JobAction.WAITING]),
        ("completed", None, [JobAction.COMPLETED]),
        ("queued", a_job(), []),
        ("queued", a_job(state=JobState.WAITING), [JobAction.QUEUED]),
        ("pending", a_job(state=JobState.WAITING), []),
        ("waiting", a_job(state=JobState.WAITING), []),
        ("in_progress", a_job(state=JobState.WAITING), [JobAction.IN_PROGRESS]),
        ("in_progress", a_job(), [JobAction.IN_PROGRESS]),
        ("in_progress", a_job(state=JobState.PLACED, runner="r"), [JobAction.IN_PROGRESS]),
        ("in_progress", a_job(state=JobState.RUNNING, runner="r"), []),
        ("completed", a_job(), [JobAction.COMPLETED]),
        ("completed", a_job(state=JobState.RUNNING, runner="r"), [JobAction.COMPLETED]),
        ("completed", a_job(state=JobState.LOST, runner="r"), [JobAction.COMPLETED]),
        ("completed", replace(a_job(state=JobState.LOST), end=JobEnd.LOST), []),
        ("queued", replace(a_job(state=JobState.COMPLETED), end=JobEnd.SUCCEEDED), []),
    ],
)
def test_what_goes_beyond_the_row_is_news(status: str, row: Job | None, expected: list[JobAction]) -> None:
    assert actions(status, row) == expected


@pytest.mark.parametrize(
    ("labels", "runner", "untold", "is_told"),
    [
        (("spot-runner/cpu=4",), None, (), True),
        (("ubuntu-latest",), None, (), False),
        (("spot-runner",), 7, (), False),
        (("self-hosted",), 7, ("spot-runner-x",), True),
    ],
)
def test_a_job_that_ended_before_anybody_heard_of_it_is_news_if_we_ran_it_or_it_waited_for_us(
    labels: tuple[str, ...],
    runner: int | None,
    untold: tuple[str, ...],
    is_told: bool,  # noqa: FBT001 - one of the table's columns
) -> None:
    job = replace(listed("completed", "cancelled", runner), labels=labels)
    assert bool(list(news([job], {}, HERE, NOW, untold))) is is_told


def test_the_same_news_is_the_same_delivery_whoever_finds_it() -> None:
    (one,) = news([listed("queued")], {}, HERE, NOW)
    (again,) = news([listed("queued")], {}, HERE, NOW + MINUTES)
    assert one.guid == again.guid
    (later,) = news([listed("in_progress", runner=7)], {}, HERE, NOW)
    assert later.guid != one.guid


def test_a_job_that_waited_may_be_found_queued_more_than_once() -> None:
    (first,) = news([listed("queued")], {}, HERE, NOW)
    waiting = {JobId(1): a_job(state=JobState.WAITING)}
    (second,) = news([listed("queued")], waiting, HERE, NOW)
    (third,) = news([listed("queued")], waiting, HERE, NOW + MINUTES)
    assert len({first.guid, second.guid, third.guid}) == 3, "what the store knows already it drops"


def test_a_fact_of_the_sweep_says_what_a_delivery_would_have_said() -> None:
    (one,) = news([listed("completed", "failure", 7)], {JobId(1): a_job()}, HERE, NOW)
    assert one.fact is not None
    assert one.fact.action is JobAction.COMPLETED
    assert replace(first_row([one.fact]), queued_at=NOW) == replace(a_job(), has_deployment=None)
    told = sum_of([one.fact])
    assert (told.github_id, told.runner_name, told.conclusion) == (7, "spot-runner-x", "failure")


def test_the_commit_and_the_branch_are_said_so_that_remarks_and_merge_queues_know_theirs() -> None:
    found = replace(listed("queued"), head_sha="c" * 40, head_branch="gh-readonly-queue/main/pr-1")
    (one,) = news([found], {}, HERE, NOW)
    assert one.fact is not None
    row = first_row([one.fact])
    assert (row.head_sha, row.is_of_merge_queue) == ("c" * 40, True)


def test_runs_that_we_believe_to_be_unfinished_are_asked_about_too() -> None:
    over = replace(a_job(2), run_id=8, end=JobEnd.SUCCEEDED)
    assert runs_to_ask([5, 1], [a_job(), replace(a_job(3), run_id=7), over]) == [5, 1, 7]


@pytest.mark.parametrize(
    ("left", "minutes"), [(1.0, 4), (0.5, 4), (0.25, 8), (0.125, 16), (0.1, 20), (0.09, 60), (0.0, 60)]
)
def test_the_less_is_left_of_the_hour_the_slower_the_sweep(left: float, minutes: int) -> None:
    assert slowed(MINUTES, left) == timedelta(minutes=minutes)
