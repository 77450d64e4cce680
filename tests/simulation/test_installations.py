"""An installation that ends, or loses a repository, takes its jobs along, and nobody goes on asking GitHub for it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.fakes.world import World
from tests.simulation.test_control_plane import MINUTE, happened, started
from workers.domain.events import Delivery, Happening
from workers.domain.installation import InstallationAction, InstallationFact
from workers.domain.job import JobEnd, JobState
from workers.domain.names import JobId
from workers.domain.runner import RunnerState
from workers.reconcilers.installed import INSTALLED_INTERVAL
from workers.reconcilers.standing import refusal

REPOSITORY = "octo/hello"
ENDS = [
    (InstallationAction.DELETED, ()),
    (InstallationAction.SUSPEND, ()),
    (InstallationAction.REMOVED, ("Octo/Hello",)),
]


def tell(world: World, action: InstallationAction, removed: tuple[str, ...] = ()) -> None:
    """Let GitHub say this of the installation, and let the receiver hear it."""
    now, guid = world.clock.now(), f"i-{action}-{world.seconds}"
    fact = InstallationFact(
        delivery=guid,
        action=action,
        seen_at=now,
        installation_id=1,
        account="octo",
        said_at=now,
        is_suspended=action is InstallationAction.SUSPEND,
        takes_all=False,
        removed=removed,
    )
    world.store.write_deliveries([Delivery(guid, "installation", action.value, now, b"", installation=fact)])
    world.hints.look_at("installation", "1")


# What the App asks as itself, whoever has installed it.
OF_THE_APP = {"deliveries", "redeliver", "installations", "repositories"}


def asked(world: World) -> list[str]:
    """Return what was asked on behalf of the installation."""
    mine = [one for one in world.trouble.log if one.port == "github" and one.verb not in OF_THE_APP]
    return [f"{one.verb} {one.about}" for one in mine]


@pytest.mark.parametrize(("action", "removed"), ENDS)
def test_what_runs_is_ended_what_waits_is_cancelled_and_github_is_asked_nothing_more(
    action: InstallationAction, removed: tuple[str, ...]
) -> None:
    world = World(hosts_max=1)
    started(world, jobs=2)
    waiting = world.github.queue(9)
    placed = world.github.queue(10)
    world.tick()
    before = asked(world)
    tell(world, action, removed)
    world.github.is_installed = False
    world.until(lambda: not world.store.runners.open() and not world.store.jobs.open(), 2 * MINUTE)
    for _ in range(300):
        world.tick()  # longer than any interval at which somebody asks again
    assert asked(world) == before
    rows = [world.store.jobs.get(job) for job in (waiting, placed)]
    assert [(row.state, row.end) for row in rows if row] == [(JobState.CANCELLED, JobEnd.CANCELLED)] * 2
    assert happened(world, Happening.JOB_STOPPED) == 4
    assert happened(world, Happening.RERUN_ASKED) == 0
    assert all(row.state is RunnerState.GONE for row in world.store.runners.rows.values())
    assert not world.hosts.kept(), "every microVM is stopped and wiped"


def test_a_job_of_which_is_heard_only_afterwards_gets_nothing() -> None:
    world = World(ready_hosts=1)
    tell(world, InstallationAction.REMOVED, (REPOSITORY,))
    job = world.github.queue(1)
    world.until(lambda: happened(world, Happening.JOB_STOPPED) == 1, MINUTE)
    row = world.store.jobs.get(job)
    assert row is not None
    assert (row.state, row.runner_id) == (JobState.CANCELLED, None)
    assert asked(world) == []


@pytest.mark.parametrize("removed", [(), ("octo/other",)])
def test_what_is_said_of_others_stops_nothing(removed: tuple[str, ...]) -> None:
    world = World()
    started(world)
    tell(world, InstallationAction.REMOVED if removed else InstallationAction.NEW_PERMISSIONS_ACCEPTED, removed)
    world.until(world.is_quiet, 10 * MINUTE)
    assert happened(world, Happening.JOB_STOPPED) == 0


def test_once_the_suspension_is_lifted_jobs_are_served_again() -> None:
    world = World()
    tell(world, InstallationAction.SUSPEND)
    world.github.queue(1)
    world.until(lambda: happened(world, Happening.JOB_STOPPED) == 1, MINUTE)
    tell(world, InstallationAction.UNSUSPEND)
    job = world.github.queue(2)
    world.until(lambda: state_of(world, job) is JobState.COMPLETED, timedelta(minutes=10))


@pytest.mark.parametrize(("action", "removed"), ENDS[1:])
def test_what_lifts_it_and_was_never_delivered_is_found_in_the_list(
    action: InstallationAction, removed: tuple[str, ...]
) -> None:
    world = World(ready_hosts=1)
    tell(world, action, removed)
    world.github.queue(1)
    world.until(lambda: happened(world, Happening.JOB_STOPPED) == 1, MINUTE)
    world.lists.said_at = world.clock.now()
    world.until(lambda: refusal(world.store, 1, REPOSITORY) is None, INSTALLED_INTERVAL + MINUTE)
    job = world.github.queue(2)
    world.until(lambda: state_of(world, job) is JobState.COMPLETED, timedelta(minutes=10))


def test_a_list_that_is_older_than_what_was_told_changes_nothing() -> None:
    world = World()
    tell(world, InstallationAction.SUSPEND)
    world.lists.said_at = world.clock.now() - MINUTE
    for _ in range(11 * 60):
        world.tick()
    assert "suspended" in (refusal(world.store, 1, REPOSITORY) or "")


def state_of(world: World, job: JobId) -> JobState | None:
    row = world.store.jobs.get(job)
    return row.state if row else None
