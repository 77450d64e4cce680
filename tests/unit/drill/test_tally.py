"""The survival report says what was counted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.rehearsal.drill.interruption import Interruption, Outcome, planned
from workers.rehearsal.drill.tally import Tally, percentiles

Json = dict[str, Any]


def job(gap_ms: float | None = 80.0, steps_rerun: int = 0, *pauses_ms: float) -> Json:
    moves = [
        {
            "source": "spot-host-a",
            "target": "spot-host-b",
            "guest_gap_ms": pause + 10,
            "guest_gap_baseline_ms": 12.0,
            "stopped_ms": pause,
            "notice_to_commit_s": 5.0,
            "memory_mib_sent": 200.4,
            "disk_mib_sent": 16.2,
        }
        for pause in pauses_ms
    ]
    held = gap_ms is not None
    connection = {"survived": held, "longest_gap_ms": gap_ms, "longest_gap_stalled_ms": 1.0, "lost_messages": 0}
    return {"steps_rerun": steps_rerun, "connection": connection, "migrations": moves}


def interruption(number: int, outcome: Outcome, fault: str | None = None) -> Json:
    plan = planned(7, number, (20, 60), (fault,) if fault else ())
    return Interruption(plan, "spot-host-a", 1.0, (5,)).told(outcome) | {"is_planted": fault is not None}


TALLY = Tally(
    interruptions=[
        interruption(0, Outcome.SURVIVED),
        interruption(1, Outcome.SURVIVED, "redis_flushed"),
        interruption(2, Outcome.RERUN, "redis_flushed"),
    ],
    jobs=[job(80.0, 0, 30.0, 50.0), job(200.0, 2), job(None)],
)


def test_the_report_counts_what_became_of_each_interruption_and_each_job() -> None:
    told = TALLY.report(7, {})
    assert (told["count"], told["survived"], told["parked"], told["rerun"], told["lost"]) == (3, 2, 0, 1, 0)
    assert told["steps_rerun"] == 2
    assert told["guest_gap_ms"] == {"p50": 40.0, "p95": 60.0, "p99": 60.0, "max": 60.0}
    assert told["mib_sent"] == 432
    assert told["connection"] == {
        "longest_gap_ms": 200.0, "longest_gap_stalled_ms": 1.0, "lost_messages": 0, "broken": 1,
    }  # fmt: skip
    assert told["faults"] == {"redis_flushed": 2}


def test_a_drill_goes_on_from_its_report() -> None:
    told = TALLY.report(7, {})
    again = Tally.of(json.loads(json.dumps(told)))
    assert again == TALLY
    assert again.report(7, {}) == told


@pytest.mark.parametrize(
    ("change", "is_clean"),
    [
        ({}, True),
        ({"double_runs": ["one ran twice"]}, False),
        ({"leftovers": ["a namespace"]}, False),
        ({"interruptions": [interruption(0, Outcome.LOST)]}, False),
    ],
)
def test_a_drill_is_clean_if_nothing_ran_twice_and_nothing_is_left_or_lost(change: Json, *, is_clean: bool) -> None:
    assert Tally(**change).is_clean is is_clean


def test_a_park_is_no_move() -> None:
    parked = job(80.0, 0, 30.0, 25_000.0)
    parked["migrations"][1]["target"] = None
    assert Tally(jobs=[parked]).report(7, {})["stopped_ms"]["max"] == 30.0


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_percentiles_are_values_that_were_seen_and_they_rise(values: list[float]) -> None:
    ranks = percentiles(values)
    assert set(ranks.values()) <= set(values)
    assert ranks["p50"] <= ranks["p95"] <= ranks["p99"] <= ranks["max"] == max(values)


def test_a_move_whose_daemon_died_with_its_figures_counts_for_nothing_there() -> None:
    moved = job(80.0, 0, 30.0)
    moved["migrations"].append(dict.fromkeys(moved["migrations"][0]) | {"source": "a", "target": "b"})
    told = Tally(jobs=[moved]).report(7, {})
    assert told["mib_sent"] == 216
    assert told["stopped_ms"]["max"] == 30.0


def test_nothing_measured_is_not_zero() -> None:
    assert set(percentiles([None]).values()) == {None}
