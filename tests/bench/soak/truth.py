"""Is what our store says of each job what GitHub says of it?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from workers.domain.job import Job, JobState
from workers.domain.names import JobId


@dataclass(frozen=True)
class Mismatch:
    """One job of which the store says something else than GitHub."""

    job_id: int
    github: str
    store: str


def mismatches(truth: Iterable[Mapping[str, Any]], rows: Iterable[Job]) -> list[Mismatch]:
    """Compare job by job, both ways: a job that only one side knows is a mismatch, and so is one that is not over."""
    known = {row.id: told(row) for row in rows}
    said = {JobId(int(job["id"])): ended(job) for job in truth}
    unequal = [key for key in sorted(said.keys() | known.keys()) if said.get(key) != known.get(key)]
    return [Mismatch(key, said.get(key, "unknown"), known.get(key, "unknown")) for key in unequal]


def ended(job: Mapping[str, Any]) -> str:
    """Say how a job ended at GitHub, in words that fit no row if it did not."""
    return f"completed {job['conclusion']}" if job["status"] == "completed" else f"still {job['status']}"


def told(row: Job) -> str:
    """Say of a row what GitHub would say of the job that it stands for."""
    match row.state:
        case JobState.COMPLETED if row.conclusion != "cancelled":
            return f"completed {row.conclusion}"
        case JobState.CANCELLED if row.conclusion == "cancelled":
            return f"completed {row.conclusion}"
        case _:
            return f"{row.state.value} {row.conclusion}"
