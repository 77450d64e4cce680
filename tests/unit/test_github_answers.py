"""What the headers of an answer say of our pace."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.domain.pace import SECONDARY_WAIT_S
from workers.github.answers import WAIT_MAX_S, heard_of

NOW = 1_795_000_000.0
NAMES = ("retry-after", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")
ODD = st.one_of(st.text(max_size=20), st.floats().map(str), st.integers().map(str))


def retry_at(said: str) -> float | None:
    return heard_of(429, {"retry-after": said}, "", NOW).retry_at


def test_a_wait_is_told_in_seconds_or_by_a_date() -> None:
    assert retry_at("30") == NOW + 30
    assert retry_at(formatdate(NOW + 120, usegmt=True)) == NOW + 120
    assert retry_at(formatdate(NOW - 120, usegmt=True)) == NOW, "it is over"


@pytest.mark.parametrize("said", ["inf", "nan", "1e300", "-5", "soon", str(WAIT_MAX_S + 1), formatdate(NOW + 1e9)])
def test_a_wait_that_nobody_would_ask_for_is_the_usual_one(said: str) -> None:
    assert retry_at(said) == NOW + SECONDARY_WAIT_S


@given(st.sampled_from([200, 304, 403, 429, 503]), st.dictionaries(st.sampled_from(NAMES), ODD))
def test_whatever_headers_say_the_wait_has_an_end(status: int, headers: dict[str, str]) -> None:
    heard = heard_of(status, headers, "", NOW)
    for moment in (heard.retry_at, heard.reset_at):
        assert moment is None or moment <= NOW + WAIT_MAX_S
    for number in (heard.limit, heard.remaining):
        assert number is None or number >= 0
