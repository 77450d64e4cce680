"""What every implementation of the GitHub port promises of remarks beside commits and of running one job again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.contract.github.places import Place, until
from tests.contract.github.sides import Side
from workers.domain.errors import NotThere, Refused, TryLater, Unreachable
from workers.domain.names import JobId
from workers.domain.remark import Remark, Verdict

LABELS = ("spot-runner",)
SHA = "0123456789abcdef0123456789abcdef01234567"


def a_remark(side: Side, key: str = "k1") -> Remark:
    return Remark(
        key, side.installation, side.repository, SHA, "spot-runner", Verdict.NEUTRAL, "Lost", "It was **lost**."
    )


def test_a_remark_stands_beside_its_commit(side: Side) -> None:
    side.port.remark(a_remark(side))
    assert side.remarks() == [("k1", SHA, "spot-runner", "neutral", "Lost", "It was **lost**.")]


def test_a_remark_that_is_made_twice_stands_there_once_and_with_its_last_words(side: Side) -> None:
    said = a_remark(side)
    side.port.remark(said)
    side.port.remark(said)
    side.port.remark(replace(said, verdict=Verdict.ACTION_REQUIRED, title="Given up", summary="No more."))
    assert side.remarks() == [("k1", SHA, "spot-runner", "action_required", "Given up", "No more.")]


def test_remarks_with_other_keys_stand_beside_each_other(side: Side) -> None:
    side.port.remark(a_remark(side))
    side.port.remark(a_remark(side, "k2"))
    assert {key for key, *_ in side.remarks()} == {"k1", "k2"}


def test_the_jobs_of_a_run_are_those_of_its_latest_attempt(side: Side) -> None:
    first, second, run_id = side.queue_pair(LABELS)
    listed = side.port.jobs_of(side.installation, side.repository, run_id)
    assert {one.id for one in listed} == {first, second}
    assert len({one.name for one in listed}) == 2
    assert {(one.status, one.conclusion, one.completed_at) for one in listed} == {("queued", None, None)}
    assert side.port.jobs_of(side.installation, side.repository, 4) == []


def test_one_job_is_run_again_once_the_attempt_has_ended_and_its_sibling_is_not(side: Side) -> None:
    first, second, run_id = side.queue_pair(LABELS)
    taken = dict[JobId, str]()
    for name in ("spot-runner-a", "spot-runner-b"):
        registration = side.register(name, LABELS)
        job_id = side.take_job(registration)
        with pytest.raises(TryLater):
            side.port.rerun_job(side.installation, side.repository, first)
        side.end_job(job_id, registration, "failure")
        taken[job_id] = name
    assert set(taken) == {first, second}
    ended = [one.completed_at for one in side.port.jobs_of(side.installation, side.repository, run_id)]
    assert all(at is not None and at.tzinfo is not None for at in ended)
    side.port.rerun_job(side.installation, side.repository, first)

    (again,) = side.port.jobs_of(side.installation, side.repository, run_id)
    assert (again.id not in taken, again.status) == (True, "queued")
    seen = side.port.job(side.installation, side.repository, again.id)
    assert seen is not None
    assert seen.run_attempt == 2


def test_a_job_says_whether_it_deploys(side: Side) -> None:
    (plain, _), (deploying, _) = side.queue_job(LABELS), side.queue_deploying(LABELS)
    held = [side.port.holds_deployment(side.installation, side.repository, one) for one in (plain, deploying, JobId(4))]
    assert held == [False, True, None]


def test_what_a_job_deploys_to_is_told_by_its_deliveries_too(place: Place) -> None:
    steps = [("one", "true")]
    plain, deploying = (
        place.control.start_jobs(place.repository, LABELS, steps, environment=where)[0]
        for where in (None, "production")
    )
    told = [until(lambda one=one: place.receiver.of_job(one), "it is told")[0].payload for one in (plain, deploying)]  # type: ignore[misc]
    assert [one.get("deployment", {}).get("environment") for one in told] == [None, "production"]
    assert place.control.violations() == []


def test_the_rerun_of_a_job_that_never_was_is_refused(side: Side) -> None:
    with pytest.raises(NotThere):
        side.port.rerun_job(side.installation, side.repository, JobId(4))


def test_a_remark_whose_answer_was_lost_stands_there_once(place: Place) -> None:
    said = Remark("k1", place.installation, place.repository, SHA, "spot-runner", Verdict.NEUTRAL, "Lost", "It was.")
    place.control.plant("lost", "POST", f"/repos/{place.repository}/check-runs")
    with pytest.raises(Unreachable):
        place.port().remark(said)
    place.port().remark(said)
    assert [one["words"] for one in place.control.checks() if one["repository"] == place.repository] == [2]


def test_a_run_of_many_jobs_is_listed_whole(place: Place) -> None:
    ids = place.control.start_jobs(place.repository, LABELS, [("one", "true")], count=230, together=True)
    run_id = place.control.job(ids[0])["run_id"]
    assert {one.id for one in place.port().jobs_of(place.installation, place.repository, run_id)} == set(ids)


def test_an_installation_without_the_permission_is_told_so(place: Place) -> None:
    place.control.plant("forbidden", "POST", f"/repos/{place.repository}/check-runs")
    said = Remark("k1", place.installation, place.repository, SHA, "spot-runner", Verdict.NEUTRAL, "Lost", "It was.")
    with pytest.raises(Refused, match="not accessible"):
        place.port().remark(said)
