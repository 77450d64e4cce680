"""What every implementation of the GitHub port promises."""

from __future__ import annotations

import pytest

from tests.contract.github.sides import Side
from workers.domain.errors import Refused, RunnerBusy, TryLater, Unreachable
from workers.domain.job import RunSeen
from workers.domain.listed import Scope
from workers.domain.names import JobId

LABELS = ("self-hosted", "spot-runner")


def test_a_registered_runner_gets_the_job_whose_labels_it_has(side: Side) -> None:
    job_id, _ = side.queue_job(LABELS)
    registration = side.register("spot-runner-a", LABELS)
    assert side.take_job(registration) == job_id

    seen = side.port.job(side.installation, side.repository, job_id)
    assert seen is not None
    assert (seen.status, seen.conclusion, seen.run_attempt) == ("in_progress", None, 1)
    assert (seen.runner_id, seen.runner_name) == (registration.github_id, "spot-runner-a")


def test_a_queued_job_is_nobodys(side: Side) -> None:
    job_id, _ = side.queue_job(LABELS)
    seen = side.port.job(side.installation, side.repository, job_id)
    assert seen is not None
    assert (seen.status, seen.runner_id, seen.runner_name) == ("queued", None, None)


def test_a_job_that_its_environment_holds_back_waits_and_is_nobodys_until_it_is_approved(side: Side) -> None:
    held, run_id = side.queue_deploying(LABELS)
    side.hold_back(held)
    assert statuses(side, held, run_id) == {"waiting"}
    registration = side.register("spot-runner-a", LABELS)
    other, _ = side.queue_job(LABELS)
    assert side.take_job(registration) == other, "the older one waits"
    side.approve(held)
    assert statuses(side, held, run_id) == {"queued"}
    second = side.register("spot-runner-b", LABELS)
    assert side.take_job(second) == held
    side.end_job(held, second, "success")
    assert statuses(side, held, run_id) == {"completed"}


def statuses(side: Side, job_id: JobId, run_id: int) -> set[str]:
    """Return what the API says of a job that is alone in its run, wherever it says so."""
    seen = side.port.job(side.installation, side.repository, job_id)
    assert seen is not None
    (of_run,) = side.port.jobs_of(side.installation, side.repository, run_id)
    (listed,) = side.lists.all_jobs(Scope(side.installation, side.repository), run_id)
    return {seen.status, of_run.status, listed.status}


def test_a_completed_job_says_how_and_where(side: Side) -> None:
    job_id, _ = side.queue_job(LABELS)
    registration = side.register("spot-runner-a", LABELS)
    side.take_job(registration)
    side.end_job(job_id, registration, "success")
    seen = side.port.job(side.installation, side.repository, job_id)
    assert seen is not None
    assert (seen.status, seen.conclusion, seen.runner_name) == ("completed", "success", "spot-runner-a")


def test_a_job_that_never_was_is_none(side: Side) -> None:
    assert side.port.job(side.installation, side.repository, JobId(4)) is None


@pytest.mark.parametrize("is_private", [False, True])
@pytest.mark.parametrize("of_fork", [False, True])
def test_a_run_says_whether_it_comes_from_a_fork_and_who_can_see_it(
    side: Side, *, of_fork: bool, is_private: bool
) -> None:
    _, run_id = side.queue_job(LABELS, of_fork=of_fork, is_private=is_private)
    seen = side.port.run(side.installation, side.repository, run_id)
    assert seen == RunSeen(is_public=not is_private, is_fork=of_fork)


def test_a_run_that_never_was_is_none(side: Side) -> None:
    assert side.port.run(side.installation, side.repository, 4) is None


def test_labels_are_compared_without_case(side: Side) -> None:
    job_id, _ = side.queue_job(("Self-Hosted", "SPOT-runner"))
    assert side.take_job(side.register("spot-runner-a", LABELS)) == job_id


def test_a_configuration_is_not_shown_by_accident(side: Side) -> None:
    registration = side.register("spot-runner-a", LABELS)
    assert registration.jit_config
    assert registration.jit_config not in repr(registration)


def test_a_taken_name_is_freed_and_taken_again(side: Side) -> None:
    """As after an answer that was lost: the leftover is of no use without its configuration."""
    first = side.register("spot-runner-a", LABELS)
    second = side.register("spot-runner-a", LABELS)
    assert first.github_id != second.github_id
    job_id, _ = side.queue_job(LABELS)
    assert side.take_job(second) == job_id


def test_a_taken_name_whose_runner_is_busy_is_left_alone(side: Side) -> None:
    job_id, _ = side.queue_job(LABELS)
    registration = side.register("spot-runner-a", LABELS)
    side.take_job(registration)
    with pytest.raises(RunnerBusy):
        side.register("spot-runner-a", LABELS)
    seen = side.port.job(side.installation, side.repository, job_id)
    assert seen is not None
    assert seen.status == "in_progress"


def test_deregistering_twice_is_a_success(side: Side) -> None:
    registration = side.register("spot-runner-a", LABELS)
    for _ in range(2):
        side.port.deregister(side.installation, side.repository, registration.github_id)
    assert side.register("spot-runner-a", LABELS).github_id != registration.github_id


def test_a_busy_runner_cannot_be_deregistered(side: Side) -> None:
    job_id, _ = side.queue_job(LABELS)
    registration = side.register("spot-runner-a", LABELS)
    side.take_job(registration)
    with pytest.raises(RunnerBusy):
        side.port.deregister(side.installation, side.repository, registration.github_id)
    side.end_job(job_id, registration, "success")
    side.port.deregister(side.installation, side.repository, registration.github_id)


def test_a_rerun_is_refused_until_the_attempt_has_ended_and_then_makes_other_jobs(side: Side) -> None:
    job_id, run_id = side.queue_job(LABELS)
    registration = side.register("spot-runner-a", LABELS)
    side.take_job(registration)
    with pytest.raises(TryLater):
        side.port.rerun_failed(side.installation, side.repository, run_id)
    side.end_job(job_id, registration, "failure")
    side.port.rerun_failed(side.installation, side.repository, run_id)

    second = side.register("spot-runner-b", LABELS)
    again = side.take_job(second)
    assert again != job_id
    seen = side.port.job(side.installation, side.repository, again)
    assert seen is not None
    assert seen.run_attempt == 2
    first = side.port.job(side.installation, side.repository, job_id)
    assert first is not None
    assert (first.conclusion, first.run_attempt) == ("failure", 1)


def test_the_rerun_of_a_run_that_succeeded_is_refused(side: Side) -> None:
    job_id, run_id = side.queue_job(LABELS)
    registration = side.register("spot-runner-a", LABELS)
    side.take_job(registration)
    side.end_job(job_id, registration, "success")
    with pytest.raises(Refused):
        side.port.rerun_failed(side.installation, side.repository, run_id)


def test_an_unreachable_github_is_told_and_passes(side: Side) -> None:
    with side.trouble(), pytest.raises(Unreachable):
        side.register("spot-runner-a", LABELS)
    side.register("spot-runner-a", LABELS)
