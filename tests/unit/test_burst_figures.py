"""What is made of the moments at which jobs of two organizations were registered."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.bench.soak.burst import LEAD_MAX, Figures, Registered, lead, rate_after

WELL = Figures(500, 500, 130.0, 230.8, 274.3, 180.0, {}, {}, 2, 0, 0, 0)


def served(owners: str) -> list[Registered]:
    return [Registered(float(number), owner) for number, owner in enumerate(owners)]


@pytest.mark.parametrize(
    ("owners", "at_once", "ahead"),
    [
        ("abababab", 0, 1),
        ("aaaabbbb", 0, 3),  # the fourth was its last
        ("aaaabbbb", 4, 0),
        ("aabbaabb", 0, 2),
        ("aaab", 0, 2),
        ("", 0, 0),
    ],
)
def test_who_is_served_out_of_turn_is_seen_while_both_have_some_to_come(owners: str, at_once: int, ahead: int) -> None:
    assert lead(served(owners), at_once) == ahead


def test_a_rate_is_counted_from_the_moment_on() -> None:
    assert rate_after([0.0, 1.0, 70.0, 90.0], 60.0) == 2 / 30 * 60
    assert rate_after([0.0, 1.0], 60.0) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"per_minute": 161.9},
        {"registered": 499},
        {"refused": {"secondary": 1}},
        {"lead_max": LEAD_MAX + 1},
        {"unfinished": 1},
        {"runners_left": 1},
        {"violations": 1},
    ],
)
def test_each_figure_counts(wrong: dict[str, object]) -> None:
    assert WELL.is_right
    assert not replace(WELL, **wrong).is_right  # type: ignore[arg-type]  # mypy sees one type for all
