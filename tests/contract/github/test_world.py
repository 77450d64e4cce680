"""The rules that time enforces, on a clock of the test's own."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.fakes.clock import FakeClock
from workers.rehearsal.github.apps import first_app
from workers.rehearsal.github.broker import Broker
from workers.rehearsal.github.environments import approve, hold_back
from workers.rehearsal.github.records import ApiError, Job, JobStatus, Runner
from workers.rehearsal.github.views import status_of
from workers.rehearsal.github.world import TAKE_LIMIT, Limits, StepOrder, World

SECOND = timedelta(seconds=1)
LABELS = ("spot-runner",)
STEPS = (StepOrder("one", "true"), StepOrder("two", "true"))


class Github:
    """A world without a network."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.told: list[tuple[str, int]] = []
        app = first_app(7, "no key", "http://127.0.0.1:9/github", "no secret")
        self.world = World(self.clock, Limits(), lambda action, job: self.told.append((action, job.id)), app)
        self.broker = Broker(self.world)
        self.world.install("octo-org")

    def job(
        self,
        labels: tuple[str, ...] = LABELS,
        repository: str = "octo-org/widgets",
        environment: str | None = None,
    ) -> Job:
        return self.world.start_run(repository, ["one"], labels, STEPS, environment=environment).jobs[0]

    def runner(self, name: str, labels: tuple[str, ...] = LABELS, scope: str = "octo-org/widgets") -> Runner:
        runner = self.world.add_runner(scope, name, labels)
        self.broker.open_session(runner, name)
        return runner

    def offer(self, runner: Runner) -> int | None:
        found = self.broker.next_offer(runner, runner.session or "", 0)
        return None if found is None else int(found["job_id"])

    def take(self, runner: Runner) -> None:
        job_id = self.offer(runner)
        assert job_id is not None
        self.broker.acquire(runner, job_id)

    def wait(self, span: timedelta) -> None:
        self.clock.move(span)
        self.world.tick()


@pytest.fixture
def github() -> Github:
    return Github()


def test_a_job_that_was_offered_and_not_taken_goes_to_another(github: Github) -> None:
    job, first, second = github.job(), github.runner("first"), github.runner("second")
    assert github.offer(first) == job.id
    github.wait(TAKE_LIMIT - SECOND)
    assert (github.offer(first), github.offer(second)) == (job.id, None)
    github.wait(SECOND)
    assert github.offer(second) == job.id
    with pytest.raises(ApiError) as caught:
        github.broker.acquire(first, job.id)
    assert caught.value.status == 404
    github.broker.acquire(second, job.id)
    assert github.told == [("queued", job.id), ("in_progress", job.id)]


def test_a_job_that_is_held_back_is_given_to_no_runner_not_even_to_the_one_that_it_was_offered_to(
    github: Github,
) -> None:
    job, first = github.job(environment="production"), github.runner("first")
    assert github.offer(first) == job.id
    hold_back(github.world, job)
    assert (github.offer(first), status_of(job.run)) == (None, "waiting")
    with pytest.raises(ApiError) as caught:
        github.broker.acquire(first, job.id)
    assert caught.value.status == 404
    github.wait(timedelta(hours=1))
    assert job.status is JobStatus.WAITING
    second = github.runner("second")
    assert github.offer(second) is None
    approve(github.world, job)
    github.take(second)
    assert [action for action, _ in github.told] == ["queued", "waiting", "queued", "in_progress"]


def test_a_run_waits_as_long_as_one_of_its_jobs_does_whatever_the_others_do(github: Github) -> None:
    run = github.world.start_run("octo-org/widgets", ["one", "two"], LABELS, STEPS, environment="production")
    first, second = run.jobs
    hold_back(github.world, second)
    github.take(github.runner("first"))
    assert (first.status, status_of(run)) == (JobStatus.IN_PROGRESS, "waiting")
    approve(github.world, second)
    assert status_of(run) == "in_progress"


def test_a_job_that_is_held_back_may_be_cancelled_and_its_rerun_is_queued(github: Github) -> None:
    job = github.job(environment="production")
    hold_back(github.world, job)
    github.world.cancel(job)
    assert (job.status, job.conclusion) == (JobStatus.COMPLETED, "cancelled")
    github.world.rerun_failed(job.run)
    (again,) = job.run.of_attempt()
    assert again.status is JobStatus.QUEUED


def test_a_job_that_was_taken_stays_with_its_runner(github: Github) -> None:
    job, first, second = github.job(), github.runner("first"), github.runner("second")
    github.take(first)
    github.wait(TAKE_LIMIT)
    assert github.offer(second) is None
    assert job.runner is first


def test_a_lock_that_is_renewed_does_not_expire(github: Github) -> None:
    job, runner = github.job(), github.runner("first")
    github.take(runner)
    for _ in range(10):
        github.wait(timedelta(minutes=9))
        github.broker.renew(runner, job.id)
    assert job.status is JobStatus.IN_PROGRESS


def test_a_lock_that_expires_fails_the_job_and_ends_the_attempt(github: Github) -> None:
    job, runner = github.job(), github.runner("first")
    github.take(runner)
    github.wait(timedelta(minutes=10) - SECOND)
    assert not job.run.is_over
    github.wait(SECOND)
    assert (job.conclusion, job.run.conclusion) == ("failure", "failure")
    assert github.told[-1] == ("completed", job.id)
    assert runner.gone_because is not None
    for call in (lambda: github.broker.renew(runner, job.id), lambda: github.broker.finish(runner, job.id, "success")):
        with pytest.raises(ApiError) as caught:
            call()
        assert caught.value.status == 410
    assert job.conclusion == "failure"


def test_a_rerun_repeats_only_what_failed(github: Github) -> None:
    run = github.world.start_run("octo-org/widgets", ["good", "bad"], LABELS, STEPS)
    good, bad = run.jobs
    github.world.complete(good, "success")
    with pytest.raises(ApiError, match="already running"):
        github.world.rerun_failed(run)
    github.world.complete(bad, "failure")
    github.world.rerun_failed(run)
    (again,) = run.of_attempt()
    assert (again.name, again.attempt, again.id in {good.id, bad.id}) == ("bad", 2, False)
    assert github.told[-3:] == [("completed", good.id), ("completed", bad.id), ("queued", again.id)]
    github.world.complete(again, "success")
    assert run.conclusion == "success"


def test_an_idle_runner_is_removed_and_one_that_never_came_is_kept_for_a_day(github: Github) -> None:
    idle, busy = github.runner("idle"), github.runner("busy")
    absent = github.world.add_runner("octo-org/widgets", "absent", LABELS)
    github.broker.next_offer(idle, "idle", 0)
    busy.job = github.job()
    github.wait(timedelta(minutes=2) + SECOND)
    assert (idle.gone_because is None, busy.gone_because is None, absent.gone_because is None) == (False, True, True)
    with pytest.raises(ApiError) as caught:
        github.offer(idle)
    assert caught.value.status == 410
    github.wait(timedelta(days=1))
    assert absent.gone_because is not None


@pytest.mark.parametrize(
    ("runner_labels", "job_labels", "fit"),
    [
        (("spot-runner",), ("spot-runner",), True),
        (("Spot-Runner", "X64"), ("spot-runner",), True),
        (("spot-runner",), ("spot-runner", "gpu"), False),
        (("spot-runner",), ("self-hosted", "spot-runner"), False),
    ],
)
def test_a_job_goes_only_to_a_runner_with_all_its_labels(
    github: Github, runner_labels: tuple[str, ...], job_labels: tuple[str, ...], *, fit: bool
) -> None:
    github.job(job_labels)
    assert (github.offer(github.runner("first", runner_labels)) is not None) is fit


def test_a_job_goes_only_to_a_runner_of_its_repository_or_organization(github: Github) -> None:
    job = github.job(repository="octo-org/gadgets")
    assert github.offer(github.runner("elsewhere")) is None
    assert github.offer(github.runner("everywhere", scope="octo-org")) == job.id


def test_events_that_come_again_are_counted_once(github: Github) -> None:
    job, runner = github.job(), github.runner("first")
    github.take(runner)
    events = [
        {"kind": "started", "step": 1, "at": 1.0},
        {"kind": "line", "step": 1, "at": 2.0, "text": "hello"},
        {"kind": "line", "step": 1, "at": 3.0, "text": "hello"},
    ]
    github.broker.append(runner, job.id, 0, events[:2])
    github.broker.append(runner, job.id, 0, events[:2])
    assert github.broker.append(runner, job.id, 1, events[1:]) == {"next": 3}
    assert [line.text for line in job.log] == ["hello", "hello"]
    assert job.steps[0].starts == 1
    assert github.world.violations == []


def test_two_copies_of_one_runner_are_noticed(github: Github) -> None:
    """What a migration must never make: the same number twice with two different stories."""
    job, runner = github.job(), github.runner("first")
    github.take(runner)
    github.broker.append(runner, job.id, 0, [{"kind": "line", "step": 1, "at": 1.0, "text": "hello"}])
    github.broker.append(runner, job.id, 0, [{"kind": "line", "step": 1, "at": 1.5, "text": "hello"}])
    assert [one.what for one in github.world.violations] == ["event 0 came twice and is not the same"]


def test_a_gap_between_events_is_refused(github: Github) -> None:
    job, runner = github.job(), github.runner("first")
    github.take(runner)
    with pytest.raises(ApiError) as caught:
        github.broker.append(runner, job.id, 1, [{"kind": "started", "step": 1}])
    assert caught.value.status == 409


def test_a_conclusion_that_is_said_twice_is_heard_once(github: Github) -> None:
    job, runner = github.job(), github.runner("first")
    github.take(runner)
    for _ in range(2):
        github.broker.finish(runner, job.id, "success")
    assert github.told == [("queued", job.id), ("in_progress", job.id), ("completed", job.id)]
    with pytest.raises(ApiError) as caught:
        github.broker.finish(runner, job.id, "failure")
    assert caught.value.status == 410


def test_a_runner_that_was_offered_a_job_may_be_deregistered_and_the_job_goes_on(github: Github) -> None:
    job, first = github.job(), github.runner("first")
    assert github.offer(first) == job.id
    github.world.remove_runner("octo-org/widgets", first.id)
    assert github.offer(github.runner("second")) == job.id


def test_an_outdated_runner_is_registered_gets_no_job_and_is_removed(github: Github) -> None:
    github.world.oldest_version = "2.336.0"
    job, old, current = github.job(), github.runner("old"), github.runner("current")
    github.broker.open_session(old, "old", "2.99.1")
    github.broker.open_session(current, "current", "2.336.0")
    assert github.offer(old) is None
    github.wait(timedelta(minutes=5) + SECOND)
    assert old.gone_because is not None
    assert github.world.runner_in("octo-org/widgets", github.runner("third").id).version == ""
    current = github.world.add_runner("octo-org/widgets", "fourth", LABELS)
    github.broker.open_session(current, "fourth", "2.400.0")
    assert github.offer(current) == job.id
