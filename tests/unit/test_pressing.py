from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.host.pressing import CAPS, DOWNTIME_MAX_MS, DOWNTIME_MS, Copying, Pressure, next_pressure

CALM = Copying(round=2, remaining_mib=20, dirty_mib_s=10, line_mib_s=100, left_s=60)
BUSY = replace(CALM, dirty_mib_s=300, remaining_mib=200)


def test_a_guest_that_arrives_by_itself_is_left_alone() -> None:
    assert next_pressure(Pressure(), CALM) == Pressure()
    assert next_pressure(Pressure(), replace(CALM, dirty_mib_s=80)) == Pressure()


def test_nothing_is_known_before_the_first_round_is_over() -> None:
    assert next_pressure(Pressure(), replace(BUSY, round=1)) == Pressure()
    assert next_pressure(Pressure(), replace(BUSY, line_mib_s=0)) == Pressure()


@pytest.mark.parametrize(("dirty", "cap"), [(100, 0.5), (300, 0.25), (600, 0.1), (2000, 0.04), (9000, 0.04)])
def test_it_is_capped_as_far_as_its_writing_asks_for_and_no_further(dirty: float, cap: float) -> None:
    assert next_pressure(Pressure(), replace(BUSY, dirty_mib_s=dirty)) == Pressure(cap, DOWNTIME_MS, 2)


def test_a_cap_is_judged_in_the_round_after_it() -> None:
    capped = Pressure(0.5, round=2)
    assert next_pressure(capped, BUSY) == capped
    written_though_capped = replace(BUSY, round=3, dirty_mib_s=180)
    assert next_pressure(capped, written_though_capped).cap == 0.1, "a quarter is half of what it has"


def test_a_guest_that_converges_too_late_is_capped_too() -> None:
    slow = replace(CALM, dirty_mib_s=80, remaining_mib=200)  # 10 s at this pace
    assert next_pressure(Pressure(), replace(slow, left_s=20)) == Pressure()
    assert next_pressure(Pressure(), replace(slow, left_s=12)).cap == 0.5


def test_only_where_the_lowest_cap_does_not_help_the_pause_becomes_longer() -> None:
    lowest = Pressure(min(CAPS), round=2)
    assert next_pressure(lowest, replace(BUSY, round=3, remaining_mib=80)) == Pressure(0.04, 1000, 3)
    assert next_pressure(lowest, replace(BUSY, round=3, remaining_mib=8000)).downtime_ms == DOWNTIME_MAX_MS


def test_with_little_left_everything_is_done_at_once() -> None:
    assert next_pressure(Pressure(), replace(BUSY, left_s=7)) == Pressure(0.04, 2500, 2)
    assert next_pressure(Pressure(0.5, round=2), replace(BUSY, left_s=7)) == Pressure(0.04, 2500, 2)


@given(
    st.builds(Pressure, st.sampled_from([1.0, *CAPS]), st.integers(DOWNTIME_MS, DOWNTIME_MAX_MS), st.integers(0, 5)),
    st.builds(
        Copying, st.integers(0, 6), st.floats(0, 4096), st.floats(0, 4096), st.floats(0, 1000), st.floats(-5, 200)
    ),
)
def test_pressure_never_falls_and_stays_within_its_bounds(before: Pressure, seen: Copying) -> None:
    after = next_pressure(before, seen)
    assert min(CAPS) <= after.cap <= before.cap
    assert before.downtime_ms <= after.downtime_ms <= DOWNTIME_MAX_MS
