"""What every implementation of the GitHub port says where our App was suspended or removed: the two are not alike."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.contract.github.sides import Side
from workers.domain.errors import NotThere, Refused
from workers.domain.listed import Scope
from workers.domain.names import JobId

LABELS = ("self-hosted", "spot-runner")
JOB, RUN = JobId(4), 4
# What is asked about one thing, and what is answered if GitHub knows of none.
ASKED: dict[str, tuple[Callable[[Side], object], object]] = {
    "job": (lambda side: side.port.job(side.installation, side.repository, JOB), None),
    "run": (lambda side: side.port.run(side.installation, side.repository, RUN), None),
    "jobs_of": (lambda side: side.port.jobs_of(side.installation, side.repository, RUN), []),
    "holds_deployment": (lambda side: side.port.holds_deployment(side.installation, side.repository, JOB), None),
    "deregister": (lambda side: side.port.deregister(side.installation, side.repository, 4), None),
    "unfinished_runs": (lambda side: side.lists.unfinished_runs(scope(side)), []),
    "all_jobs": (lambda side: side.lists.all_jobs(scope(side), RUN), []),
}
# What needs something that is there.
WANTED: dict[str, Callable[[Side], object]] = {
    "register": lambda side: side.register("spot-runner-a", LABELS),
    "number_of": lambda side: side.port.number_of(side.installation, side.repository, "spot-runner-a"),
    "group_of": lambda side: side.port.group_of(side.installation, side.repository, "ours"),
    "rerun_failed": lambda side: side.port.rerun_failed(side.installation, side.repository, RUN),
    "rerun_job": lambda side: side.port.rerun_job(side.installation, side.repository, JOB),
}


def scope(side: Side) -> Scope:
    return Scope(side.installation, side.repository)


def is_suspended(side: Side) -> bool | None:
    """Return what the list says; None if the installation is not in it."""
    (app,) = side.lists.apps
    return next((one.is_suspended for one in side.lists.installations(app) if one.id == side.installation), None)


def test_a_suspended_installation_is_listed_as_one_and_a_removed_one_is_not(side: Side) -> None:
    assert is_suspended(side) is False
    side.suspend()
    assert is_suspended(side) is True
    side.uninstall()
    assert is_suspended(side) is None


@pytest.mark.parametrize("verb", ASKED)
def test_where_our_app_was_removed_github_knows_of_nothing(side: Side, verb: str) -> None:
    side.queue_job(LABELS)
    side.uninstall()
    ask, nothing = ASKED[verb]
    assert ask(side) == nothing


@pytest.mark.parametrize("verb", WANTED)
def test_where_our_app_was_removed_nothing_is_to_be_had(side: Side, verb: str) -> None:
    side.queue_job(LABELS)
    side.uninstall()
    with pytest.raises(Refused):
        WANTED[verb](side)


def test_where_our_app_was_removed_registrations_are_not_said_to_be_gone(side: Side) -> None:
    side.uninstall()
    with pytest.raises(NotThere):
        side.lists.registrations(scope(side))


@pytest.mark.parametrize("verb", [*ASKED, *WANTED])
def test_where_our_app_is_suspended_everything_is_refused(side: Side, verb: str) -> None:
    side.queue_job(LABELS)
    side.suspend()
    with pytest.raises(Refused):
        (WANTED[verb] if verb in WANTED else ASKED[verb][0])(side)
