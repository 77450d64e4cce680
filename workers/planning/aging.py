"""How old the runner program in a package is, and what follows from it.

    released ──14 days──▶ a warning ──28 days──▶ no runner is registered any more ──30 days──▶ GitHub gives it no job

GitHub gives jobs only to releases of actions/runner that are at most 30 days old: an older one registers, is given
nothing and is removed, so a deployment that went on would restore microVMs in vain.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from workers.domain.names import PackageDigest
from workers.domain.pools import Package, Policy

WARNING_AGE: Final = timedelta(days=14)
# Two days before GitHub's own limit: a job may wait, and which hour of which day counts is not said.
REGISTRATION_AGE_MAX: Final = timedelta(days=28)
GITHUBS_AGE_MAX: Final = timedelta(days=30)
REMEDY: Final = "run `spot-runner package renew` with its recipe"


def age_of(package: Package, now: datetime) -> timedelta | None:
    """Return how old its runner program is, in whole days; None if nobody has said when it was released."""
    return None if package.runner_released is None else now.date() - package.runner_released


def ageing(package: Package, now: datetime) -> str | None:
    """Say that a package is to be renewed, in words for the administrator; None if it is young enough."""
    age, released = age_of(package, now), package.runner_released
    if age is None or released is None or not WARNING_AGE <= age < REGISTRATION_AGE_MAX:
        return None
    last = released + REGISTRATION_AGE_MAX - timedelta(days=1)
    return (
        f"image {package.image}: its runner program was released on {released}, {age.days} days ago, and is registered "
        f"up to {last} only; {REMEDY}"
    )


def too_old(package: Package, now: datetime) -> str | None:
    """Say why no runner of this package is registered, in words for the user; None if they may be."""
    age = age_of(package, now)
    if age is None or age < REGISTRATION_AGE_MAX:
        return None
    # No number that changes from day to day: whoever waits is told once.
    return (
        f"the runner program in image {package.image} was released on {package.runner_released}, and GitHub gives no "
        f"job to one older than {GITHUBS_AGE_MAX.days} days, so none is registered once it is "
        f"{REGISTRATION_AGE_MAX.days} days old; the administrator is to {REMEDY}"
    )


def refused_packages(policy: Policy, now: datetime) -> dict[PackageDigest, str]:
    """Return the packages of which no runner may be registered, and why."""
    told = {package.digest: too_old(package, now) for package in policy.packages}
    return {digest: because for digest, because in told.items() if because is not None}
