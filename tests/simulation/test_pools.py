"""Pools act: limits, hosts kept ready by the clock, budgets, clouds, and a policy that changes while jobs wait."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, timedelta

import pytest

from tests.fakes.world import HOST, PACKAGE, POLICY, Faults, World
from tests.simulation.test_control_plane import MINUTE, happened, host_of
from tests.simulation.test_labels import row_of
from workers.domain.events import Happening
from workers.domain.host import HostState
from workers.domain.job import JobState
from workers.domain.market import Market, Sources
from workers.domain.names import JobId
from workers.domain.offer import Offer
from workers.domain.pools import Budget, Policy, Pool, Schedule
from workers.domain.schedule import Window

ALWAYS = frozenset(range(7))


def world_of(*pools: Pool, price: float | None = None, seed: int = 0, faults: Faults | None = None) -> World:
    return World(seed, faults, policy=Policy(pools, (PACKAGE,)), price=price)


def pass_by(world: World, time: timedelta) -> None:
    end = world.clock.now() + time
    world.until(lambda: world.clock.now() >= end, time + MINUTE)


def at_once(world: World) -> int:
    """Return how many runners there are."""
    return len(world.store.runners.open())


def because(world: World, job: JobId) -> str:
    return str(row_of(world, job).deferred)


# ---------------------------------------------------------------- limits


@pytest.mark.parametrize("faults", [Faults(), Faults(unreachable=0.05, death=0.01, hints=0.2, deliveries=0.1)])
def test_a_repository_has_no_more_runners_at_once_than_its_pool_allows(faults: Faults) -> None:
    world = world_of(Pool("default", runners_max=2), faults=faults)
    jobs = [world.github.queue(run) for run in range(1, 6)]
    most = 0

    def is_done() -> bool:
        nonlocal most
        most = max(most, at_once(world))
        return world.is_quiet()

    world.until(is_done, 60 * MINUTE)
    assert most == 2
    assert all(row_of(world, job).deferred is None for job in jobs)
    assert happened(world, Happening.JOB_DEFERRED) >= 3
    assert len(world.store.hosts.rows) == 1, "no host is bought for jobs that have to wait"


def test_a_job_above_the_limit_says_why_it_waits() -> None:
    world = world_of(Pool("default", runners_max=1))
    first, second = world.github.queue(1), world.github.queue(2)
    world.github.chosen = first
    world.until(lambda: second in world.store.jobs.rows and row_of(world, second).deferred is not None, 2 * MINUTE)
    assert because(world, second) == (
        "octo/hello may have 1 runners at once in pool default; it gets one when one of them is done"
    )
    assert row_of(world, first).deferred is None
    pass_by(world, MINUTE / 2)
    assert happened(world, Happening.JOB_DEFERRED) == 1, "it is told once"


# ---------------------------------------------------------------- hosts that are kept ready


def test_hosts_are_kept_ready_by_the_clock() -> None:
    """The world begins at 04:00 on a Monday."""
    window = Window(ALWAYS, 4 * 60 + 10, 4 * 60 + 40, UTC)
    world = world_of(Pool("default", min_ready=1, schedules=(Schedule(window, min_ready=3),)))
    world.until(lambda: len(world.cloud.alive()) == 1, 2 * MINUTE)
    pass_by(world, 5 * MINUTE)
    assert len(world.cloud.alive()) == 1
    world.until(lambda: len(world.cloud.alive()) == 3, 6 * MINUTE)
    assert world.clock.now().minute in {10, 11}
    pass_by(world, 20 * MINUTE)
    assert len(world.cloud.alive()) == 3
    world.until(lambda: len(world.cloud.alive()) == 1, 25 * MINUTE)
    assert world.clock.now().minute >= 40 or world.clock.now().hour == 5
    assert {host.pool for host in world.store.hosts.rows.values()} == {"default"}


# ---------------------------------------------------------------- budgets


def test_a_pool_that_has_spent_its_budget_buys_nothing_and_says_so() -> None:
    """A host costs 6 an hour and is kept for a quarter of one at least, so 2 is enough for one, for twenty minutes."""
    world = world_of(Pool("default", budget=Budget(2.0, "EUR", UTC)), price=6.0)
    world.hosts.job_takes = 60 * MINUTE
    for run in (1, 2):
        world.github.queue(run)
    world.until(lambda: at_once(world) == 2, 2 * MINUTE)
    pass_by(world, 10 * MINUTE)
    late = world.github.queue(3)
    world.until(lambda: late in world.store.jobs.rows and row_of(world, late).deferred is not None, MINUTE)
    assert because(world, late) == (
        "pool default has spent its 2 EUR of today, but for less than another host costs; no host is bought for it "
        "before 2026-11-24 00:00 (UTC), but where there is room its jobs run"
    )
    pass_by(world, 10 * MINUTE)
    assert len(world.store.hosts.rows) == 1
    assert happened(world, Happening.JOB_DEFERRED) == 1
    world.policy = Policy((Pool("default", budget=Budget(9.0, "EUR", UTC)),), (PACKAGE,))
    world.until(lambda: row_of(world, late).state is JobState.RUNNING, 2 * MINUTE)
    assert row_of(world, late).deferred is None


def test_what_must_leave_a_host_gets_another_whatever_the_budget() -> None:
    world = world_of(Pool("default", budget=Budget(1.5, "EUR", UTC)), price=6.0)
    world.hosts.job_takes = 30 * MINUTE
    job = world.github.queue(1)
    world.until(lambda: job in world.store.jobs.rows and row_of(world, job).state is JobState.RUNNING, 3 * MINUTE)
    source = host_of(world, job)
    world.cloud.take_back(source, 2 * MINUTE)
    world.until(lambda: host_of(world, job) != source, 2 * MINUTE)
    assert {host.pool for host in world.store.hosts.rows.values()} == {"default", None}


def test_each_host_is_bought_for_one_pool_at_its_price_and_on_its_terms() -> None:
    where = Sources(("fake",), ("z-2", "z-1"), Market.SPOT_THEN_ON_DEMAND)
    world = world_of(Pool("default"), Pool("ci", sources=where, min_ready=1), price=0.25)
    world.until(lambda: len(world.cloud.alive()) == 1, 2 * MINUTE)
    world.until(lambda: [one.state for one in world.store.hosts.open()] == [HostState.READY], 2 * MINUTE)
    (host,) = world.store.hosts.rows.values()
    assert (host.pool, host.price, host.sources) == ("ci", 0.25, where)
    assert world.cloud.asked_for[host.id] == where
    world.cloud.kill(host.id)
    world.until(lambda: world.store.hosts.rows[host.id].ended_at is not None, 2 * MINUTE)


# ---------------------------------------------------------------- offers


HERE, THERE = (Offer("fake", "r", zone, "large", HOST, 0.1, is_spot=True) for zone in ("z-1", "z-2"))


def test_room_elsewhere_is_bought_before_it_is_needed_and_given_back_afterwards() -> None:
    world = world_of(Pool("default"))
    world.offers = (HERE, THERE)
    world.hosts.job_takes = 30 * MINUTE
    job = world.github.queue(1)
    world.until(lambda: [one.state for one in world.store.hosts.open()] == [HostState.READY] * 2, 3 * MINUTE)
    world.until(lambda: row_of(world, job).state is JobState.RUNNING, MINUTE)
    source = host_of(world, job)
    assert {one.machine.zone for one in world.store.hosts.open() if one.machine} == {"z-1", "z-2"}
    pass_by(world, 16 * MINUTE)
    assert len(world.cloud.alive()) == 2, "the empty one is not given back at the end of its period"
    [spare] = [one for one in world.cloud.alive() if one != source]
    world.cloud.take_back(source, MINUTE / 2)
    world.until(lambda: host_of(world, job) == spare, MINUTE / 2)
    world.until(lambda: world.github.jobs[job].status == "completed", 30 * MINUTE)
    world.until(lambda: not world.cloud.alive(), 40 * MINUTE)


def test_what_was_chosen_and_is_sold_out_holds_nothing_up() -> None:
    world = world_of(Pool("default"))
    world.offers = (HERE, THERE)
    world.cloud.sold_out = {HERE.lot.pool, THERE.lot.pool}
    job = world.github.queue(1)
    world.until(lambda: job in world.store.jobs.rows and row_of(world, job).state is JobState.RUNNING, 2 * MINUTE)


# ---------------------------------------------------------------- given back


@pytest.mark.parametrize("empties", [False, True])
def test_the_last_guest_of_a_host_is_moved_so_that_it_can_be_given_back(*, empties: bool) -> None:
    world = World(0, policy=Policy((Pool("default"),), (PACKAGE,)), empties_hosts=empties)
    world.hosts.job_takes = 5 * MINUTE
    short = world.github.queue(1)
    world.until(lambda: short in world.store.jobs.rows and row_of(world, short).state is JobState.RUNNING, 2 * MINUTE)
    first = host_of(world, short)
    world.hosts.job_takes = 40 * MINUTE
    for run in (2, 3):
        world.github.queue(run)
        pass_by(world, MINUTE)
    beside = next(job.id for job in world.store.jobs.open() if job.id != short and host_of(world, job.id) == first)
    world.until(lambda: row_of(world, short).state is JobState.COMPLETED, 6 * MINUTE)
    pass_by(world, MINUTE * 15 - (world.clock.now() - world.store.hosts.rows[first].requested_at) + MINUTE / 6)
    assert (first in world.cloud.alive()) is not empties
    assert (host_of(world, beside) == first) is not empties
    world.until(lambda: row_of(world, beside).state is JobState.COMPLETED, 60 * MINUTE)
    assert world.github.jobs[beside].conclusion == "success"


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_hosts_are_emptied_without_harm_whatever_goes_wrong(seed: int) -> None:
    faults = Faults(unreachable=0.05, death=0.01, hints=0.2, deliveries=0.1)
    world = World(seed, faults, policy=Policy((Pool("default"),), (PACKAGE,)), empties_hosts=True)
    for run in range(1, 9):
        world.hosts.job_takes = (5 + 4 * (run % 4)) * MINUTE
        world.github.queue(run)
        pass_by(world, 2 * MINUTE)
    world.until(world.is_quiet, 120 * MINUTE)
    planned = happened(world, Happening.MIGRATION_PLANNED)
    assert planned >= 1, "or nothing is tried here"
    assert {job.conclusion for job in world.github.jobs.values()} == {"success"}


# ---------------------------------------------------------------- clouds


def test_a_pool_of_another_cloud_waits_and_says_so() -> None:
    world = world_of(Pool("default", sources=Sources(("aws", "hetzner"))), Pool("other"))
    job = world.github.queue(1)
    world.until(lambda: job in world.store.jobs.rows and row_of(world, job).deferred is not None, MINUTE)
    assert because(world, job) == "pool default wants hosts of aws, hetzner only, and this deployment rents at fake"
    assert not world.store.hosts.rows
    served = world.github.queue(2, ("spot-runner/pool=other",))
    world.until(lambda: world.github.jobs[served].status == "completed", 5 * MINUTE)
    assert row_of(world, job).state is JobState.QUEUED, "nor is it placed on a host of this one"


# ---------------------------------------------------------------- a policy that changes


def test_a_job_that_waits_is_judged_by_the_policy_of_now() -> None:
    world = world_of(Pool("default", cpu_max=1), Pool("closed", repositories=("x/y",)))
    refused = world.github.queue(1, ("spot-runner/pool=closed",))
    world.until(lambda: refused in world.store.jobs.rows and row_of(world, refused).unserved is not None, MINUTE)
    world.policy = replace(POLICY, pools=(Pool("default"), Pool("closed")))
    world.until(world.is_quiet, 5 * MINUTE)
    assert world.github.conclusions(1) == ["success"]


def test_a_limit_that_is_raised_lets_those_who_wait_run() -> None:
    world = world_of(Pool("default", runners_max=1))
    world.hosts.job_takes = 60 * MINUTE
    world.github.chosen, second = (world.github.queue(run) for run in (1, 2))
    world.until(lambda: second in world.store.jobs.rows and row_of(world, second).deferred is not None, 2 * MINUTE)
    world.policy = replace(world.policy, pools=(Pool("default", runners_max=2),))
    world.until(lambda: row_of(world, second).state is JobState.RUNNING, 2 * MINUTE)
    assert row_of(world, second).deferred is None
