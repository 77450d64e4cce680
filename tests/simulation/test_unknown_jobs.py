"""A job that GitHub answers 404 about is over only if that stays so and nobody runs it any more."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.fakes.world import World
from tests.simulation.test_control_plane import MINUTE, happened, started
from workers.domain.errors import Unreachable
from workers.domain.events import Happening, JobAction
from workers.domain.job import Job, JobEnd, JobState
from workers.domain.names import JobId
from workers.domain.runner import RunnerState
from workers.reconcilers.polls import POLL_INTERVAL, UNKNOWN_LIMIT, Polls


def row_of(world: World, job: JobId) -> Job:
    row = world.store.jobs.get(job)
    assert row is not None
    return row


def asked(world: World) -> int:
    return len(world.trouble.of("github", "job"))


def test_a_job_that_runs_outlives_every_404_about_it() -> None:
    world = World()
    world.hosts.job_takes = 20 * MINUTE
    (job,) = started(world)
    world.github.hidden.add(job)
    world.until(lambda: asked(world) >= 5, 15 * MINUTE)
    assert row_of(world, job).state is JobState.RUNNING
    world.github.hidden.clear()
    world.until(world.is_quiet, 30 * MINUTE)
    world.check_nothing_is_left()
    assert row_of(world, job).end is JobEnd.SUCCEEDED
    assert happened(world, Happening.JOB_STARTED) == 1


def test_a_job_whose_registration_is_gone_too_is_over_at_the_second_404() -> None:
    world = World()
    world.hosts.job_takes = 20 * MINUTE
    (job,) = started(world)
    world.github.hidden.add(job)
    world.github.runners.clear()
    world.until(lambda: asked(world) == 1, 2 * POLL_INTERVAL)
    assert row_of(world, job).state is JobState.RUNNING, "one is no answer"
    world.until(lambda: row_of(world, job).state is JobState.CANCELLED, 2 * POLL_INTERVAL)


def waiting(world: World) -> tuple[Polls, Job]:
    """Return a job that is queued, and who asks about it."""
    job = world.github.queue(1)
    world.receive()
    world.look_at("job", str(job))
    return Polls(world.store, world.github, world.clock), row_of(world, job)


def test_one_404_about_a_job_that_waits_is_no_answer_and_the_next_one_is() -> None:
    world = World(hosts_max=0)
    polls, job = waiting(world)
    facts = world.store.facts_of(job.id)
    world.github.hidden.add(job.id)
    world.clock.move(POLL_INTERVAL)
    assert polls.of(job, facts) is None
    world.github.hidden.clear()
    world.clock.move(POLL_INTERVAL)
    answer = polls.of(job, facts)
    assert answer is not None
    assert answer.action is JobAction.QUEUED
    world.github.hidden.add(job.id)
    world.clock.move(POLL_INTERVAL)
    assert polls.of(job, facts) is None, "what it knew meanwhile makes an end of the first one"
    world.clock.move(POLL_INTERVAL)
    over = polls.of(job, facts)
    assert over is not None
    assert (over.action, over.conclusion) == (JobAction.COMPLETED, "cancelled")


@pytest.mark.parametrize("wait", [timedelta(), UNKNOWN_LIMIT - timedelta(seconds=1)])
def test_two_404s_at_once_are_one(wait: timedelta) -> None:
    world = World(hosts_max=0)
    job = waiting(world)[1]
    polls, facts = Polls(world.store, world.github, world.clock, timedelta()), world.store.facts_of(job.id)
    world.github.hidden.add(job.id)
    assert polls.of(job, facts) is None
    world.clock.move(wait)
    assert polls.of(job, facts) is None


def test_as_long_as_github_does_not_say_whether_its_runner_is_registered_it_runs() -> None:
    world = World()
    (job,) = started(world)
    polls, facts = Polls(world.store, world.github, world.clock), world.store.facts_of(job)
    assert world.store.runners.open()[0].state is RunnerState.BUSY
    world.github.hidden.add(job)
    world.github.runners.clear()
    for _ in range(3):
        world.clock.move(POLL_INTERVAL)
        world.trouble.lost_calls["github", "number_of"] = Unreachable("GitHub did not answer")
        assert polls.of(row_of(world, job), facts) is None
    world.trouble.lost_calls.clear()
    world.clock.move(POLL_INTERVAL)
    assert polls.of(row_of(world, job), facts) is not None
