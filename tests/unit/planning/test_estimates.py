from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.planning.rows import SMALL
from workers.domain.messages import Load
from workers.planning.estimates import FIXED_S, load_or_guess, move_time, sent_mib


def test_an_idle_guest_takes_what_its_memory_and_disk_take() -> None:
    """CLOUDS.md: 1 GiB takes 8.6 s at 1 Gbit/s."""
    assert move_time(Load(1024, 0, 0), 119.2).total_seconds() == pytest.approx(FIXED_S + 8.6, abs=0.05)
    assert move_time(Load(1024, 119.2, 0), 119.2).total_seconds() == pytest.approx(FIXED_S + 9.6, abs=0.05)


def test_what_is_written_meanwhile_is_sent_again() -> None:
    """A tenth of the line: 1 + 1/10 + 1/100 + ... of the memory."""
    assert sent_mib(Load(900, 0, 10), 100) == pytest.approx(1000)


def test_a_guest_that_outruns_its_line_is_pressed_to_a_quarter_as_it_was_measured() -> None:
    """FINDINGS.md: 160 MB/s over 50 MB/s ended at a quarter in 19 to 26 s."""
    assert 19 < move_time(Load(256, 0, 160), 50).total_seconds() < 33


def test_the_fastest_writer_stands_still_for_its_last_memory() -> None:
    assert move_time(Load(500, 0, 10_000), 100).total_seconds() == pytest.approx(FIXED_S + 5 + 5)


def test_what_was_not_measured_is_assumed_to_be_all_there_is() -> None:
    assert load_or_guess(None, SMALL).memory_mib == SMALL.memory_mib
    assert load_or_guess(Load(300, 5), SMALL) == Load(300, 5, load_or_guess(None, SMALL).dirty_mib_s)
    assert load_or_guess(Load(300, 5, 1.5), SMALL) == Load(300, 5, 1.5)


@given(st.floats(0, 1 << 20), st.floats(0, 1 << 20), st.floats(0, 1 << 16), st.floats(0.1, 1 << 16))
def test_every_move_takes_some_time_and_ends(memory: float, disk: float, dirty: float, share: float) -> None:
    takes_s = move_time(Load(memory, disk, dirty), share).total_seconds()
    assert FIXED_S <= takes_s <= FIXED_S + disk / share + memory / share * (1 + 1 / 0.15) + 1e-5
