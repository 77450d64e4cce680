"""From what became of each interruption and each job to the survival report. Pure; parts of several drills add up."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from workers.rehearsal.drill.interruption import Outcome

Json = dict[str, Any]


@dataclass
class Tally:
    """What is known so far, ready for JSON."""

    interruptions: list[Json] = field(default_factory=list)
    jobs: list[Json] = field(default_factory=list)
    double_runs: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, report: Json) -> Tally:
        """Read the parts of an earlier report, to go on from."""
        parts = report["parts"]
        return cls(parts["interruptions"], parts["jobs"], parts["double_runs"], report["leftovers"])

    def count(self, outcome: Outcome) -> int:
        return sum(one["outcome"] == outcome.value for one in self.interruptions)

    @property
    def is_clean(self) -> bool:
        """Nothing ran twice at once, nothing was left behind, and no job was lost for good."""
        return not (self.double_runs or self.leftovers or self.count(Outcome.LOST))

    def report(self, seed: int, shortened: Json) -> Json:
        """Return the survival report; `shortened` names the limits that are not what they are in production.

        Its times are those of live moves: a parked guest stands still until there is room.
        """
        moves = [move for job in self.jobs for move in job["migrations"] if move["source"] and move["target"]]
        return {
            "count": len(self.interruptions),
            **{outcome.value: self.count(outcome) for outcome in Outcome},
            "double_runs": len(self.double_runs),
            "steps_rerun": sum(job["steps_rerun"] for job in self.jobs),
            "leftovers": self.leftovers,
            "guest_gap_ms": percentiles([move["guest_gap_ms"] for move in moves]),
            "guest_gap_baseline_ms": percentiles([move["guest_gap_baseline_ms"] for move in moves]),
            "stopped_ms": percentiles([move["stopped_ms"] for move in moves]),
            "notice_to_commit_s": percentiles([move["notice_to_commit_s"] for move in moves]),
            "mib_sent": sum(round(move[kind] or 0) for move in moves for kind in ("memory_mib_sent", "disk_mib_sent")),
            "connection": _connection(self.jobs),
            "faults": dict(Counter(one["fault"] for one in self.interruptions if one["is_planted"])),
            "seed": seed,
            "shortened": shortened,
            "parts": {"interruptions": self.interruptions, "jobs": self.jobs, "double_runs": self.double_runs},
        }


def _connection(jobs: Sequence[Json]) -> Json:
    held = [job["connection"] for job in jobs if job["connection"]["longest_gap_ms"] is not None]
    longest = max(held, key=lambda one: one["longest_gap_ms"], default=None)
    return {
        "longest_gap_ms": None if longest is None else longest["longest_gap_ms"],
        "longest_gap_stalled_ms": None if longest is None else longest["longest_gap_stalled_ms"],
        "lost_messages": sum(one["lost_messages"] for one in held),
        "broken": sum(not job["connection"]["survived"] for job in jobs),
    }


def percentiles(values: Sequence[float | None]) -> Json:
    """Return the 50th, 95th and 99th percentile (the smallest value that so many are not above) and the maximum."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return {"p50": None, "p95": None, "p99": None, "max": None}
    ranks = {f"p{share}": known[math.ceil(share / 100 * len(known)) - 1] for share in (50, 95, 99)}
    return {**ranks, "max": known[-1]}
