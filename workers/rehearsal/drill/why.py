"""Why a job came to what it came to: everything that was seen of it, as sentences, in the order of time. Pure.

    attempts, registrations, moves, timeline ──▶ what matters to this job ──▶ sentences

Only named fields are told, so that no key and no token can be among them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from workers.domain.events import Event
from workers.domain.migration import Migration
from workers.rehearsal.drill.interruption import Interruption
from workers.rehearsal.follow import told
from workers.rehearsal.job.end import MARK

Json = dict[str, Any]

GOOD: Final = frozenset({"success", "skipped", None})
# The end of a log says what failed, and a page of them is as much as anybody reads.
LINES_TOLD: Final = 6
LINE_MAX: Final = 200


@dataclass(frozen=True)
class Case:
    """What is known of one job."""

    attempts: Sequence[Json]
    """All attempts at it, oldest first, as the simulator tells them, with their logs."""
    registrations: Sequence[Json]
    moves: Sequence[Migration]
    events: Sequence[Event]
    interruptions: Sequence[Interruption]
    """Those that met it."""

    @property
    def runners(self) -> set[str]:
        """The names of the runners that were given the job."""
        return {attempt["runner_name"] for attempt in self.attempts if attempt["runner_name"]}


def needs_words(attempts: Sequence[Json], *, is_connected: bool) -> bool:
    """Say whether somebody will ask what became of a job: it did not go straight to its success, or was cut off."""
    return len(attempts) > 1 or attempts[-1]["conclusion"] != "success" or not is_connected


def why(case: Case) -> list[str]:
    """Return what happened to a job."""
    rows = [row for row in case.moves if row.runner_id in case.runners]
    return [*_interrupted(case), *_attempts(case), *map(_move, rows), *_timeline(case, rows)]


def _interrupted(case: Case) -> Iterator[str]:
    for one in case.interruptions:
        fault = f", with {one.plan.fault}" if one.plan.fault else ""
        yield f"{_clock(one.at)} {one.host} was taken back in {one.plan.notice_s:.0f} s{fault}"


def _attempts(case: Case) -> Iterator[str]:
    gone = {one["name"]: one["gone_because"] for one in case.registrations}
    for number, attempt in enumerate(case.attempts, start=1):
        runner = attempt["runner_name"]
        where = f"on {runner} (at GitHub: {gone.get(runner) or 'still registered'})" if runner else "on no runner"
        span = f"{_clock(attempt['started_at'])} to {_clock(attempt['completed_at'])}"
        yield f"attempt {number}, job {attempt['id']} {where}: {attempt['conclusion'] or 'not over'}, {span}"
        yield from _failing_step(attempt)


def _failing_step(attempt: Json) -> Iterator[str]:
    """Tell the step that failed or was never over, and the end of its log; nothing if all went well."""
    step = next((one for one in attempt["steps"] if one["conclusion"] not in GOOD), None)
    step = step or next((one for one in attempt["steps"] if one["starts"] and one["conclusion"] is None), None)
    if step is None:
        return
    span = f"{_clock(step['started_at'])} to {_clock(step['completed_at'])}"
    yield f"its step {step['number']} “{step['name']}”: {step['conclusion'] or 'not over'}, {span}"
    for line in _last_lines(attempt, step["number"]):
        yield f"its log: {line}"


def _last_lines(attempt: Json, step: int) -> Sequence[str]:
    lines = [line for line in attempt.get("log", ()) if line["step"] == step and not line["text"].startswith(MARK)]
    return [f"{_clock(line['at'])} {line['text'][:LINE_MAX]}" for line in lines[-LINES_TOLD:]]


def _move(row: Migration) -> str:
    ends = f"{row.source_id or 'the store'} → {row.target_id or 'the store'}"
    times = {
        "planned": row.planned_at,
        "deadline": row.deadline_at,
        "source last heard": row.source_seen_at,
        "target last heard": row.target_seen_at,
        "running": row.running_at,
        "wiped": row.wiped_at,
    }
    heard = [f"{name} {_clock(at.timestamp())}" for name, at in times.items() if at is not None]
    reason = f", because {row.reason}" if row.reason else ""
    return f"{row.id} of {row.runner_id}, {ends}: {row.phase.value}{reason}, epoch {row.epoch}, {', '.join(heard)}"


def _timeline(case: Case, rows: Sequence[Migration]) -> Iterator[str]:
    jobs, moves = {attempt["id"] for attempt in case.attempts}, {row.id for row in rows}
    taken = {one.host for one in case.interruptions}
    hosts = taken | {str(host) for row in rows for host in (row.source_id, row.target_id) if host}
    for event in case.events:
        is_hosts_own = event.runner_id is None and event.job_id is None and event.host_id in hosts
        if event.job_id in jobs or event.runner_id in case.runners or event.migration_id in moves or is_hosts_own:
            yield f"{_clock(event.at.timestamp())} {told(event).plain}"


def _clock(moment: float | None) -> str:
    """Write a Unix time as the programs' logs do, in UTC."""
    return "never" if moment is None else datetime.fromtimestamp(moment, UTC).strftime("%H:%M:%S.%f")[:-3]
