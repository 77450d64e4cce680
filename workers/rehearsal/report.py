"""From what was seen to what is reported: pure, so that every figure can be checked against made-up facts.

Moments are Unix times of this one machine; the control plane, the simulator and the hosts share its clock.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum, auto
from typing import Any, Final, assert_never

from workers.domain.events import Event, Happening
from workers.domain.migration import Migration, MigrationPhase
from workers.planning.readying import readying
from workers.rehearsal import gaps
from workers.rehearsal.gaps import Beat
from workers.rehearsal.job.end import MARK
from workers.rehearsal.pulse import Stall, stalled_ms

Json = dict[str, Any]
JOB_STAGES: Final = {"queued": Happening.JOB_QUEUED, "placed": Happening.JOB_PLACED}
RUNNER_STAGES: Final = {
    "restored": Happening.RUNNER_RESTORED,
    "registered": Happening.RUNNER_REGISTERED,
    "started": Happening.RUNNER_STARTED,
}


class Verdict(StrEnum):
    """How it ended for the jobs."""

    SURVIVED = auto()
    RERUN = auto()
    LOST = auto()
    FAILED = auto()

    @property
    def exit_status(self) -> int:
        match self:
            case Verdict.SURVIVED:
                return 0
            case Verdict.FAILED:
                return 1
            case Verdict.RERUN:
                return 3
            case Verdict.LOST:
                return 4
            case _:
                assert_never(self)


@dataclass(frozen=True)
class Seen:
    """Everything that a rehearsal has seen."""

    acceleration: str
    cold_boot_s: float | None
    job_lock_s: float
    jobs: Sequence[Sequence[Json]]
    """For each job its attempts, oldest first, as the simulator tells them, with their logs."""
    deliveries: Sequence[Json]
    events: Sequence[Event]
    migrations: Sequence[Migration]
    interrupted: bool
    """A host was taken away while it had a job."""
    stalls: Sequence[Stall] = ()
    """When this machine itself stood still."""
    leftovers: tuple[str, ...] = ()
    tunnelled_mib: Mapping[str, float] | None = None
    """What came to each host through WireGuard; None: there was no overlay."""
    clouds: Json | None = None
    """What was rented and what it cost, where clouds were played (`clouds.bill`)."""


def report(seen: Seen) -> Json:
    """Return the report, ready for JSON."""
    jobs = [_job(seen, attempts) for attempts in seen.jobs]
    return {
        "verdict": verdict(seen).value,
        "accel": seen.acceleration,
        "jobs": jobs,
        "cold_boot_s": None if seen.cold_boot_s is None else round(seen.cold_boot_s, 2),
        "job_lock_s": seen.job_lock_s,
        "hosts": _hosts(seen),
        "tunnelled_mib": _rounded(seen.tunnelled_mib),
        **({} if seen.clouds is None else {"clouds": seen.clouds}),
        "machine": _machine(seen),
        "leftovers": list(seen.leftovers),
    }


def _hosts(seen: Seen) -> Json:
    """Tell of each host how long it took from running to READY, and what for."""
    return {
        host_id: {
            "ready_s": None if one.ready_s is None else round(one.ready_s, 3),
            "stages_s": dict(one.spans_s),
            "own_s": dict(one.own_s),
        }
        for host_id, one in readying(seen.events).items()
    }


def _rounded(figures: Mapping[str, float] | None) -> Json | None:
    return None if figures is None else {name: round(value, 1) for name, value in figures.items()}


def _machine(seen: Seen) -> Json:
    longest = max(seen.stalls, key=lambda stall: stall.length_s, default=None)
    return {
        "stalls": len(seen.stalls),
        "longest_stall_ms": 0.0 if longest is None else round(longest.length_s * 1000, 1),
    }


def verdict(seen: Seen) -> Verdict:
    """Judge all jobs together: the worst of them decides."""
    judged = [_verdict_of(seen, attempts) for attempts in seen.jobs]
    moved = any(_is_committed(row) for row in seen.migrations)
    if seen.interrupted and not moved and set(judged) <= {Verdict.SURVIVED}:
        return Verdict.FAILED  # nothing was moved, so nothing was shown
    return max(judged, key=list(Verdict).index, default=Verdict.FAILED)


def _verdict_of(seen: Seen, attempts: Sequence[Json]) -> Verdict:
    if attempts[-1]["conclusion"] == "success":
        return Verdict.RERUN if len(attempts) > 1 or _steps_rerun(attempts) else Verdict.SURVIVED
    lost = {event.job_id for event in seen.events if event.happening is Happening.JOB_LOST}
    return Verdict.LOST if any(attempt["id"] in lost for attempt in attempts) else Verdict.FAILED


def _job(seen: Seen, attempts: Sequence[Json]) -> Json:
    first, last = attempts[0], attempts[-1]
    figures = figures_of(last)
    connection = figures.get("connection", {})
    stages = _stages(seen, first)
    return {
        "conclusion": last["conclusion"],
        "steps_run": sum(step["starts"] for attempt in attempts for step in attempt["steps"]),
        "steps_rerun": _steps_rerun(attempts),
        "queue_to_start_s": _queue_to_start(seen, first),
        "stages_s": stages,
        "migrations": [_migration(seen, row, figures) for row in _moves_of(seen, attempts)],
        "connection": {
            "survived": bool(connection.get("survived", False)),
            "longest_gap_ms": connection.get("longest_gap_ms"),
            "longest_gap_at_s": _since_webhook(seen, first, connection.get("longest_gap_at")),
            "longest_gap_stalled_ms": _stalled_in_gap(seen, connection),
            "lost_messages": connection.get("lost_messages"),
        },
        "disk_sha256_ok": bool(figures.get("disk", False)),
    }


def _since_webhook(seen: Seen, attempt: Json, moment: float | None) -> float | None:
    """Return a moment as the story tells it: in seconds after the webhook of the first attempt."""
    sent = webhook_at(seen.deliveries, attempt["id"])
    return _span_s(sent[0], moment) if sent and moment else None


def _stalled_in_gap(seen: Seen, connection: Json) -> float | None:
    """Return how much of the longest gap this machine itself stood still."""
    if not connection:
        return None
    ended_at = connection["longest_gap_at"]
    return stalled_ms(seen.stalls, ended_at - connection["longest_gap_ms"] / 1000, ended_at)


def _steps_rerun(attempts: Sequence[Json]) -> int:
    starts: dict[int, int] = {}
    for step in (step for attempt in attempts for step in attempt["steps"]):
        starts[step["number"]] = starts.get(step["number"], 0) + step["starts"]
    return sum(max(0, count - 1) for count in starts.values())


def figures_of(attempt: Json) -> Json:
    """Return what the job itself has measured; empty if it did not come so far."""
    texts = [line["text"] for line in attempt.get("log", ())]
    whole = "".join(text.removeprefix(f"{MARK} ") for text in texts if text.startswith(f"{MARK} "))
    found: Json = json.loads(whole) if whole else {}
    return found


# ---------------------------------------------------------------- from the webhook to the first step


def webhook_at(deliveries: Sequence[Json], job_id: int) -> tuple[float, float] | None:
    """Return when the `queued` delivery of a job was sent and when it was answered."""
    for delivery in deliveries:
        if delivery["action"] == "queued" and delivery["job_id"] == job_id and delivery["delivered_at"]:
            answered_at = datetime.fromisoformat(delivery["delivered_at"]).timestamp()
            return answered_at - (delivery["duration"] or 0.0), answered_at
    return None


def _queue_to_start(seen: Seen, attempt: Json) -> float | None:
    sent = webhook_at(seen.deliveries, attempt["id"])
    return None if sent is None or attempt["started_at"] is None else round(attempt["started_at"] - sent[0], 3)


def _stages(seen: Seen, attempt: Json) -> Json:
    sent = webhook_at(seen.deliveries, attempt["id"])
    if sent is None:
        return {}
    of_job = {name: _first(seen, happening, job=attempt["id"]) for name, happening in JOB_STAGES.items()}
    # GitHub may give the job to another runner than the one that was made for it, and that one's story counts.
    runner = attempt["runner_name"]
    of_runner = {name: _first(seen, happening, runner=runner) for name, happening in RUNNER_STAGES.items()}
    return {"webhook": _span_s(*sent), **{name: _span_s(sent[0], at) for name, at in (of_job | of_runner).items()}}


def _first(seen: Seen, happening: Happening, job: int | None = None, runner: str | None = None) -> float | None:
    """Return when this first happened to a job or to a runner."""
    for event in seen.events:
        is_its_own = event.job_id == job if job is not None else event.runner_id == runner
        if event.happening is happening and is_its_own:
            return event.at.timestamp()
    return None


# ---------------------------------------------------------------- moves


def _is_committed(row: Migration) -> bool:
    return row.phase in {MigrationPhase.COMMITTED, MigrationPhase.FINISHED}


def _moves_of(seen: Seen, attempts: Sequence[Json]) -> list[Migration]:
    names = {attempt["runner_name"] for attempt in attempts}
    return [row for row in seen.migrations if row.runner_id in names and _is_committed(row)]


def _migration(seen: Seen, row: Migration, figures: Json) -> Json:
    at = {event.happening: event.at.timestamp() for event in seen.events if event.migration_id == row.id}
    notices = [event.at.timestamp() for event in seen.events if _is_notice(event, row)]
    measured = row.figures
    paused_at = measured.get("stopped_at")
    beat = Beat.of(figures) if figures else None
    pauses = [move.figures["stopped_at"] for move in seen.migrations if "stopped_at" in move.figures]
    return {
        "source": row.source_id,
        "target": row.target_id,
        "notice_to_commit_s": _span_s(min(notices, default=None), at.get(Happening.MIGRATION_COMMITTED)),
        "total_s": _span_s(at.get(Happening.MIGRATION_PLANNED), at.get(Happening.MIGRATION_RUNNING)),
        "stopped_ms": _span_ms(paused_at, measured.get("resumed_at")),
        "commit_ms": _span_ms(measured.get("completed_at"), measured.get("commit_read_at")),
        "guest_gap_ms": None if beat is None or paused_at is None else gaps.around(beat, paused_at),
        "guest_gap_baseline_ms": None if beat is None else gaps.baseline(beat, pauses),
        "memory_mib_sent": measured.get("memory_mib_sent"),
        "disk_mib_sent": measured.get("disk_mib_sent"),
        "hold_broken_s": _hold_broken_s(seen, row),
    }


def _hold_broken_s(seen: Seen, row: Migration) -> float | None:
    """Return what was left of the job's wish not to be moved when the deadline forced the move; None if none was."""
    for event in seen.events:
        if event.happening is Happening.HOLD_BROKEN and event.migration_id == row.id:
            return _span_s(event.at.timestamp(), datetime.fromisoformat(str(event.detail["held_until"])).timestamp())
    return None


def _is_notice(event: Event, row: Migration) -> bool:
    return event.happening is Happening.HOST_NOTICE and event.host_id == row.source_id


def _span_s(begin: float | None, end: float | None) -> float | None:
    return None if begin is None or end is None else round(end - begin, 3)


def _span_ms(begin: float | None, end: float | None) -> float | None:
    return None if begin is None or end is None else round((end - begin) * 1000, 1)
