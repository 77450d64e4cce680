from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.planning.rows import MINUTE, NOW, SMALL, a_host, a_job, a_runner
from workers.domain.host import HostState
from workers.domain.job import Job, JobState
from workers.domain.labels import Interrupt
from workers.domain.names import HostId, JobId, PackageDigest, RunnerId
from workers.domain.overlay import GuestNetwork
from workers.domain.pools import Terms
from workers.domain.runner import Runner, RunnerState, Shape
from workers.planning.fleet import Fleet
from workers.planning.placement import counts_on, runner_for, spare_runner

WAITING = a_job(1)


def spare(runner: Runner, *demands: Job, deadline: bool = False) -> RunnerId | None:
    host = a_host(deadline_at=NOW + MINUTE if deadline else None)
    fleet = Fleet((host,), (runner,))
    found = spare_runner(WAITING, fleet, {job.id: job for job in (WAITING, *demands)})
    return found.id if found else None


def test_a_runner_whose_job_runs_elsewhere_is_spare() -> None:
    runner = a_runner("left", state=RunnerState.IDLE, job=2)
    assert spare(runner, a_job(2, JobState.RUNNING, "other")) == "left"


def test_a_runner_whose_job_is_over_is_spare() -> None:
    assert spare(a_runner("left", state=RunnerState.IDLE, job=2)) == "left"


def test_a_runner_that_another_job_counts_on_is_not_spare() -> None:
    runner = a_runner("theirs", state=RunnerState.IDLE, job=2)
    assert spare(runner, a_job(2, JobState.PLACED, "theirs")) is None
    assert spare(runner, a_job(2, JobState.QUEUED)) is None


def test_a_runner_that_was_rebound_before_its_job_was_placed_is_found_again() -> None:
    assert spare(a_runner("mine", state=RunnerState.BOOTING, job=1)) == "mine"


@pytest.mark.parametrize("state", [RunnerState.BUSY, RunnerState.RETIRING, RunnerState.STOPPING, RunnerState.GONE])
def test_a_runner_that_takes_no_job_any_more_is_not_spare(state: RunnerState) -> None:
    assert spare(a_runner(state=state, job=2)) is None


def test_a_runner_on_a_host_that_leaves_is_not_spare() -> None:
    assert spare(a_runner(state=RunnerState.IDLE, job=2), deadline=True) is None
    lost = Fleet((a_host(state=HostState.LOST),), (a_runner(state=RunnerState.IDLE, job=2),))
    assert spare_runner(WAITING, lost, {}) is None


def test_a_runner_of_other_labels_or_another_repository_is_not_spare() -> None:
    runner = a_runner(state=RunnerState.IDLE, job=2)
    assert spare(replace(runner, labels=("linux",))) is None
    assert spare(replace(runner, labels=("Linux", "Spot-Runner"))) == "r"
    assert spare(replace(runner, repository="octo/other")) is None
    assert spare(replace(runner, installation_id=2)) is None


def test_the_runner_that_is_furthest_comes_first() -> None:
    states = [RunnerState.REQUESTED, RunnerState.IDLE, RunnerState.BOOTING]
    runners = tuple(a_runner(state.value, state=state, job=2) for state in states)
    found = spare_runner(WAITING, Fleet((a_host(),), runners), {})
    assert found is not None
    assert found.state is RunnerState.IDLE


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
