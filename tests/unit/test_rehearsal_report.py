from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from workers.domain.events import Event, Happening
from workers.domain.migration import Migration, MigrationPhase
from workers.domain.names import HostId, JobId, MigrationId, RunnerId
from workers.rehearsal.job.end import LINE_MAX, lines_of
from workers.rehearsal.pulse import Stall
from workers.rehearsal.report import Seen, Verdict, figures_of, report, verdict

Json = dict[str, Any]

SENT_AT = 1_800_000_000.0
RUNNER = RunnerId("spot-runner-a")
SOURCE, TARGET = HostId("spot-host-a"), HostId("spot-host-b")
MOVE = MigrationId("spot-move-a")


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(SENT_AT + seconds, UTC)


def event(happening: Happening, seconds: float, job: int | None = None, **ids: str) -> Event:
    return Event(happening, at(seconds), None if job is None else JobId(job), **ids)  # type: ignore[arg-type]  # names


def figures(*, gap_at: float | None = None, clock_lost_ms: float = 0.0) -> Json:
    """What a job prints that lasted 60 s with gaps of 6 ms, one of 40 ms in the tenth of a second of `gap_at`."""
    gaps = [6.0] * 600
    if gap_at is not None:
        gaps[int(gap_at * 10)] = 40.0
    offsets = [
        [SENT_AT + n / 2, 1.0 + (clock_lost_ms if gap_at is not None and n / 2 >= gap_at else 0)] for n in range(120)
    ]
    connection = {"survived": True, "longest_gap_ms": 61.5, "lost_messages": 0, "clock_offsets_ms": offsets}
    connection["longest_gap_at"] = SENT_AT + 20.0
    return {"connection": connection, "beat": {"began_at": SENT_AT, "bucket_s": 0.1, "gaps_ms": gaps}, "disk": True}


def attempt(number: int = 7, conclusion: str = "success", starts: int = 1, said: Json | None = None) -> Json:
    log = [{"text": line} for line in ("cloning", *(lines_of(said) if said else []), "bye")]
    return {
        "id": number,
        "conclusion": conclusion,
        "runner_name": RUNNER,
        "started_at": SENT_AT + 2.5,
        "steps": [{"number": n, "starts": starts} for n in (1, 2, 3)],
        "log": log,
    }


def seen(
    *attempts: Json, events: Sequence[Event] = (), migrations: Sequence[Migration] = (), interrupted: bool = False
) -> Seen:
    delivery = {"action": "queued", "job_id": 7, "delivered_at": at(0.02).isoformat(), "duration": 0.02}
    return Seen("tcg", 16.04, 30, [attempts], [delivery], events, migrations, interrupted)


def moved(phase: MigrationPhase = MigrationPhase.FINISHED) -> Migration:
    measured = {
        "stopped_at": SENT_AT + 30.0,
        "completed_at": SENT_AT + 30.010,
        "commit_read_at": SENT_AT + 30.018,
        "resumed_at": SENT_AT + 30.025,
        "memory_mib_sent": 210.5,
        "disk_mib_sent": 130.0,
    }
    row = Migration(MOVE, RUNNER, SOURCE, TARGET, phase, epoch=2, planned_at=at(27), deadline_at=at(87))
    return replace(row, figures=measured)


EVENTS = [
    event(Happening.JOB_QUEUED, 0.05, job=7),
    event(Happening.JOB_PLACED, 0.06, job=7, runner_id=RUNNER),
    event(Happening.RUNNER_RESTORED, 0.9, runner_id=RUNNER),
    event(Happening.RUNNER_RESTORED, 9.9, runner_id=RunnerId("another")),
    event(Happening.RUNNER_REGISTERED, 1.2, runner_id=RUNNER),
    event(Happening.RUNNER_STARTED, 1.5, runner_id=RUNNER),
    event(Happening.HOST_NOTICE, 26.0, host_id=SOURCE),
    event(Happening.MIGRATION_PLANNED, 27.0, migration_id=MOVE),
    event(Happening.MIGRATION_COMMITTED, 30.5, migration_id=MOVE),
    event(Happening.MIGRATION_RUNNING, 31.0, migration_id=MOVE),
]


def test_the_report_has_exactly_the_promised_keys() -> None:
    told = report(seen(attempt(said=figures()), events=EVENTS, migrations=[moved()], interrupted=True))
    assert set(told) == {
        "verdict",
        "accel",
        "jobs",
        "cold_boot_s",
        "job_lock_s",
        "machine",
        "leftovers",
        "hosts",
        "tunnelled_mib",
    }
    assert set(told["jobs"][0]) == {
        "conclusion", "steps_run", "steps_rerun", "queue_to_start_s", "stages_s", "migrations", "connection",
        "disk_sha256_ok",
    }  # fmt: skip
    assert set(told["jobs"][0]["migrations"][0]) == {
        "source", "target", "notice_to_commit_s", "total_s", "stopped_ms", "commit_ms", "guest_gap_ms",
        "guest_gap_baseline_ms", "memory_mib_sent", "disk_mib_sent", "hold_broken_s",
    }  # fmt: skip
    json.dumps(told)


def test_each_host_tells_how_long_it_took_to_be_ready() -> None:
    events = [
        event(Happening.HOST_REQUESTED, 1.0, host_id=SOURCE),
        event(Happening.HOST_LAUNCHED, 1.5, host_id=SOURCE),
        event(Happening.HOST_RUNNING, 2.5, host_id=SOURCE),
        event(Happening.HOST_REGISTERED, 5.5, host_id=SOURCE),
        replace(event(Happening.HOST_READY, 9.5, host_id=SOURCE), detail={"proved": 2.0}),
        event(Happening.HOST_READY, 99.5, host_id=SOURCE),
        event(Happening.HOST_REQUESTED, 2.0, host_id=TARGET),
    ]
    told = report(seen(attempt(), events=events))["hosts"]
    stages = {"launched": 0.5, "running": 1.0, "registered": 3.0, "ready": 4.0}
    assert told[SOURCE] == {"ready_s": 7.0, "stages_s": stages, "own_s": {"proved": 2.0}}
    assert told[TARGET] == {"ready_s": None, "stages_s": {}, "own_s": {}}


def test_stages_are_counted_from_the_sending_of_the_webhook() -> None:
    job = report(seen(attempt(), events=EVENTS))["jobs"][0]
    assert job["stages_s"] == {
        "webhook": 0.02, "queued": 0.05, "placed": 0.06, "restored": 0.9, "registered": 1.2, "started": 1.5,
    }  # fmt: skip
    assert job["queue_to_start_s"] == 2.5


def test_a_job_that_got_another_runner_tells_that_ones_story() -> None:
    for_it = [
        event(Happening.RUNNER_RESTORED, 0.5, job=7, runner_id=RunnerId("made-for-it")),
        event(Happening.RUNNER_RESTORED, 0.8, job=8, runner_id=RUNNER),
    ]
    assert report(seen(attempt(), events=for_it))["jobs"][0]["stages_s"]["restored"] == 0.8


def test_a_stage_that_was_not_seen_is_not_made_up() -> None:
    assert report(seen(attempt()))["jobs"][0]["stages_s"]["restored"] is None
    assert report(replace(seen(attempt()), deliveries=[]))["jobs"][0]["queue_to_start_s"] is None


def test_a_move_is_told_by_what_both_sides_measured() -> None:
    said = figures(gap_at=30.0)
    told = report(seen(attempt(said=said), events=EVENTS, migrations=[moved()], interrupted=True))
    (move,) = told["jobs"][0]["migrations"]
    assert (move["source"], move["target"]) == (SOURCE, TARGET)
    assert (move["notice_to_commit_s"], move["total_s"]) == (4.5, 4.0)
    assert (move["stopped_ms"], move["commit_ms"]) == (25.0, 8.0)
    assert (move["memory_mib_sent"], move["disk_mib_sent"]) == (210.5, 130.0)
    assert move["hold_broken_s"] is None


def test_a_move_that_could_not_wait_for_a_hold_says_what_was_left_of_it() -> None:
    broken = event(Happening.HOLD_BROKEN, 27.0, migration_id=MOVE)
    broken = replace(broken, detail={"held_until": at(117.0).isoformat(timespec="seconds")})
    told = report(seen(attempt(said=figures()), events=[*EVENTS, broken], migrations=[moved()], interrupted=True))
    assert told["jobs"][0]["migrations"][0]["hold_broken_s"] == 90.0


def test_the_gap_is_looked_for_around_the_pause_and_the_baseline_away_from_it() -> None:
    def gaps(gap_at: float) -> tuple[float, float]:
        told = report(seen(attempt(said=figures(gap_at=gap_at)), migrations=[moved()], interrupted=True))
        (move,) = told["jobs"][0]["migrations"]
        return move["guest_gap_ms"], move["guest_gap_baseline_ms"]

    assert gaps(30.5) == (40.0, 6.0)
    assert gaps(35.0) == (6.0, 6.0), "a gap five seconds later is neither the move's nor of a quiet window"
    assert gaps(50.0) == (6.0, 6.0), "one bad window of many does not move the median"


def test_what_the_guests_clock_lost_in_the_pause_counts() -> None:
    said = figures(gap_at=30.0, clock_lost_ms=25.0)
    told = report(seen(attempt(said=said), migrations=[moved()], interrupted=True))
    assert told["jobs"][0]["migrations"][0]["guest_gap_ms"] == pytest.approx(65.0)


def test_a_job_without_figures_has_nothing_to_boast_of() -> None:
    job = report(seen(attempt(conclusion="failure")))["jobs"][0]
    assert job["connection"] == {
        "survived": False,
        "longest_gap_ms": None,
        "longest_gap_at_s": None,
        "longest_gap_stalled_ms": None,
        "lost_messages": None,
    }
    assert job["disk_sha256_ok"] is False


def test_figures_that_need_many_lines_are_read_whole() -> None:
    said = figures(gap_at=30.0)
    said["connection"]["clock_offsets_ms"] *= 20
    assert len(lines_of(said)) > 3
    assert max(map(len, lines_of(said))) < LINE_MAX + 100
    assert figures_of(attempt(said=said)) == said


def test_an_aborted_move_is_not_reported_as_one() -> None:
    told = report(seen(attempt(said=figures()), migrations=[moved(MigrationPhase.ABORTED)]))
    assert told["jobs"][0]["migrations"] == []


LOST = event(Happening.JOB_LOST, 40, job=7)


def test_what_the_machine_itself_stood_still_is_told_beside_the_connections_longest_gap() -> None:
    """The gap lasts from 19.9385 s to 20 s; of two processors the one that stood still longer in it counts."""
    stalls = [
        Stall(0, SENT_AT + 19.95, 0.2),  # 11.5 ms of it in the gap
        Stall(0, SENT_AT + 20.01, 0.02),  # 10 ms of it
        Stall(1, SENT_AT + 19.99, 0.015),
        Stall(1, SENT_AT + 25.0, 0.3),
    ]
    told = report(replace(seen(attempt(said=figures())), stalls=stalls))
    assert told["jobs"][0]["connection"]["longest_gap_stalled_ms"] == pytest.approx(21.5, abs=0.1)
    assert told["machine"] == {"stalls": 4, "longest_stall_ms": 300.0}


@pytest.mark.parametrize(
    ("facts", "expected", "status"),
    [
        (seen(attempt()), Verdict.SURVIVED, 0),
        (seen(attempt(), migrations=[moved()], interrupted=True), Verdict.SURVIVED, 0),
        (seen(attempt(), interrupted=True), Verdict.FAILED, 1),
        (seen(attempt(starts=2)), Verdict.RERUN, 3),
        (seen(attempt(7, "failure"), attempt(8), events=[LOST], interrupted=True), Verdict.RERUN, 3),
        (seen(attempt(7, "failure"), events=[LOST], interrupted=True), Verdict.LOST, 4),
        (seen(attempt(7, "failure")), Verdict.FAILED, 1),
    ],
)
def test_the_verdict_follows_from_how_the_last_attempt_ended(facts: Seen, expected: Verdict, status: int) -> None:
    assert verdict(facts) is expected
    assert expected.exit_status == status


def test_the_worst_job_decides() -> None:
    facts = seen(attempt())
    assert verdict(replace(facts, jobs=[[attempt()], [attempt(9, "failure")]])) is Verdict.FAILED


def test_steps_that_were_run_in_both_attempts_count_as_run_again() -> None:
    job = report(seen(attempt(7, "failure"), attempt(8), events=[LOST]))["jobs"][0]
    assert (job["steps_run"], job["steps_rerun"]) == (6, 3)
