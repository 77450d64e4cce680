"""Whether and how a lost job is run again, and what is said of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.planning.rows import MINUTE, NOW, SMALL, a_job, a_runner
from workers.domain.job import Job, JobEnd, JobState, Rerun, RunJob
from workers.domain.labels import Again, Interrupt, Unserved
from workers.domain.names import JobId, PackageDigest
from workers.domain.overlay import GuestNetwork
from workers.domain.pools import Terms
from workers.domain.remark import Remark, Verdict
from workers.domain.runner import RunnerEnd
from workers.planning import remarks
from workers.planning.reruns import (
    UNHEARD_LIMIT,
    Way,
    hangs_on_its_deployment,
    is_answered,
    refusal,
    reruns_of,
    target,
    way,
)

SHA = "c" * 40


def lost(number: int = 1, name: str = "build", attempt: int = 1, rerun: Rerun = Rerun.WANTED) -> Job:
    return replace(
        a_job(number, JobState.LOST), name=name, run_attempt=attempt, rerun=rerun, end=JobEnd.LOST, head_sha=SHA
    )


def failed(number: int, name: str) -> Job:
    return replace(a_job(number, JobState.COMPLETED), name=name, end=JobEnd.FAILED)


def entry(job: Job, conclusion: str | None = "failure", status: str = "completed") -> RunJob:
    return RunJob(job.id, job.name, status, conclusion, NOW if status == "completed" else None)


def with_terms(job: Job, rerun: Again, interrupt: Interrupt = Interrupt.MOVE) -> Job:
    digest = PackageDigest("sha256:00")
    return replace(job, terms=Terms("ci", digest, "debian-12", SMALL, GuestNetwork.RELAY, interrupt, None, rerun))


# ---------------------------------------------------------------- whether


@pytest.mark.parametrize("rule", [None, *Again])
@pytest.mark.parametrize("deploys", [False, True])
def test_labels_and_deployments_decide(rule: Again | None, *, deploys: bool) -> None:
    job = replace(lost() if rule is None else with_terms(lost(), rule), has_deployment=deploys)
    allowed = rule is Again.ALWAYS or (rule in {None, Again.AUTO} and not deploys)
    assert (refusal(job, [job]) is None) is allowed
    assert job.is_rerun_allowed is allowed


@pytest.mark.parametrize("rule", [None, *Again])
def test_only_a_rule_that_minds_deployments_hangs_on_whether_there_is_one(rule: Again | None) -> None:
    job = replace(lost() if rule is None else with_terms(lost(), rule), has_deployment=None)
    hangs = rule in {None, Again.AUTO}
    assert hangs_on_its_deployment(job, [job]) is hangs
    why = str(refusal(job, [job], "nobody says"))
    assert ("it may hold a deployment" in why and "is not known: nobody says;" in why) is hangs
    assert job.is_rerun_allowed is (rule is Again.ALWAYS)
    for known in (True, False):
        assert not hangs_on_its_deployment(replace(job, has_deployment=known), [job])


def test_whether_it_deploys_is_not_asked_of_a_job_that_is_given_up_anyway() -> None:
    former = [lost(number, attempt=number, rerun=Rerun.ASKED) for number in (1, 2)]
    third = replace(lost(3, attempt=3), has_deployment=None)
    assert not hangs_on_its_deployment(third, [*former, third])


def test_a_third_rerun_is_refused() -> None:
    former = [lost(number, attempt=number, rerun=Rerun.ASKED) for number in (1, 2)]
    assert refusal(lost(2, attempt=2), [former[0], lost(2, attempt=2)]) is None
    third = lost(3, attempt=3)
    assert reruns_of(third, [*former, third]) == 2
    assert "2 times before" in str(refusal(third, [*former, third]))
    other = lost(4, "other", attempt=3)
    assert refusal(other, [*former, other]) is None, "other jobs of the run have a count of their own"


def test_reruns_that_people_asked_for_do_not_count() -> None:
    third = lost(3, attempt=3)
    assert refusal(third, [failed(1, "build"), replace(failed(2, "build"), run_attempt=2), third]) is None


def test_a_job_that_would_not_be_run_again_is_not_stopped_to_be_run_again() -> None:
    job = with_terms(lost(), Again.AUTO, Interrupt.RERUN)
    assert job.may_rerun
    assert not replace(job, has_deployment=True).may_rerun
    assert not replace(job, has_deployment=None).may_rerun, "then it is moved"
    assert not with_terms(lost(), Again.NEVER, Interrupt.RERUN).may_rerun
    assert not replace(job, run_attempt=3).may_rerun, "its reruns may be used up"


# ---------------------------------------------------------------- how


def test_what_was_all_lost_is_run_again_together() -> None:
    one, two = lost(1, "one"), lost(2, "two")
    latest = [entry(one), entry(two), RunJob(JobId(3), "three", "completed", "success")]
    assert way(one, [one, two], latest, NOW) is Way.TOGETHER
    cancelled = RunJob(JobId(4), "matrix", "completed", "cancelled")
    assert way(one, [one, two], [*latest, cancelled], NOW) is Way.TOGETHER, "the loss cancelled it"


def test_beside_one_that_failed_by_itself_a_job_is_asked_for_alone() -> None:
    one, bad = lost(1, "one"), failed(2, "bad")
    assert way(one, [one, bad], [entry(one), entry(bad)], NOW) is Way.ALONE
    assert way(one, [one], [entry(one), entry(bad)], NOW) is Way.ALONE, "even if we know nothing of it"
    assert target(one, [entry(one), entry(bad)]) == one.id


def test_beside_one_that_is_not_to_be_run_again_a_job_is_asked_for_alone() -> None:
    one, never = lost(1, "one"), with_terms(lost(2, "two"), Again.NEVER)
    assert way(one, [one, never], [entry(one), entry(never)], NOW) is Way.ALONE


def test_nothing_is_asked_before_the_attempt_has_ended() -> None:
    one = lost()
    assert way(one, [one], [entry(one), RunJob(JobId(2), "two", "in_progress", None)], NOW) is Way.WAIT


def test_a_later_attempt_that_lacks_the_job_is_no_answer_to_it() -> None:
    one, sibling = lost(1, "one"), replace(a_job(2, JobState.COMPLETED), name="two", run_attempt=2)
    assert not is_answered(one, [one, sibling])
    assert way(one, [one, sibling], [RunJob(JobId(2), "two", "completed", "success")], NOW) is Way.ALONE
    assert is_answered(one, [one, lost(5, "one", attempt=2)])


def test_the_latest_attempts_number_of_the_job_is_asked_for() -> None:
    one = lost(1, "one")
    carried = RunJob(JobId(7), "one", "completed", "failure")
    assert target(one, [carried]) == 7
    assert target(one, []) == 1
    assert way(one, [one], [replace(carried, conclusion="success")], NOW) is Way.NEEDLESS


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.QUEUED, JobState.PLACED, JobState.WAITING])
def test_nothing_is_asked_before_it_is_known_why_a_sibling_failed(state: JobState) -> None:
    """Asked for alone, two lost jobs would take an attempt each, and what they cancelled would stay so."""
    one, sibling = lost(1, "one"), replace(a_job(2, state), name="sibling")
    latest = [entry(one), entry(sibling)]
    assert way(one, [one, sibling], latest, NOW) is Way.WAIT
    for rerun in (Rerun.NONE, Rerun.WANTED):
        assert way(one, [one, lost(2, "sibling", rerun=rerun)], latest, NOW) is Way.TOGETHER
    assert way(one, [one, failed(2, "sibling")], latest, NOW) is Way.ALONE
    fine = [entry(one), entry(sibling, "cancelled")]
    assert way(one, [one, sibling], fine, NOW) is Way.TOGETHER, "that one has not failed, whatever we know of it"


def test_what_is_never_heard_of_a_sibling_holds_nothing_up_for_long() -> None:
    one, sibling = lost(1, "one"), replace(a_job(2, JobState.RUNNING), name="sibling")
    latest = [entry(one), entry(sibling)]
    assert way(one, [one, sibling], latest, NOW + UNHEARD_LIMIT - MINUTE) is Way.WAIT
    assert way(one, [one, sibling], latest, NOW + UNHEARD_LIMIT) is Way.ALONE
    undated = [entry(one), replace(entry(sibling), completed_at=None)]
    assert way(one, [one, sibling], undated, NOW) is Way.ALONE


# ---------------------------------------------------------------- jobs of one name in one run


def test_namesakes_that_were_lost_together_have_two_reruns_each() -> None:
    first = [lost(number, rerun=Rerun.ASKED) for number in (1, 2, 3)]
    second = [lost(number, attempt=2, rerun=Rerun.ASKED) for number in (4, 5, 6)]
    third = lost(7, attempt=3)
    assert reruns_of(second[0], [*first, *second]) == 1
    assert refusal(replace(second[0], rerun=Rerun.WANTED), [*first, *second]) is None
    assert reruns_of(third, [*first, *second, third]) == 2
    assert refusal(third, [*first, *second, third]) is not None


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), max_size=6))
def test_none_of_several_namesakes_is_ever_run_again_more_often_than_counted(lost_in: list[list[bool]]) -> None:
    """Whichever of three is lost and run again in which attempt, in truth."""
    rows = [
        lost(10 * attempt + which, attempt=attempt, rerun=Rerun.ASKED)
        for attempt, those in enumerate(lost_in, start=1)
        for which, is_lost in enumerate(those)
        if is_lost
    ]
    now = lost(1000, attempt=len(lost_in) + 1)
    for which in range(3):
        assert sum(those[which] for those in lost_in) <= reruns_of(now, [*rows, now])


def test_the_rerun_of_a_namesake_is_no_answer() -> None:
    mine, other, bad = lost(1), lost(2, rerun=Rerun.ASKED), failed(3, "bad")
    others = replace(a_job(4, JobState.COMPLETED), name="build", run_attempt=2, end=JobEnd.SUCCEEDED)
    assert not is_answered(mine, [mine, other, bad, others])
    only_what_ran = [entry(others, "success")]
    assert way(mine, [mine, other, bad, others], only_what_ran, NOW) is Way.ALONE
    assert target(mine, only_what_ran) == mine.id
    carried = RunJob(JobId(5), "build", "completed", "failure")
    assert way(mine, [mine, other, bad, others], [*only_what_ran, carried], NOW) is Way.ALONE
    assert target(mine, [*only_what_ran, carried]) == carried.id

    again = lost(4, attempt=2, rerun=Rerun.ASKED)
    others = replace(others, id=JobId(6), run_attempt=3)
    assert not is_answered(mine, [mine, other, bad, again, others]), "all of these are the other's"
    mine_again = replace(others, id=JobId(7))
    assert is_answered(mine, [mine, other, bad, again, others, mine_again])
    both = [entry(others, "success"), entry(mine_again, "success")]
    assert way(mine, [mine, other, bad, again], both, NOW) is Way.NEEDLESS


# ---------------------------------------------------------------- what is said


def said(remark: Remark | None) -> Remark:
    assert remark is not None
    return remark


def test_a_loss_is_told_with_its_host_its_moment_and_what_is_done() -> None:
    job, runner = replace(lost(), lost_at=NOW), a_runner(host="spot-host-a")
    told = said(remarks.lost(job, runner, 0, None))
    assert (told.key, told.head_sha, told.verdict, told.name) == ("lost-1", SHA, Verdict.NEUTRAL, "spot-runner: build")
    assert "`spot-host-a`, noticed at 2026-11-23 04:00:00 UTC" in told.summary
    assert "run again as soon as GitHub allows it" in told.summary
    given_up = said(remarks.lost(job, runner, 2, "it was lost too often"))
    assert (given_up.key, given_up.verdict) == (told.key, Verdict.ACTION_REQUIRED)
    assert "it was lost too often" in given_up.summary
    stopped = said(remarks.lost(job, replace(runner, end=RunnerEnd.REQUEUED), 0, None))
    assert "moving it would have cost more" in stopped.summary
    parked = said(remarks.lost(job, replace(runner, host_id=None, end=RunnerEnd.PARKED_TOO_LONG), 0, None))
    assert "its time in the store was over" in parked.summary


def test_in_a_merge_queue_everything_is_neutral() -> None:
    queued = replace(lost(), head_branch="gh-readonly-queue/main/pr-1-abc")
    assert said(remarks.lost(queued, None, 2, "no")).verdict is Verdict.NEUTRAL
    assert said(remarks.unserved(queued, Unserved("no"))).verdict is Verdict.NEUTRAL
    assert said(remarks.unserved(lost(), Unserved("no"))).verdict is Verdict.ACTION_REQUIRED


def test_a_commit_that_is_not_known_and_labels_that_are_not_ours_get_no_remark() -> None:
    assert remarks.lost(replace(lost(), head_sha=None), None, 0, None) is None
    assert remarks.unserved(replace(lost(), head_sha=None), Unserved("no")) is None
    assert remarks.unserved(lost(), Unserved("no", is_ours=False)) is None


labels = st.lists(st.text(max_size=40), min_size=1, max_size=4)


@given(labels, st.randoms())
def test_one_label_set_has_one_key_whatever_its_order_and_case(asked: list[str], chance: object) -> None:
    shuffled = sorted((label.upper().lower() for label in asked), key=lambda _: chance.random())  # type: ignore[attr-defined]
    keys = {
        said(remarks.unserved(replace(lost(), labels=tuple(one)), Unserved("no"))).key
        for one in ([label.upper().lower() for label in asked], shuffled)
    }
    assert len(keys) == 1


def test_other_commits_repositories_and_labels_have_other_keys() -> None:
    one = lost()
    others = [one, replace(one, head_sha="d" * 40), replace(one, repository="x/y"), replace(one, labels=("a", "b"))]
    assert len({said(remarks.unserved(job, Unserved("no"))).key for job in others}) == 4


@given(st.text(max_size=300), st.text(max_size=300))
def test_foreign_text_stays_text(name: str, reason: str) -> None:
    """Nobody may write Markdown, or a line of their own, into what we say."""
    job = replace(lost(), name=f"```\n# {name}", labels=(f"`{name}`",))
    for told in (
        said(remarks.lost(job, None, 2, f"```\n{reason}")),
        said(remarks.unserved(job, Unserved(reason, f"spot-runner/{reason}"))),
    ):
        assert len(told.name) <= remarks.NAME_MAX
        assert "\n" not in told.name
        lines = told.summary.splitlines()
        fences = [line for line in lines if "```" in line]
        assert fences == ["```text", "```"] * (len(fences) // 2)
        ours = [line for place, line in enumerate(lines) if lines[place - 1] != "```text"]
        assert not any(line.startswith("#") for line in ours)
