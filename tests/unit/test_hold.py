"""How long a job may keep its host from moving it: whatever its guest says, its budget ends it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.domain.hold import HOLD_LEAST, Hold, HoldWish, heard, is_held
from workers.domain.names import RunnerId

NOW = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)
R = RunnerId("spot-runner-1")
BUDGET = timedelta(minutes=10)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def wishes(*said: tuple[float, int, float], budget: timedelta = BUDGET) -> Hold:
    """Hear wishes, each at its second, with its number and its seconds."""
    hold = None
    for at, number, seconds in said:
        hold = heard(hold, R, HoldWish(number, seconds), budget, after(at))
    assert hold is not None
    return hold


def test_a_wish_is_granted_for_as_long_as_it_asks() -> None:
    hold = wishes((0, 1, 120.0))
    assert is_held(hold, after(119.9))
    assert not is_held(hold, after(120))
    assert not is_held(None, NOW)


def test_a_wish_that_is_said_again_and_again_is_one_wish() -> None:
    """The host reports it every second, and its end does not move."""
    assert wishes(*((at, 1, 120.0) for at in range(100))) == wishes((0, 1, 120.0))


def test_more_than_the_budget_is_cut_to_it() -> None:
    assert wishes((0, 1, 1e6)).ends_at == NOW + BUDGET
    assert not is_held(wishes((0, 1, 60.0), budget=timedelta()), NOW)


def test_a_second_hold_gets_what_the_first_has_left() -> None:
    assert wishes((0, 1, 200.0), (100, 2, 1e6)).ends_at == NOW + BUDGET
    assert wishes((0, 1, 200.0), (1000, 2, 1e6)).ends_at == after(1000 + 400)


def test_what_is_let_go_is_not_spent() -> None:
    hold = wishes((0, 1, 200.0), (50, 2, 0.0))
    assert not is_held(hold, after(50))
    assert heard(hold, R, HoldWish(3, 1e6), BUDGET, after(500)).ends_at == after(500 + 550)


def test_a_hold_that_is_let_go_at_once_costs_something_nevertheless() -> None:
    rounds = [(at, at + 1, float(at % 2 == 0)) for at in range(200)]
    hold = wishes(*rounds)
    assert not is_held(heard(hold, R, HoldWish(999, 60.0), BUDGET, after(200)), after(200))
    assert BUDGET / HOLD_LEAST == 60


@pytest.mark.parametrize("seconds", [0.0, -5.0])
def test_no_seconds_are_no_hold(seconds: float) -> None:
    assert not is_held(wishes((0, 1, seconds)), NOW)


@given(
    st.lists(st.tuples(st.floats(0, 100), st.integers(1, 4), st.floats(-10, 2000)), max_size=60),
    st.integers(0, 600),
)
def test_no_sequence_of_wishes_holds_a_runner_for_longer_than_its_budget(
    steps: list[tuple[float, int, float]], budget_s: int
) -> None:
    hold, now, held = None, NOW, timedelta()
    for wait, number, seconds in [*steps, (10_000.0, 0, 0.0)]:
        later = now + timedelta(seconds=wait)
        if hold is not None:
            held += max(min(later, hold.ends_at) - now, timedelta())
        now = later
        hold = heard(hold, R, HoldWish(number, seconds), timedelta(seconds=budget_s), now)
    assert held <= timedelta(seconds=budget_s)
