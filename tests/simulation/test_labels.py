"""What labels ask for reaches the microVM, and what they allow happens: on a fake clock, in a world in memory."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.fakes.world import HOST, PACKAGE, POLICY, Faults, World
from tests.simulation.test_control_plane import MINUTE, happened, host_of
from workers.domain.errors import Refused
from workers.domain.events import Happening
from workers.domain.host import HostState
from workers.domain.job import Job, JobEnd, JobState, Rerun
from workers.domain.labels import Wish
from workers.domain.messages import Load
from workers.domain.migration import MigrationPhase
from workers.domain.names import JobId, PackageDigest
from workers.domain.overlay import GuestNetwork
from workers.domain.pools import Package, Pool
from workers.domain.runner import Runner, RunnerEnd, RunnerState

BIG = Package("debian-12", PackageDigest("sha256:01"), HOST)
TWO_SHAPES = replace(POLICY, packages=(PACKAGE, BIG))
# So much is dear to carry from one cloud to another, for a job that has run for less than two minutes.
MUCH = Load(memory_mib=900, disk_mib=3600, dirty_mib_s=5)
RERUN = ("spot-runner/interrupt=rerun",)


def row_of(world: World, job_id: JobId) -> Job:
    job = world.store.jobs.get(job_id)
    assert job is not None
    return job


def runner_of(world: World, job_id: JobId) -> Runner:
    runner = world.store.runners.get(row_of(world, job_id).runner_id or "")  # type: ignore[arg-type]  # none has no name
    assert runner is not None
    return runner


def running(world: World, labels: tuple[str, ...], run_id: int = 1) -> JobId:
    """Queue a job and let time pass until it runs."""
    job = world.github.queue(run_id, labels)
    world.until(lambda: (row := world.store.jobs.get(job)) is not None and row.state is JobState.RUNNING, 2 * MINUTE)
    return job


@pytest.mark.parametrize(
    "labels", [("spot-runner/cpu=2/network=nat",), ("Self-Hosted", "spot-runner", "cpu=2", "network=NAT")]
)
def test_a_job_gets_the_shape_and_the_network_that_it_asks_for_on_a_runner_of_its_labels(
    labels: tuple[str, ...],
) -> None:
    world = World(policy=TWO_SHAPES)
    small, job = running(world, ("spot-runner",)), running(world, labels, 2)
    runner = runner_of(world, job)
    assert (runner.shape, runner.package, runner.network) == (BIG.shape, BIG.digest, GuestNetwork.NAT)
    assert runner_of(world, small).shape == PACKAGE.shape
    (registered,) = (one for one in world.github.runners.values() if one.name == runner.id)
    assert registered.labels == labels, "GitHub gives it no job that asks for others"
    assert host_of(world, job) != host_of(world, small), "the big one has a host of its own, as it needs all of it"
    world.until(world.is_quiet, 5 * MINUTE)
    world.check_nothing_is_left()


def test_a_shape_that_no_package_has_is_refused_with_those_that_there_are() -> None:
    world = World()
    job = world.github.queue(1, ("spot-runner/cpu=4/ram=8",))
    for _ in range(40):
        world.tick()
    assert row_of(world, job).unserved == (
        "pool default has no package of cpu=4 and ram=8; ask for one that there is (image=debian-12 with cpu=1 and "
        "ram=1); the nearest that works: runs-on: spot-runner/cpu=1/ram=1"
    )
    assert happened(world, Happening.JOB_UNSERVED) == 1
    assert not world.store.hosts.rows


# ---------------------------------------------------------------- forks


def test_a_fork_of_a_public_repository_runs_only_where_a_pool_says_so() -> None:
    world = World()
    world.github.of_forks = {1}
    job = world.github.queue(1)
    for _ in range(60):
        world.tick()
    assert "takes no jobs of forks" in str(row_of(world, job).unserved)
    assert row_of(world, job).state is JobState.QUEUED
    assert len(world.trouble.of("github", "run")) == 1, "each run is asked about once"
    assert not world.store.hosts.rows


def test_what_takes_forks_gets_them() -> None:
    world = World(
        policy=replace(POLICY, pools=(Pool("default"), Pool("strangers", Wish(network=GuestNetwork.NAT), forks=True)))
    )
    world.github.of_forks = {1}
    job = running(world, ("spot-runner",))
    assert row_of(world, job).terms is not None
    assert runner_of(world, job).network is GuestNetwork.NAT


@pytest.mark.parametrize("seed", range(6))
def test_a_refused_job_that_takes_the_runner_of_another_is_ended_at_once(seed: int) -> None:
    """GitHub knows labels and repositories only, so whoever waits in the same one may be given any of its runners."""
    world = World(seed)
    world.github.of_forks = {1}
    forked = [world.github.queue(1) for _ in range(2)]
    own = world.github.queue(2)
    world.until(lambda: world.github.conclusions(2) == ["success"], 60 * MINUTE)
    world.until(lambda: not any(world.github.jobs[job].status == "in_progress" for job in (*forked, own)), 15 * MINUTE)
    for job in forked:
        if row_of(world, job).started_at is None:
            assert row_of(world, job).state is JobState.QUEUED
        else:
            assert runner_of(world, job).end is RunnerEnd.JOB_REFUSED
            assert (row_of(world, job).end, row_of(world, job).rerun) == (JobEnd.FAILED, Rerun.NONE)


def test_while_github_cannot_say_where_a_job_comes_from_it_waits() -> None:
    world = World()
    world.trouble.away = {"github"}
    world.github.of_forks = {1}
    job = world.github.queue(1)
    for _ in range(40):
        world.tick()
    assert row_of(world, job).terms is None
    assert not world.store.hosts.rows
    assert row_of(world, job).deferred == "GitHub does not answer: where run 1 comes from is asked again soon"
    world.trouble.away.clear()
    world.until(lambda: row_of(world, job).unserved is not None, 2 * MINUTE)
    assert row_of(world, job).deferred is None


def test_a_job_of_which_github_refuses_to_say_where_it_comes_from_says_so_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()

    def refuse(*_: object) -> None:
        raise Refused("asking about run 1 of octo/hello: GitHub answered 403, Resource not accessible by integration")

    with monkeypatch.context() as refusing:
        refusing.setattr(world.github, "run", refuse)
        job = world.github.queue(1)
        for _ in range(10 * 60):
            world.tick()
    said = str(row_of(world, job).deferred)
    assert said.startswith("asking about run 1 of octo/hello: GitHub answered 403")
    assert said.endswith("let an owner accept actions: read for the App")
    deferred = [event for _, event in world.store.timeline() if event.happening is Happening.JOB_DEFERRED]
    assert len(deferred) == 1, "it is written down once"
    world.until(world.is_quiet, 30 * MINUTE)


# ---------------------------------------------------------------- max-minutes


def test_a_job_that_has_had_its_minutes_is_ended_and_not_run_again() -> None:
    world = World()
    world.hosts.job_takes = 60 * MINUTE
    job = running(world, ("spot-runner/max-minutes=3",))
    started_at = world.clock.now()
    world.until(lambda: runner_of(world, job).state is not RunnerState.BUSY, 4 * MINUTE)
    assert timedelta(minutes=2.8) < world.clock.now() - started_at < timedelta(minutes=3.6)
    assert runner_of(world, job).end is RunnerEnd.JOB_TOO_LONG
    world.until(lambda: not world.hosts.kept(), MINUTE)
    world.until(lambda: row_of(world, job).end is not None, 15 * MINUTE)
    world.until(lambda: not world.store.runners.open(), MINUTE)
    row = row_of(world, job)
    assert (row.state, row.end, row.rerun) == (JobState.COMPLETED, JobEnd.FAILED, Rerun.NONE)
    assert len(world.github.jobs) == 1
    world.until(world.is_given_back, 30 * MINUTE)
    world.check_nothing_is_left()


def test_the_time_of_a_job_goes_on_while_it_moves() -> None:
    world = World(ready_hosts=2)
    world.hosts.job_takes = 60 * MINUTE
    job = running(world, ("spot-runner/max-minutes=3",))
    world.until(lambda: sum(one.state is HostState.READY for one in world.store.hosts.open()) == 2, 5 * MINUTE)
    source = host_of(world, job)
    world.cloud.take_back(source, 2 * MINUTE)
    world.until(lambda: host_of(world, job) != source, MINUTE)
    world.until(lambda: runner_of(world, job).end is RunnerEnd.JOB_TOO_LONG, 4 * MINUTE)


def test_a_job_that_is_quick_enough_is_left_alone() -> None:
    world = World()
    running(world, ("spot-runner/max-minutes=3",))
    world.until(world.is_quiet, 5 * MINUTE)
    assert world.github.conclusions(1) == ["success"]


# ---------------------------------------------------------------- interrupt=rerun


def far_apart(world: World) -> None:
    """Let the two hosts that are ready stand in two clouds."""
    ready = [one for one in world.store.hosts.open() if one.state is HostState.READY]
    for place, host in enumerate(ready):
        world.store.hosts.rows[host.id] = replace(host, cloud=f"cloud {place}")


def two_clouds() -> World:
    world = World(ready_hosts=2)
    world.until(lambda: sum(one.state is HostState.READY for one in world.store.hosts.open()) == 2, 2 * MINUTE)
    far_apart(world)
    world.hosts.load = MUCH
    return world


def test_a_young_job_that_may_be_run_again_is_not_moved_to_another_cloud() -> None:
    world = two_clouds()
    job = running(world, RERUN)
    source = host_of(world, job)
    world.cloud.take_back(source, 2 * MINUTE)
    world.until(lambda: not world.hosts.kept(), MINUTE)
    assert row_of(world, job).state is JobState.LOST
    assert runner_of(world, job).end is RunnerEnd.REQUEUED
    world.until(lambda: world.github.attempt_of(1) == 2, 15 * MINUTE)
    world.until(world.is_quiet, 10 * MINUTE)
    row = row_of(world, job)
    assert (row.state, row.end, row.rerun) == (JobState.COMPLETED, JobEnd.LOST, Rerun.ASKED)
    assert not world.store.migrations.rows, "nothing was carried from one cloud to the other"
    assert world.github.conclusions(1) == ["success"]
    told = [dict(event.detail) for _, event in world.store.timeline() if event.happening is Happening.RUNNER_STOPPED]
    assert told[0]["end"] == "requeued"
    assert "running it again costs" in str(told[0]["because"])
    world.check_nothing_is_left()


@pytest.mark.parametrize("why", ["its labels do not say so", "it is old", "a host of its own cloud has room"])
def test_every_other_job_is_moved(why: str) -> None:
    world = two_clouds()
    world.hosts.job_takes = 60 * MINUTE
    job = running(world, ("spot-runner",) if "labels" in why else RERUN)
    if "own cloud" in why:
        for host in world.store.hosts.open():
            world.store.hosts.rows[host.id] = replace(host, cloud="one")
    if "old" in why:
        old = world.clock.now() + 20 * MINUTE
        world.until(lambda: world.clock.now() > old, 21 * MINUTE)
    source = host_of(world, job)
    world.cloud.take_back(source, 2 * MINUTE)
    world.until(lambda: host_of(world, job) != source, MINUTE)
    world.until(lambda: not world.store.migrations.open(), MINUTE)
    assert [row.phase for row in world.store.migrations.rows.values()] == [MigrationPhase.FINISHED]
    assert len(world.github.jobs) == 1


@pytest.mark.parametrize("seed", range(8))
def test_whatever_goes_wrong_a_job_that_is_run_again_succeeds_in_the_end(seed: int) -> None:
    world = World(seed, Faults(unreachable=0.05, death=0.01, hints=0.2, deliveries=0.1, hosts=0.05), ready_hosts=2)
    world.hosts.load = MUCH
    jobs = [world.github.queue(run_id, RERUN) for run_id in (1, 2)]
    for _ in range(world.random.randint(15, 60)):
        world.tick()
        far_apart(world)
    alive = world.cloud.alive()
    if alive:
        world.cloud.take_back(world.random.choice(alive), 2 * MINUTE)
    world.until(world.is_quiet, 60 * MINUTE)
    world.calm_down()
    world.until(lambda: not world.github.runners and not world.relay.table, 60 * MINUTE)
    world.check_nothing_is_left()
    assert all(row_of(world, job).end is not None for job in jobs)
