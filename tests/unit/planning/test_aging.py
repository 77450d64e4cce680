"""What follows from the age of the runner program in a package."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.planning.rows import SMALL
from tests.unit.planning.test_limits import waiting
from workers.domain.names import PackageDigest
from workers.domain.pools import Package, Policy, Pool
from workers.planning.aging import GITHUBS_AGE_MAX, REGISTRATION_AGE_MAX, ageing, too_old
from workers.planning.demand import Balance
from workers.planning.limits import within_limits

RELEASED = date(2026, 10, 20)
DIGEST = PackageDigest("sha256:00")


def _package(released: date | None = RELEASED, digest: PackageDigest = DIGEST) -> Package:
    return Package("github-runner", digest, SMALL, runner_released=released)


def _after(days: int, hour: int = 12) -> datetime:
    return datetime.combine(RELEASED, time(hour), UTC) + timedelta(days=days)


@pytest.mark.parametrize(
    ("days", "warns", "stops"),
    [
        (0, False, False),
        (13, False, False),
        (14, True, False),
        (27, True, False),
        (28, False, True),
        (400, False, True),
    ],
)
def test_it_warns_at_14_days_and_stops_at_28(days: int, *, warns: bool, stops: bool) -> None:
    package, now = _package(), _after(days)

    assert (ageing(package, now) is not None, too_old(package, now) is not None) == (warns, stops)


def test_both_sentences_name_the_image_the_day_and_the_remedy() -> None:
    assert ageing(_package(), _after(20)) == (
        "image github-runner: its runner program was released on 2026-10-20, 20 days ago, and is registered up to "
        "2026-11-16 only; run `spot-runner package renew` with its recipe"
    )
    assert "GitHub gives no job to one older than 30 days" in (too_old(_package(), _after(28)) or "")
    assert "`spot-runner package renew`" in (too_old(_package(), _after(28)) or "")


@given(st.integers(0, 200), st.integers(0, 23))
def test_nothing_is_registered_that_github_would_leave_without_a_job(days: int, hour: int) -> None:
    """Whatever the hour, and whether GitHub counts the first day or not; and who waits is told the same each day."""
    package, now = _package(), _after(days, hour)

    if now - datetime.combine(RELEASED, time(), UTC) >= GITHUBS_AGE_MAX - timedelta(days=1):
        assert too_old(package, now) == too_old(package, _after(28)) is not None
    if days < REGISTRATION_AGE_MAX.days:
        assert too_old(package, now) is None


def test_a_package_of_which_nobody_knows_does_not_age() -> None:
    assert (ageing(_package(None), _after(400)), too_old(_package(None), _after(400))) == (None, None)


def test_jobs_of_an_old_package_wait_with_the_reason_and_others_do_not() -> None:
    young = _package(RELEASED + timedelta(days=20), PackageDigest("sha256:11"))
    job, now = waiting(1), _after(30)
    balance = Balance(missing=(job,))

    old = within_limits(balance, (), Policy((Pool("ci"),), (_package(), young)), now)
    other = within_limits(balance, (), Policy((Pool("ci"),), (_package(digest=PackageDigest("sha256:22")), young)), now)

    assert old.missing == ()
    assert old.deferred == {job.id: too_old(_package(), now)}
    assert (other.missing, other.deferred) == ((job,), {})
