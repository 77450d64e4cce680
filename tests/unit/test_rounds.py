from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from workers.app import CLOUD, CONTROL, EVACUATION
from workers.bootstrap.looks import Row
from workers.bootstrap.rounds import Rounds, Upkeep
from workers.domain.errors import LeaseLost, Refused, Throttled, Unreachable

PATIENCE_S = 30.0


@dataclass
class Rows:
    """Rows that are due, and who was looked at; a look may fail or wait until it is let go."""

    due: list[Row] = field(default_factory=list)
    failing: dict[str, Exception] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    looked_at: list[str] = field(default_factory=list)
    let_go: threading.Event = field(default_factory=threading.Event)
    refreshed: int = 0

    def look_at(self, _kind: str, one: str) -> None:
        self.looked_at.append(one)
        if one in self.held:
            assert self.let_go.wait(PATIENCE_S)
        if one in self.failing:
            raise self.failing[one]

    def name_due(self) -> Iterator[Row]:
        if error := self.failing.get("due"):
            raise error
        yield from self.due

    def refresh(self) -> None:
        self.refreshed += 1


@pytest.fixture
def rows() -> Rows:
    return Rows([("job", "1"), ("host", "h"), ("runner", "r")])


@pytest.fixture
def rounds(rows: Rows) -> Iterator[Rounds]:
    made = Rounds(rows.look_at, dict.fromkeys((EVACUATION, CONTROL, CLOUD), rows.name_due), {CLOUD: rows.refresh})
    yield made
    rows.let_go.set()
    made.close()


def seen(rows: Rows, *expected: str) -> bool:
    """Wait until these were looked at and no others."""
    end = time.monotonic() + PATIENCE_S
    while sorted(rows.looked_at) != sorted(expected):
        assert time.monotonic() < end, rows.looked_at
        threading.Event().wait(0.02)
    return True


def test_a_row_that_is_told_when_to_come_is_looked_at_then(rounds: Rounds, rows: Rows) -> None:
    rows.failing = {"1": Throttled("x", at=datetime.now(UTC) + timedelta(seconds=0.5))}
    rounds.look_at("job", ["1"])
    assert seen(rows, "1")
    rows.failing = {}
    assert seen(rows, "1", "1")


def test_who_tells_of_a_row_does_not_wait_for_the_look(rounds: Rounds, rows: Rows) -> None:
    rows.held = {"1"}
    rounds.look_at("job", ["1"])
    assert seen(rows, "1")
    for _ in range(100):
        rounds.look_at("job", ["1"])
    rows.let_go.set()
    assert seen(rows, "1", "1")


@pytest.mark.parametrize("error", [LeaseLost("x"), Unreachable("x"), Refused("x"), ZeroDivisionError("a bug")])
def test_a_row_that_fails_takes_no_turn_from_the_others(rounds: Rounds, rows: Rows, error: Exception) -> None:
    rows.failing = {"1": error, "h": error}
    rounds.look_at("job", ["1", "2"])
    assert seen(rows, "1", "2")
    rounds.sweep(CONTROL)  # it takes a look that is not over yet for its own
    assert set(rows.looked_at) == {"1", "2", "h", "r"}


@pytest.mark.parametrize("error", [Unreachable("no store"), ZeroDivisionError("a bug")])
def test_a_round_that_cannot_begin_raises_nothing(rounds: Rounds, rows: Rows, error: Exception) -> None:
    rows.failing = {"due": error}
    rounds.sweep(CONTROL)
    rounds.watch()
    assert rows.looked_at == []


def test_a_row_that_is_being_looked_at_is_left_alone_and_the_others_are_not(rounds: Rounds, rows: Rows) -> None:
    rows.held = {"h"}
    rounds.watch()
    rounds.watch()
    rows.due.append(("job", "late"))
    rounds.watch()
    rows.let_go.set()
    rounds.sweep(EVACUATION)
    assert rows.looked_at.count("h") in {1, 2}  # the sweep waits for the look that it finds or begins one
    assert rows.looked_at.count("late") >= 1


def test_only_the_cloud_s_sweep_renews_what_follows_from_the_rows(rounds: Rounds, rows: Rows) -> None:
    for queue in (EVACUATION, CONTROL, CLOUD):
        rounds.sweep(queue)
    rounds.watch()
    assert rows.refreshed == 1


@pytest.fixture
def sweeps(rows: Rows) -> list[str]:
    rows.due = [("job", "swept")]
    return rows.looked_at


@pytest.mark.parametrize("queue", [CONTROL, CLOUD])
def test_a_process_sweeps_at_its_start_and_every_15_s_while_it_hears_no_beat(
    rounds: Rounds, sweeps: list[str], queue: str
) -> None:
    upkeep = Upkeep(rounds, queue)
    seen = []
    for second in range(1000, 1032):
        upkeep.tick(float(second))
        seen.append(len(sweeps))
    assert [seen.index(count) for count in (1, 2, 3)] == [0, 15, 30]


def test_a_process_that_hears_the_beat_leaves_the_sweeps_to_it_for_30_s(rounds: Rounds, sweeps: list[str]) -> None:
    upkeep = Upkeep(rounds, CONTROL)
    upkeep.tick(1000.0)
    upkeep.hear_beat(1001.0)
    seen = []
    for second in range(1002, 1050):
        upkeep.tick(float(second))
        seen.append(len(sweeps))
    assert seen[0] == 2  # its own at the start, and the beat's
    assert 1002 + seen.index(3) == 1032
    assert 1002 + seen.index(4) == 1047


def test_the_evacuation_watches_every_second_whether_it_hears_the_beat_or_not(
    rounds: Rounds, rows: Rows, sweeps: list[str]
) -> None:
    upkeep = Upkeep(rounds, EVACUATION)
    for second in range(1000, 1005):
        upkeep.hear_beat(float(second))
        before = len(sweeps)
        upkeep.tick(float(second))
        rows.due = [("job", f"look {second}")]
        rounds.sweep(EVACUATION)  # waits for what the tick has begun
        assert len(sweeps) > before + 1
