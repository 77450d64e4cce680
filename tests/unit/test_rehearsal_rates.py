"""The simulated GitHub's limits are GitHub's."""

from __future__ import annotations

from datetime import timedelta

from tests.fakes.clock import FakeClock
from workers.rehearsal.github.rates import NO_RATES, RateLimits, Rates

ONE, OTHER = (1, 11), (1, 12)
SECOND = timedelta(seconds=1)


def admitted(limits: RateLimits, verb: str, times: int, scope: str | None = None) -> int:
    return sum(limits.admit(ONE, verb, scope) is None for _ in range(times))


def test_an_app_registers_180_runners_in_a_minute_over_all_its_installations() -> None:
    clock = FakeClock()
    limits = RateLimits(clock, Rates())
    assert admitted(limits, "POST", 200) == 180
    refused = limits.admit(OTHER, "GET")
    assert refused is not None
    assert "secondary rate limit" in refused.message
    assert refused.headers["Retry-After"] == "60"
    assert limits.admit((2, 21), "POST") is None
    clock.move(60 * SECOND)
    assert admitted(limits, "GET", 1000) == 900
    assert limits.refused["secondary"] == 20 + 1 + 100
    assert limits.admit(OTHER, "GET", route="/rate_limit") is not None, "and what is refused is not counted as a call"
    assert limits.admitted == {"POST ": 181, "GET ": 900}


def test_an_installation_has_so_many_requests_in_an_hour() -> None:
    clock = FakeClock()
    limits = RateLimits(clock, Rates(requests_per_hour=10))
    assert limits.headers(ONE)["X-RateLimit-Remaining"] == "10"
    assert admitted(limits, "GET", 12) == 10
    refused = limits.admit(ONE, "GET")
    assert refused is not None
    assert "API rate limit exceeded for installation ID 11" in refused.message
    assert refused.headers["X-RateLimit-Remaining"] == "0"
    assert limits.admit(OTHER, "GET") is None
    clock.move(timedelta(hours=1))
    assert admitted(limits, "GET", 1) == 1


def test_what_has_not_changed_costs_nothing_of_the_hour() -> None:
    limits = RateLimits(FakeClock(), Rates(requests_per_hour=10))
    for _ in range(50):
        assert limits.admit(ONE, "GET") is None
        assert limits.headers(ONE, is_free=True)["X-RateLimit-Remaining"] == "10"


def test_a_repository_takes_so_many_runners_in_five_minutes() -> None:
    clock = FakeClock()
    limits = RateLimits(clock, Rates(points_per_minute=0, requests_per_hour=0))
    assert admitted(limits, "POST", 1600, "/repos/octo/one") == 1500
    assert admitted(limits, "POST", 10, "/repos/octo/two") == 10
    clock.move(timedelta(minutes=5))
    assert admitted(limits, "POST", 1, "/repos/octo/one") == 1


def test_nothing_is_refused_where_there_are_no_limits() -> None:
    limits = RateLimits(FakeClock(), NO_RATES)
    assert admitted(limits, "POST", 3000, "/repos/octo/one") == 3000
    assert limits.headers(ONE) == {}
