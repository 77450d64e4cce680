"""What a drill is going to do follows from its seed alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.domain.errors import BadInput
from workers.rehearsal.drill.interruption import DELAY_MAX_S, Interruption, Outcome, blamed, planned, span, worst
from workers.rehearsal.drill.play import outcome_of

FAULTS = ("relay_restarted", "redis_flushed")


@given(seed=st.integers(), number=st.integers(0, 1000))
def test_a_continued_drill_does_what_the_stopped_one_would_have_done(seed: int, number: int) -> None:
    assert planned(seed, number, (20, 60), FAULTS) == planned(seed, number, (20, 60), FAULTS)


@given(seed=st.integers(), number=st.integers(0, 1000), hosts=st.lists(st.text(), min_size=1))
def test_a_plan_keeps_to_what_was_asked_for(seed: int, number: int, hosts: list[str]) -> None:
    plan = planned(seed, number, (20, 60), FAULTS)
    assert 20 <= plan.notice_s <= 60
    assert 0 <= plan.delay_s <= DELAY_MAX_S
    assert plan.fault in FAULTS
    assert plan.chosen(hosts) in hosts


def test_interruptions_differ_among_each_other_and_from_seed_to_seed() -> None:
    plans = {planned(seed, number, (20, 60), ()) for seed in range(10) for number in range(10)}
    assert len({plan.notice_s for plan in plans}) > 50


@given(seed=st.integers(), faults=st.sets(st.text(min_size=1), min_size=1, max_size=9), deal=st.integers(0, 5))
def test_no_fault_comes_again_before_all_have_come(seed: int, faults: set[str], deal: int) -> None:
    numbers = range(deal * len(faults), (deal + 1) * len(faults))
    assert {planned(seed, number, (20, 60), tuple(faults)).fault for number in numbers} == faults


def test_without_faults_none_is_planned() -> None:
    assert planned(1, 1, (20, 60), ()).fault is None


@pytest.mark.parametrize(("text", "expected"), [("20", (20, 20)), ("20..60", (20, 60)), ("0..0.5", (0, 0.5))])
def test_a_span_of_seconds_is_read(text: str, expected: tuple[float, float]) -> None:
    assert span(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "60..20", "-1", "1..601", "1..2..3", "nan"])
def test_what_is_no_span_is_refused_by_name(text: str) -> None:
    with pytest.raises(BadInput, match="--notice-seconds"):
        span(text)


def test_one_lost_job_makes_a_lost_interruption() -> None:
    assert worst([Outcome.SURVIVED, Outcome.LOST, Outcome.RERUN]) is Outcome.LOST
    assert worst([Outcome.PARKED, Outcome.SURVIVED]) is Outcome.PARKED
    assert worst([]) is Outcome.SURVIVED


def at(moment: float, *jobs: int) -> Interruption:
    return Interruption(planned(0, int(moment), (20, 60), ()), "spot-host-a", moment, jobs)


def ended(conclusion: str, moment: float) -> dict[str, object]:
    return {"conclusion": conclusion, "completed_at": moment}


def test_the_last_interruption_before_an_attempt_failed_is_blamed_for_it() -> None:
    first, second, third = at(10, 7), at(20, 7, 8), at(90, 7)
    attempts = [ended("failure", 50), ended("success", 120)]
    blame = [blamed(one, (first, second, third), 7, attempts) for one in (first, second, third)]
    assert blame == [False, True, False]


def test_an_interruption_of_another_job_does_not_take_the_blame_away() -> None:
    mine, other = at(10, 7), at(20, 8)
    assert blamed(mine, (mine, other), 7, [ended("failure", 50)])
    assert not blamed(mine, (mine, other), 7, [ended("success", 50)])


@pytest.mark.parametrize(
    ("conclusion", "targets", "is_blamed", "expected"),
    [
        ("success", ["spot-host-b"], False, Outcome.SURVIVED),
        ("success", [], False, Outcome.SURVIVED),
        ("success", [None], False, Outcome.PARKED),
        ("success", ["spot-host-b"], True, Outcome.RERUN),
        ("failure", [None], True, Outcome.LOST),
        ("cancelled", ["spot-host-b"], False, Outcome.SURVIVED),
        ("cancelled", ["spot-host-b"], True, Outcome.RERUN),
    ],
)
def test_an_interruption_is_judged_by_where_its_guests_went_and_how_their_jobs_ended(
    conclusion: str, targets: list[str | None], expected: Outcome, *, is_blamed: bool
) -> None:
    moves = [{"source": "spot-host-a", "target": target} for target in targets]
    elsewhere = {"source": "spot-host-b", "target": None}
    job = {"conclusion": conclusion, "migrations": [*moves, elsewhere]}
    assert outcome_of(job, "spot-host-a", is_blamed=is_blamed) is expected


def test_where_every_host_was_taken_back_a_guest_may_be_parked_by_any_of_them() -> None:
    moved_first = [{"source": "spot-host-a", "target": "spot-host-b"}, {"source": "spot-host-b", "target": None}]
    job = {"conclusion": "success", "migrations": moved_first}
    assert outcome_of(job, None, is_blamed=False) is Outcome.PARKED
    assert outcome_of(job | {"migrations": moved_first[:1]}, None, is_blamed=False) is Outcome.SURVIVED


def test_where_all_hosts_are_taken_nothing_is_over_before_their_common_end() -> None:
    plan = planned(1, 1, (90, 90), ())
    one = Interruption(plan, "host-a", at=1000.0, jobs=(1,))
    every = Interruption(plan, "host-a", at=1000.0, jobs=(1, 2), takes_all=True)
    assert (one.judged_by, every.judged_by) == ("host-a", None)
    assert [done.is_over(1089.0, is_gone=True) for done in (one, every)] == [True, False]
    assert [done.is_over(1090.0, is_gone=True) for done in (one, every)] == [True, True]
    assert not every.is_over(1090.0, is_gone=False)
