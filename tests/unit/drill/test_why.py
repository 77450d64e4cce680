"""Somebody who has only the drill's words can tell what became of a job, and no secret is among them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from workers.domain.events import Event, Happening
from workers.domain.migration import Migration, MigrationPhase
from workers.domain.names import HostId, JobId, MigrationId, RunnerId
from workers.rehearsal.drill.interruption import Interruption, planned
from workers.rehearsal.drill.why import LINES_TOLD, Case, needs_words, why
from workers.rehearsal.job.end import MARK

Json = dict[str, Any]

BEGAN = datetime(2026, 1, 1, 12, tzinfo=UTC)
RUNNER, HOST, TARGET, MOVE = RunnerId("spot-runner-1"), HostId("spot-host-a"), HostId("spot-host-b"), MigrationId("m-1")
KEY, MANIFEST = "5ec2e7" * 8, "0ff5e7" * 8


def unix(second: float) -> float:
    return (BEGAN + timedelta(seconds=second)).timestamp()


def step(number: int, conclusion: str | None, starts: int = 1) -> Json:
    moments = {"started_at": unix(number), "completed_at": unix(number + 1) if conclusion else None}
    return {"number": number, "name": f"step {number}", "starts": starts, "conclusion": conclusion, **moments}


def attempt(job: int, conclusion: str | None, *steps: Json, log: tuple[str, ...] = ()) -> Json:
    lines = [{"step": 2, "text": text, "at": unix(3)} for text in log]
    moments = {"started_at": unix(1), "completed_at": unix(9) if conclusion else None}
    return {"id": job, "conclusion": conclusion, "runner_name": RUNNER, "steps": list(steps), "log": lines, **moments}


ROW = Migration(
    MOVE, RUNNER, HOST, TARGET, MigrationPhase.ABORTED, 4, BEGAN, BEGAN + timedelta(seconds=90),
    reason="the target is lost", key=KEY, manifest=MANIFEST,
)  # fmt: skip
FAILED = attempt(7, "failure", step(1, "success"), step(2, "failure"), step(3, "skipped", 0), log=("boom",))
TAKEN = Interruption(planned(0, 0, (90, 90), ("target_gone@copying",)), HOST, unix(2), (7,))


def case(*attempts: Json, events: tuple[Event, ...] = (), row: Migration = ROW) -> Case:
    registrations = [{"name": RUNNER, "gone_because": "its lock has expired"}]
    return Case(attempts, registrations, [row], events, [TAKEN])


def said(one: Case) -> str:
    return "\n".join(why(one))


def test_the_step_that_failed_is_told_with_the_end_of_its_log() -> None:
    lines = tuple(f"line {number}" for number in range(20))
    words = why(case(attempt(7, "failure", step(1, "success"), step(2, "failure"), log=lines)))
    assert "its step 2 “step 2”: failure, 12:00:02.000 to 12:00:03.000" in words
    told = [sentence for sentence in words if sentence.startswith("its log")]
    assert told == [f"its log: 12:00:03.000 {line}" for line in lines[-LINES_TOLD:]]


def test_a_step_that_was_never_over_is_told_too() -> None:
    assert "its step 2 “step 2”: not over" in said(case(attempt(7, "failure", step(1, "success"), step(2, None))))


def test_every_attempt_is_told_with_its_runner_and_what_github_says_of_it() -> None:
    words = said(case(FAILED, attempt(8, "success", step(1, "success"))))
    assert "attempt 1, job 7 on spot-runner-1 (at GitHub: its lock has expired): failure" in words
    assert "attempt 2, job 8" in words


def test_what_was_done_and_each_move_is_told_with_phase_epoch_times_and_reason() -> None:
    words = said(case(FAILED))
    assert "12:00:02.000 spot-host-a was taken back in 90 s, with target_gone@copying" in words
    row = "m-1 of spot-runner-1, spot-host-a → spot-host-b: aborted, because the target is lost, epoch 4"
    assert f"{row}, planned 12:00:00.000, deadline 12:01:30.000" in words


@pytest.mark.parametrize(
    ("event", "is_told"),
    [
        (Event(Happening.RUNNER_STOPPED, BEGAN, runner_id=RUNNER), True),
        (Event(Happening.RUNNER_STOPPED, BEGAN, runner_id=RunnerId("another")), False),
        (Event(Happening.RUNNER_STOPPED, BEGAN, runner_id=RunnerId("another"), host_id=HOST), False),
        (Event(Happening.JOB_LOST, BEGAN, job_id=JobId(7)), True),
        (Event(Happening.HOST_LOST, BEGAN, host_id=TARGET), True),
        (Event(Happening.HOST_LOST, BEGAN, host_id=HostId("another")), False),
        (Event(Happening.MIGRATION_PAUSED, BEGAN, migration_id=MOVE), True),
    ],
)
def test_the_timeline_is_told_as_far_as_it_is_about_this_job(event: Event, *, is_told: bool) -> None:
    assert len(why(case(FAILED, events=(event,)))) - len(why(case(FAILED))) == is_told


def test_no_secret_is_told_and_no_figures_of_the_job() -> None:
    words = said(case(attempt(7, "failure", step(1, "success"), step(2, "failure"), log=(f"{MARK} {{1}}", "boom"))))
    assert "boom" in words
    assert not any(secret in words for secret in (KEY, MANIFEST, MARK))


def test_only_what_somebody_will_ask_about_is_told() -> None:
    good = attempt(8, "success", step(1, "success"))
    assert not needs_words([good], is_connected=True)
    assert needs_words([good], is_connected=False)
    assert needs_words([FAILED], is_connected=True)
    assert needs_words([FAILED, good], is_connected=True)
