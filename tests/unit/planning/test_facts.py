from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.payloads import Said, delivered
from tests.unit.planning.rows import NOW, a_fact, a_job
from workers.domain.errors import IllegalMove
from workers.domain.events import SWEPT as SWEPT_GUID
from workers.domain.events import JobAction, JobFact
from workers.domain.job import Job, JobEnd, JobState, Rerun
from workers.domain.names import RunnerId
from workers.planning.facts import (
    completed,
    described,
    first_row,
    is_waiting,
    lost,
    polled_fact,
    rerun_asked,
    started,
    stood,
    sum_of,
    waits,
)

QUEUED = a_fact(JobAction.QUEUED)
TAKEN = a_fact(JobAction.IN_PROGRESS, "spot-runner-1")
ENDED = a_fact(JobAction.COMPLETED, "spot-runner-1", "success")
MINE = RunnerId("spot-runner-1")
Q, W, P, C = JobAction.QUEUED, JobAction.WAITING, JobAction.IN_PROGRESS, JobAction.COMPLETED


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
        ("pending", JobAction.WAITING),
        ("requested", JobAction.QUEUED),
    ],
)
def test_a_poll_says_what_a_webhook_would_have_said(status: str, action: JobAction) -> None:
    fact = polled_fact(a_job(), status, None, (7, "spot-runner-1"), NOW)
    assert (fact.action, fact.runner_id, fact.runner_name) == (action, 7, "spot-runner-1")


# ---------------------------------------------------------------- waiting and queued

T = [NOW + timedelta(seconds=second) for second in range(4)]


def waiting(at: datetime | None = None, number: int = 0) -> JobFact:
    return replace(a_fact(JobAction.WAITING), delivery=f"w{number}-{at}", deployment_at=at)


def queued(at: datetime | None = None, number: int = 0) -> JobFact:
    return replace(a_fact(JobAction.QUEUED), delivery=f"q{number}-{at}", deployment_at=at)


@pytest.mark.parametrize(
    ("facts", "is_so"),
    [
        ([queued()], False),
        ([waiting()], True),
        ([queued(), waiting()], None),
        ([queued(), waiting(T[1])], None),
        ([queued(T[0]), waiting(T[1])], True),
        ([queued(T[0]), waiting(T[1]), queued(T[2])], False),
        ([queued(), waiting(T[1]), queued(T[2])], False),
        ([queued(T[1]), waiting(T[1])], None),
        ([queued(T[2]), waiting()], None),
        ([TAKEN], False),
        ([], False),
    ],
)
def test_only_a_later_change_of_the_deployment_says_which_of_the_two_came_last(
    facts: list[JobFact], *, is_so: bool | None
) -> None:
    for order in (facts, facts[::-1], [*facts, *facts]):
        assert is_waiting(order) is is_so


def test_what_cannot_be_told_is_asked_and_stands_until_something_later_contradicts_it() -> None:
    facts = [queued(), waiting()]
    job = first_row(facts)
    assert (job.state, waits(job, facts)) == (JobState.WAITING, None), "no runner is made for what may be waiting"
    answer = polled_fact(job, "queued", None, (None, None), NOW + timedelta(seconds=50))
    job = stood(job, facts, answer)
    assert (job.state, job.asked_at, waits(job, facts)) == (JobState.QUEUED, answer.seen_at, False)
    late = [*facts, replace(queued(number=2), seen_at=NOW + timedelta(seconds=90))]
    assert waits(job, late) is False
    late = [*late, replace(waiting(number=2), seen_at=NOW + timedelta(seconds=91))]
    assert waits(job, late) is None, "it may be older than the answer, so that it is asked again"
    job = stood(job, late, replace(answer, action=JobAction.WAITING, seen_at=NOW + timedelta(seconds=99)))
    assert (job.state, waits(job, late)) == (JobState.WAITING, True)
    late = [*late, replace(queued(number=3), seen_at=NOW + timedelta(seconds=98))]
    assert waits(job, late) is None, "clocks differ, so what comes at about the same time decides nothing"


def test_an_answer_overrules_facts_that_are_clear_and_older() -> None:
    facts = [waiting(T[1])]
    job = first_row(facts)
    job = stood(job, facts, polled_fact(job, "queued", None, (None, None), NOW + timedelta(minutes=9)))
    assert (job.state, waits(job, facts)) == (JobState.QUEUED, False), "the delivery of its approval was lost"


def test_a_job_that_begins_to_wait_lets_its_runner_go() -> None:
    facts = [queued(T[0]), waiting(T[1])]
    job = stood(a_job(1, JobState.PLACED, "r"), facts, None)
    assert (job.state, job.runner_id) == (JobState.WAITING, None)
    assert stood(job, [*facts, queued(T[2])], None).state is JobState.QUEUED


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.LOST, JobState.COMPLETED, JobState.CANCELLED])
def test_nothing_of_a_lower_rank_undoes_what_was_heard_of_a_higher_one(state: JobState) -> None:
    job = a_job(1, state, "r")
    facts = [queued(T[0]), waiting(T[1])]
    assert stood(job, facts, polled_fact(job, "waiting", None, (None, None), NOW)) == job
    assert waits(job, [queued(), waiting()]) is False, "so nobody is asked"


# ---------------------------------------------------------------- whole stories


def taken(action: JobAction, conclusion: str | None = None) -> Said:
    return Said(action, runner_id=7, runner_name="spot-runner-1", conclusion=conclusion)


STORIES: dict[str, tuple[list[Said], JobState]] = {
    "it runs": ([Said(Q), taken(P), taken(C, "success")], JobState.COMPLETED),
    "it fails": ([Said(Q), taken(P), taken(C, "failure")], JobState.COMPLETED),
    "it is cancelled in the queue": ([Said(Q), Said(C, conclusion="cancelled")], JobState.CANCELLED),
    "it is approved": (
        [Said(Q), Said(W, deployment_at=T[1]), Said(Q, deployment_at=T[2]), taken(P)],
        JobState.RUNNING,
    ),
    "it is approved and waits for a runner": (
        [Said(Q, deployment_at=T[0]), Said(W, deployment_at=T[1]), Said(Q, deployment_at=T[2])],
        JobState.QUEUED,
    ),
    "it waits": ([Said(Q, deployment_at=T[0]), Said(W, deployment_at=T[1])], JobState.WAITING),
    "it is rejected": ([Said(Q), Said(W), Said(C, conclusion="failure")], JobState.COMPLETED),
    "its end is sent again on a rerun": (
        [Said(Q), taken(P), *[taken(C, "failure")] * 3],
        JobState.COMPLETED,
    ),
    "a recorded delivery names a runner too soon": ([Said(Q, runner_id=5, runner_name="GitHub 5")], JobState.QUEUED),
}


@cache
def read(name: str) -> list[JobFact]:
    """Let the production receiver read every delivery of a story."""
    told = [delivered(said, f"{name.replace(' ', '-')}-{number}", NOW) for number, said in enumerate(STORIES[name][0])]
    return [delivery.fact for delivery in told if delivery.fact is not None]


@given(st.data(), st.sampled_from(sorted(STORIES)))
def test_whole_stories_end_the_same_in_every_order_however_often_told(chance: st.DataObject, name: str) -> None:
    """Each delivery may be doubled, and the row is folded after every single one, as the reconciler does."""
    story, end = STORIES[name]
    facts = read(name)
    assert len(facts) == len(story)
    order = chance.draw(st.permutations([*facts, *chance.draw(st.lists(st.sampled_from(facts), max_size=3))]))
    job, ranks = first_row(order[:1]), list[int]()
    for count in range(1, len(order) + 1):
        job = heard(job, list({fact.delivery: fact for fact in order[:count]}.values()))
        ranks.append(RANK[job.state])
    assert ranks == sorted(ranks), "it only goes forward"
    assert job.state is end
    assert job == heard(first_row(facts), facts), "the same as if it had been told once and in order"


RANK = {JobState.WAITING: 0, JobState.QUEUED: 0, JobState.PLACED: 0, JobState.RUNNING: 1}
RANK |= {JobState.COMPLETED: 2, JobState.CANCELLED: 2}


def heard(job: Job, facts: list[JobFact]) -> Job:
    """Fold as the reconciler does."""
    told, job = sum_of(facts), described(job, facts)
    job = started(job, MINE, told.started_at) if told.is_started else stood(job, facts, None)
    return completed(job, told.conclusion, with_its_host=False) if told.conclusion else job


def test_attempts_are_jobs_of_their_own() -> None:
    """On a rerun `completed` of the earlier attempt comes once more, also after the later one has begun."""
    first = delivered(replace(taken(C, "failure"), job_id=11), "a", NOW).fact
    again = delivered(Said(Q, job_id=12, run_attempt=2), "b", NOW).fact
    assert first is not None
    assert again is not None
    assert (first.job_id, first.run_attempt, again.job_id, again.run_attempt) == (11, 1, 12, 2)
    ended = heard(first_row([first]), [first])
    assert heard(ended, [first, replace(first, delivery="c", run_attempt=2)]) == ended


def test_the_end_names_the_last_runner_and_of_two_that_were_offered_it_the_younger_one_has_it() -> None:
    one, other = (replace(TAKEN, runner_id=number, runner_name=f"r{number}") for number in (7, 8))
    for facts in ([one, other], [other, one]):
        assert sum_of(facts).github_id == 8
        assert sum_of([*facts, replace(ENDED, runner_id=7, runner_name="r7")]).github_id == 7
    assert started(a_job(1, JobState.RUNNING, "r7"), RunnerId("r8")).runner_id == "r8"


SWEPT = replace(QUEUED, delivery=f"{SWEPT_GUID}1-queued")
DEPLOYS = replace(QUEUED, delivery="d", deployment_at=NOW)


@pytest.mark.parametrize(
    ("facts", "known", "expected"),
    [
        ([SWEPT], None, None),
        ([QUEUED], None, False),
        ([SWEPT, QUEUED], None, False),
        ([DEPLOYS, SWEPT], None, True),
        ([QUEUED, DEPLOYS], None, True),
        ([SWEPT], False, False),
        ([SWEPT], True, True),
        ([QUEUED], True, True),
        ([], None, None),
    ],
)
def test_a_job_that_was_only_found_in_a_list_may_deploy(
    facts: list[JobFact],
    known: bool | None,  # noqa: FBT001 - a case of the table
    expected: bool | None,  # noqa: FBT001
) -> None:
    for told in (facts, facts[::-1]):
        assert described(replace(a_job(), has_deployment=known), told).has_deployment is expected
