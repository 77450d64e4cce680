from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.planning.rows import NOW, SMALL, a_job, a_runner
from workers.domain.job import Job, JobState
from workers.domain.labels import Interrupt
from workers.domain.names import HostId, JobId, PackageDigest, RunnerId
from workers.domain.overlay import GuestNetwork
from workers.domain.pools import Terms
from workers.domain.runner import Level, Runner, RunnerState, Shape
from workers.planning.placement import BESIDE_MAX, counts_on, invited, made_for, may_be_given, runner_for

WAITING = a_job(1)


def test_a_placed_job_counts_on_its_runner_until_that_ends_or_has_another_job() -> None:
    job = a_job(1, JobState.PLACED, "r")
    for state in RunnerState:
        has_hope = state not in {RunnerState.STOPPING, RunnerState.GONE}
        assert counts_on(job, a_runner(state=state)) is has_hope, state
    assert not counts_on(job, a_runner(job=2))
    assert not counts_on(job, None)


def test_a_runner_is_made_for_the_job_that_waits() -> None:
    big, package = Shape(4, 8192, 65536), PackageDigest("sha256:01")
    terms = Terms("ci", package, "debian-12", big, GuestNetwork.NAT, Interrupt.MOVE)
    runner = runner_for(WAITING, terms, RunnerId("n"), 3, HostId("a"), NOW)
    assert (runner.job_id, runner.state) == (JobId(1), RunnerState.REQUESTED)
    assert (runner.package, runner.shape, runner.network) == (package, big, GuestNetwork.NAT)


def test_a_runner_is_registered_with_exactly_the_labels_of_its_job() -> None:
    """GitHub gives it no job that asks for others, and compares them without case."""
    labels = ("Self-Hosted", "spot-runner", "cpu=4")
    job = replace(WAITING, labels=labels)
    terms = Terms("ci", PackageDigest("sha256:01"), "debian-12", SMALL, GuestNetwork.NAT, Interrupt.MOVE)
    runner = runner_for(job, terms, RunnerId("n"), 3, HostId("a"), NOW)
    assert runner.labels == labels


OF_REPOSITORY = a_runner()
OF_ORGANIZATION = replace(OF_REPOSITORY, level=Level.ORGANIZATION)


@pytest.mark.parametrize(
    ("runner", "installation", "repository", "may"),
    [
        (OF_REPOSITORY, 1, "Octo/Hello", True),
        (OF_REPOSITORY, 1, "octo/other", False),
        (OF_REPOSITORY, 2, "octo/hello", True),  # another App of ours is installed there, too
        (OF_ORGANIZATION, 1, "octo/hello", True),
        (OF_ORGANIZATION, 1, "OCTO/other", True),
        (OF_ORGANIZATION, 1, "octo-org/hello", False),
        (OF_ORGANIZATION, 1, "hexa/hello", False),
        (OF_ORGANIZATION, 2, "octo/hello", True),
    ],
)
def test_a_runner_may_be_given_a_job_of_where_it_is_registered(
    runner: Runner, installation: int, repository: str, *, may: bool
) -> None:
    job = replace(WAITING, installation_id=installation, repository=repository)
    assert may_be_given(job, runner) is may


def test_a_runner_of_an_organization_becomes_that_of_the_repository_whose_job_it_has() -> None:
    job = replace(a_job(5), repository="octo/other")
    assert (made_for(OF_ORGANIZATION, job).job_id, made_for(OF_ORGANIZATION, job).repository) == (5, "octo/other")
    assert made_for(OF_REPOSITORY, replace(job, repository="Octo/Hello")).repository == "octo/hello"


def waiting(number: int, shape: Shape) -> Job:
    terms = Terms("ci", PackageDigest("sha256:01"), "debian-12", shape, GuestNetwork.NAT, Interrupt.MOVE)
    return replace(a_job(number), terms=terms)


def test_as_many_are_told_of_room_as_it_holds_and_a_few_more() -> None:
    small, large, huge = Shape(1, 1024, 4096), Shape(2, 2048, 4096), Shape(8, 16384, 4096)
    jobs = [
        waiting(1, huge),
        waiting(2, large),
        *(waiting(number, large) for number in range(3, 30)),
        waiting(30, small),
    ]
    told = [job.id for job in invited(Shape(3, 3072, 65536), jobs)]
    assert told == [2, *range(3, 3 + BESIDE_MAX), 30], "the first in the line, a few beside, and whoever still fits in"
    assert invited(Shape(0, 0, 0), jobs) == []
    assert invited(Shape(3, 3072, 65536), [a_job(1)]) == [], "it was not judged yet"
