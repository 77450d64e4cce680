"""An installation of which no delivery told that it was suspended or removed, and jobs of which GitHub says nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest

from tests.fakes.github_lists import APP, FakeLists
from tests.fakes.world import World
from tests.simulation.test_control_plane import MINUTE, happened, started
from tests.simulation.test_installations import REPOSITORY, asked, state_of
from workers.domain.errors import Unreachable
from workers.domain.events import Happening
from workers.domain.installation import InstallationState
from workers.domain.job import JOB, JobState
from workers.domain.listed import InstallationListed
from workers.domain.names import JobId
from workers.planning.standing import QUEUE_LIMIT, SLACK_LIMIT
from workers.reconcilers.installed import INSTALLED_INTERVAL
from workers.reconcilers.standing import refusal

HOUR = timedelta(hours=1)


def pass_time(world: World, span: timedelta, seconds: int = 5) -> None:
    for _ in range(int(span.total_seconds()) // seconds):
        world.tick(seconds)


def standing(world: World) -> InstallationState | None:
    row = world.store.installation(1)
    return row.state if row else None


def reasons(world: World, job: JobId) -> list[str]:
    """Return why it was stopped, as its timeline has it."""
    told = (event for _, event in world.store.timeline() if event.job_id == job)
    return [str(event.detail["because"]) for event in told if event.happening is Happening.JOB_STOPPED]


def put_away(world: World) -> bool:
    return not world.store.jobs.open() and not world.store.runners.open()


def test_a_suspension_of_an_installation_of_which_nothing_was_ever_told_is_found_in_the_list() -> None:
    """The App is older than the deployment, so there is no row of it."""
    world = World(hosts_max=1)
    started(world, jobs=2)
    job = world.github.queue(9)
    world.tick()
    assert standing(world) is None
    world.github.is_suspended = True
    world.until(lambda: standing(world) is InstallationState.SUSPENDED, INSTALLED_INTERVAL + MINUTE)
    world.until(lambda: put_away(world), 2 * MINUTE)
    assert state_of(world, job) is JobState.CANCELLED
    assert "suspended in octo" in reasons(world, job)[0]
    before = asked(world)
    pass_time(world, HOUR)
    assert asked(world) == before
    world.github.is_suspended = False
    world.until(lambda: standing(world) is InstallationState.ACTIVE, INSTALLED_INTERVAL + MINUTE)


def test_a_removal_of_which_nothing_was_told_ends_its_jobs_and_is_found_in_two_lists() -> None:
    world = World(hosts_max=1)
    started(world, jobs=2)
    world.github.queue(9)
    world.tick()
    world.github.is_installed = False
    world.until(lambda: standing(world) is InstallationState.REMOVED, 2 * INSTALLED_INTERVAL + MINUTE, 5)
    world.until(lambda: put_away(world), 2 * MINUTE, 5)
    before, hosts = asked(world), len(world.store.hosts.rows)
    pass_time(world, HOUR)
    assert asked(world) == before
    assert len(world.store.hosts.rows) == hosts
    assert happened(world, Happening.RERUN_ASKED) == 0


class OtherLists(FakeLists):
    """Two Apps, of which the second has no installation and may be silent; lists may lack what is there."""

    is_silent = False
    lacks = False

    def installations(self, app: int) -> Sequence[InstallationListed]:
        if app != APP and self.is_silent:
            raise Unreachable("GitHub does not answer")
        return [] if app != APP or self.lacks else super().installations(app)


def with_other_lists() -> tuple[World, OtherLists]:
    world = World(ready_hosts=1)
    world.lists = lists = OtherLists(world.github, apps=(APP, APP + 1))
    world.start_workers()
    world.github.queue(1)
    world.until(world.is_quiet, 10 * MINUTE)
    return world, lists


def test_as_long_as_one_app_does_not_answer_nothing_is_taken_for_removed() -> None:
    world, lists = with_other_lists()
    lists.is_silent = lists.lacks = True
    pass_time(world, HOUR)
    assert standing(world) is None
    lists.is_silent = False
    world.until(lambda: standing(world) is InstallationState.REMOVED, 2 * INSTALLED_INTERVAL + MINUTE, 5)


def test_one_list_in_which_it_is_missing_says_nothing() -> None:
    world, lists = with_other_lists()
    for _ in range(4):
        lists.lacks = not lists.lacks
        pass_time(world, INSTALLED_INTERVAL)
    assert standing(world) is None


def test_an_installation_that_is_listed_again_was_not_removed_and_its_jobs_are_served() -> None:
    """As where a deployment has had the key of another App for a while."""
    world, lists = with_other_lists()
    lists.lacks = True
    world.until(lambda: standing(world) is InstallationState.REMOVED, 2 * INSTALLED_INTERVAL + MINUTE, 5)
    lists.lacks = False
    world.until(lambda: refusal(world.store, 1, REPOSITORY) is None, 2 * INSTALLED_INTERVAL + MINUTE, 5)
    job = world.github.queue(2)
    world.until(lambda: state_of(world, job) is JobState.COMPLETED, 10 * MINUTE)


@pytest.mark.parametrize("labels", [("spot-runner",), ("nobodys",)])
def test_a_job_of_which_github_says_nothing_is_closed_after_the_day_that_it_may_wait(labels: tuple[str, ...]) -> None:
    """Our App has lost its permissions, which no list of installations tells us."""
    world = World(hosts_max=1)
    job = world.github.queue(1, labels)
    world.tick()
    row = world.store.jobs.get(job)
    assert row is not None
    assert (row.unserved is None) is (labels == ("spot-runner",)), "nobody asks about what is not served"
    world.github.has_permissions = False
    pass_time(world, QUEUE_LIMIT + SLACK_LIMIT - 5 * MINUTE, 60)
    assert state_of(world, job) in JOB.open
    world.until(lambda: state_of(world, job) is JobState.CANCELLED, 10 * MINUTE, 15)
    assert "not accessible by integration" in reasons(world, job)[0]
    pass_time(world, 5 * MINUTE, 15)
    before, hosts = asked(world), len(world.store.hosts.rows)
    pass_time(world, 3 * HOUR, 15)
    assert not [one for one in asked(world)[len(before) :] if one.startswith(("job ", "register "))]
    assert len(world.store.hosts.rows) == hosts


@pytest.mark.parametrize("labels", [("spot-runner",), ("nobodys",)])
def test_a_job_that_github_calls_queued_is_open_however_long_it_waits(labels: tuple[str, ...]) -> None:
    world = World(hosts_max=0)
    job = world.github.queue(1, labels)
    pass_time(world, QUEUE_LIMIT + SLACK_LIMIT + HOUR, 60)
    assert state_of(world, job) is JobState.QUEUED
    world.github.has_permissions = False
    pass_time(world, HOUR, 60)
    assert state_of(world, job) is JobState.QUEUED, "it was heard of an hour ago"
