"""Runners that get no job: how many trip the breaker, and how it closes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from workers.domain.breaker import RETRY_INTERVAL, RETRY_INTERVAL_MAX, UNUSED_MAX, Breaker, in_vain, refused, served

NOW = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def after(*requested: datetime, now: datetime = NOW) -> Breaker:
    """Let these runners be in vain, one after the other."""
    breaker: Breaker | None = None
    for at in requested:
        breaker = in_vain(breaker, "kind", at, now, "why") or breaker
    assert breaker is not None
    return breaker


def test_so_many_in_a_row_trip_it_and_one_fewer_does_not() -> None:
    assert after(*[NOW] * (UNUSED_MAX - 1)).retry_at is None
    tripped = after(*[NOW] * UNUSED_MAX)
    assert tripped.retry_at == NOW + RETRY_INTERVAL
    assert (tripped.is_open(NOW), tripped.is_open(NOW + RETRY_INTERVAL)) == (True, False)
    assert tripped.sentence == "why; the next runner is tried at 2026-11-23 04:10 UTC"


def test_a_job_in_between_begins_the_count_anew() -> None:
    almost = after(*[NOW] * (UNUSED_MAX - 1))
    closed = served(almost, NOW)
    assert closed is not None
    again = in_vain(closed, "kind", NOW, NOW, "why")
    assert again is not None
    assert (again.unused, again.retry_at) == (1, None)
    assert served(closed, NOW) is None, "nothing is written where nothing was counted"


def test_those_that_were_made_before_it_tripped_say_nothing_new() -> None:
    tripped = after(*[NOW] * UNUSED_MAX)
    assert tripped.retry_at is not None
    assert in_vain(tripped, "kind", tripped.retry_at - MINUTE, NOW + 20 * MINUTE, "why") is None


@given(st.integers(1, 300))
def test_each_probe_in_vain_makes_the_next_one_later_but_never_by_more_than_the_limit(probes: int) -> None:
    breaker, interval = after(*[NOW] * UNUSED_MAX), RETRY_INTERVAL
    for _ in range(probes):
        assert breaker.retry_at is not None
        now = breaker.retry_at + 2 * MINUTE
        later = in_vain(breaker, "kind", breaker.retry_at, now, "why")
        assert later is not None
        assert later.retry_at is not None
        assert interval <= later.retry_at - now <= RETRY_INTERVAL_MAX
        assert later.number == breaker.number + 1
        breaker, interval = later, later.retry_at - now
    closed = served(breaker, NOW)
    assert closed is not None
    assert (closed.unused, closed.retry_at, closed.because) == (0, None, None)


def test_one_that_github_will_not_register_trips_it_at_once_and_the_next_one_later() -> None:
    first = refused(None, "kind", NOW, NOW, "no such label")
    assert first is not None
    assert (first.retry_at, first.number, first.because) == (NOW + RETRY_INTERVAL, 1, "no such label")
    assert refused(first, "kind", NOW, NOW + MINUTE, "no such label") is None, "it was made before that was known"
    assert first.retry_at is not None
    probe = refused(first, "kind", first.retry_at, first.retry_at, "no such label")
    assert probe is not None
    assert probe.retry_at == first.retry_at + 2 * RETRY_INTERVAL
