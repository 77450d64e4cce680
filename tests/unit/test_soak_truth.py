"""The soak's comparison misses nothing: neither a job that was forgotten nor one that was made up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.bench.soak.deployment import added
from tests.bench.soak.guests import Pace, conclusion_of
from tests.bench.soak.truth import Mismatch, mismatches
from tests.contract.store_rows import a_job
from workers.domain.job import Job, JobEnd, JobState
from workers.domain.names import JobId

DONE = replace(a_job(), state=JobState.COMPLETED, conclusion="success", end=JobEnd.SUCCEEDED)


def truth(job: Job, status: str = "completed", conclusion: str | None = "success") -> dict[str, object]:
    return {"id": job.id, "status": status, "conclusion": conclusion}


def test_both_sides_may_agree() -> None:
    cancelled = replace(DONE, id=JobId(DONE.id + 1), state=JobState.CANCELLED, conclusion="cancelled")
    assert mismatches([truth(DONE), truth(cancelled, conclusion="cancelled")], [cancelled, DONE]) == []


@pytest.mark.parametrize(
    ("row", "store"),
    [
        (replace(DONE, state=JobState.RUNNING, conclusion=None, end=None), "running None"),
        (replace(DONE, conclusion="failure"), "completed failure"),
        (replace(DONE, state=JobState.LOST), "lost success"),
        (replace(DONE, state=JobState.CANCELLED), "cancelled success"),
    ],
)
def test_a_job_of_which_the_store_says_something_else_is_told(row: Job, store: str) -> None:
    assert mismatches([truth(DONE)], [row]) == [Mismatch(DONE.id, "completed success", store)]


def test_a_job_that_only_one_side_knows_is_told() -> None:
    assert mismatches([truth(DONE)], []) == [Mismatch(DONE.id, "completed success", "unknown")]
    assert mismatches([], [DONE]) == [Mismatch(DONE.id, "unknown", "completed success")]


def test_a_job_that_github_has_not_ended_is_not_over_for_us_either() -> None:
    assert mismatches([truth(DONE, "in_progress", None)], [DONE])
    waits = replace(DONE, state=JobState.QUEUED, conclusion=None, end=None)
    assert mismatches([truth(DONE, "queued", None)], [waits])


def test_what_is_drawn_for_a_job_follows_from_its_number() -> None:
    pace = Pace(1.0, 8.0)
    assert [pace.of(number) for number in range(9)] == [pace.of(number) for number in range(9)]
    assert {conclusion_of(number) for number in range(200)} == {"success", "failure"}


def test_processor_time_adds_up_by_name() -> None:
    assert added({"serve": 1.0}, {"serve": 0.5, "worker": 2.0}) == {"serve": 1.5, "worker": 2.0}
