"""A job that asks not to be moved, in the control plane as a whole."""

from __future__ import annotations

from datetime import datetime, timedelta

from tests.fakes.world import World
from tests.simulation.test_control_plane import MINUTE, happened, host_of, started
from workers.domain.events import Happening
from workers.domain.hold import HoldWish
from workers.domain.migration import MigrationPhase
from workers.domain.names import JobId


def held(world: World, job: JobId, seconds: float) -> None:
    """Let a running job ask not to be moved, and wait until that is known."""
    (vm,) = world.hosts.daemons[host_of(world, job)].vms.values()
    vm.guest.hold = HoldWish(1, seconds)
    world.until(lambda: bool(world.store.held(world.clock.now())), MINUTE)


def planned_after(world: World, began: datetime) -> timedelta:
    (at,) = (event.at for _, event in world.store.timeline() if event.happening is Happening.MIGRATION_PLANNED)
    return at - began


def test_a_job_that_asks_not_to_be_moved_is_left_alone_until_its_hold_ends() -> None:
    world = World(ready_hosts=2)
    world.hosts.job_takes = 5 * MINUTE
    (job,) = started(world)
    held(world, job, 40.0)
    began = world.clock.now()
    world.cloud.take_back(host_of(world, job), 2 * MINUTE)
    world.until(world.is_quiet, 10 * MINUTE)
    assert timedelta(seconds=38) <= planned_after(world, began) <= timedelta(seconds=42)
    assert (happened(world, Happening.HOLD_BEGAN), happened(world, Happening.HOLD_BROKEN)) == (1, 0)
    assert len(world.github.jobs) == 1, "nothing was run twice"
    world.check_nothing_is_left()


def test_a_hold_is_broken_by_the_deadline_and_not_the_job_by_the_hold() -> None:
    world = World(ready_hosts=2)
    world.hosts.job_takes = 5 * MINUTE
    (job,) = started(world)
    held(world, job, 600.0)
    began = world.clock.now()
    source = host_of(world, job)
    world.cloud.take_back(source, 2 * MINUTE)
    world.until(world.is_quiet, 10 * MINUTE)
    assert timedelta(seconds=60) <= planned_after(world, began) <= timedelta(seconds=117)
    (broken,) = (event for _, event in world.store.timeline() if event.happening is Happening.HOLD_BROKEN)
    assert (broken.job_id, broken.host_id) == (job, source)
    assert "held_until" in broken.detail
    assert [row.phase for row in world.store.migrations.rows.values()] == [MigrationPhase.FINISHED]
    assert len(world.github.jobs) == 1, "nothing was run twice"
    world.check_nothing_is_left()
