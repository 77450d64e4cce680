"""Who gets which runner, whatever GitHub does with them: on a fake clock, in a world in memory."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.fakes.payloads import Said, delivered
from tests.fakes.world import PACKAGE, POLICY, RUNNER, Faults, World
from tests.simulation.test_control_plane import MINUTE, happened
from tests.simulation.test_labels import row_of, runner_of
from workers.domain.breaker import RETRY_INTERVAL, RETRY_INTERVAL_MAX, UNUSED_MAX
from workers.domain.events import Event, Happening, JobAction
from workers.domain.job import JobState
from workers.domain.labels import Wish
from workers.domain.names import JobId, PackageDigest
from workers.domain.overlay import GuestNetwork
from workers.domain.pools import Package, Pool
from workers.domain.runner import RunnerEnd, RunnerState
from workers.planning.demand import kind_of
from workers.planning.running import UNUSED_RUNNER_LIMIT

SMALL, LARGE = ("spot-runner",), ("spot-runner", "cpu=1")
TWO_POOLS = replace(
    POLICY, pools=(Pool("default"), Pool("strangers", Wish(network=GuestNetwork.NAT), forks=True)), packages=(PACKAGE,)
)


def told(world: World, happening: Happening) -> list[Event]:
    return [event for _, event in world.store.timeline() if event.happening is happening]


def is_in_progress(world: World, job: JobId) -> bool:
    return world.github.jobs[job].status == "in_progress"


def stolen(world: World) -> tuple[JobId, JobId]:
    """Let the runner that was made for one job be given to another one, with fewer labels, that has none yet."""
    loser = world.github.queue(1, LARGE)
    world.until(lambda: bool(world.store.runners.open()), 2 * MINUTE)
    world.cloud.is_sold_out = True
    thief = world.github.chosen = world.github.queue(2, SMALL)
    world.until(lambda: is_in_progress(world, thief), 2 * MINUTE)
    world.cloud.is_sold_out = False
    return loser, thief


def settle(world: World) -> None:
    """Let everything end, and see that nothing is left of it."""
    world.until(world.is_quiet, 60 * MINUTE)
    world.calm_down()
    world.until(lambda: not world.github.runners and not world.relay.table, 60 * MINUTE)
    world.check_nothing_is_left()


def test_a_job_whose_runner_was_taken_by_another_gets_a_runner_anew_at_once() -> None:
    world = World(ready_hosts=1, hosts_max=3)
    loser, thief = stolen(world)
    world.until(lambda: row_of(world, thief).state is JobState.RUNNING, MINUTE)
    stolen_at = world.clock.now()
    assert runner_of(world, thief).labels == LARGE
    world.until(lambda: is_in_progress(world, loser), MINUTE)
    assert world.clock.now() - stolen_at < timedelta(seconds=30)
    (taken,) = told(world, Happening.RUNNER_TAKEN)
    assert (taken.job_id, taken.detail["instead_of"]) == (thief, loser)
    settle(world)
    assert len(world.trouble.of("github", "register")) == 2, "a runner for each of them and none too many"
    assert [world.github.conclusions(run_id) for run_id in (1, 2)] == [["success"], ["success"]]


def test_who_has_lost_his_runner_hears_so_when_it_is_written_down_whose_own_is_free() -> None:
    """A worker who looked sooner would find both runners in use and make a third one."""
    world = World(ready_hosts=3)
    world.until(lambda: happened(world, Happening.HOST_READY) == 3, 10 * MINUTE)
    jobs = [world.github.queue(run_id, SMALL) for run_id in (1, 2)]
    world.github.chosen = jobs[1]
    heard = list[tuple[str, JobState]]()

    def hear(kind: str, key: str) -> None:
        thieves = [one for one in jobs if kind == "job" and str(one) != key and one in world.store.jobs.rows]
        if told(world, Happening.RUNNER_TAKEN):
            heard.extend((key, world.store.jobs.rows[one].state) for one in thieves)

    world.hints.at_once = hear
    world.until(lambda: bool(heard), 10 * MINUTE)
    assert heard[0][1] is JobState.RUNNING
    world.hints.at_once = None
    settle(world)
    assert happened(world, Happening.RUNNER_REQUESTED) == 2


def test_sweeps_take_no_lease_on_what_goes_on_by_itself() -> None:
    world = World(ready_hosts=1)
    world.hosts.job_takes = 20 * MINUTE
    job = world.github.queue(1)
    world.until(lambda: is_in_progress(world, job) and row_of(world, job).state is JobState.RUNNING, 10 * MINUTE)
    for _ in range(20):
        world.tick()
    jobs, runners = world.store.jobs._numbers, world.store.runners._numbers
    before = next(jobs), next(runners)
    for _ in range(60):
        world.tick()
    assert (next(jobs) - before[0], next(runners) - before[1]) == (1, 1), "a lease takes a number of its own"


def test_a_thief_of_which_nothing_was_heard_is_found_out_because_its_runner_cannot_be_let_go() -> None:
    """Every delivery about it is lost, so we believe that the runner waits for the job that it was made for."""
    world = World(ready_hosts=1, hosts_max=3)
    world.hosts.job_takes = 20 * MINUTE
    loser = world.github.queue(1, LARGE)
    world.until(lambda: bool(world.store.runners.open()), 2 * MINUTE)
    world.github.is_installed = False
    thief = world.github.chosen = world.github.queue(2, SMALL)
    world.github.is_installed = True
    world.github.loss = 1.0
    world.until(lambda: is_in_progress(world, thief), MINUTE)
    stolen_at = world.clock.now()
    world.github.loss = 0.0
    world.until(lambda: is_in_progress(world, loser), 5 * MINUTE)
    assert world.clock.now() - stolen_at < UNUSED_RUNNER_LIMIT + MINUTE
    assert happened(world, Happening.BREAKER_TRIPPED) == 0
    world.until(lambda: not world.store.runners.open(), 25 * MINUTE)
    assert world.github.conclusions(1) == ["success"]


def test_jobs_with_a_label_of_their_run_are_never_stolen_from() -> None:
    world = World(7, ready_hosts=2)
    for run_id in range(1, 6):
        for _ in range(2):
            world.github.queue(run_id, (f"spot-runner/run={run_id}",))
    settle(world)
    for job in world.store.jobs.rows.values():
        assert job.runner_id is not None
        assert world.store.runners.rows[job.runner_id].labels == job.labels
    runs = [(event.job_id, event.detail["instead_of"]) for event in told(world, Happening.RUNNER_TAKEN)]
    rows = world.store.jobs.rows
    assert all(rows[thief].run_id == rows[JobId(int(str(loser)))].run_id for thief, loser in runs if thief), "siblings"
    assert len(world.trouble.of("github", "register")) == 10


@pytest.mark.parametrize("seed", range(6))
def test_whoever_steals_nothing_starves_and_nothing_is_left_over(seed: int) -> None:
    world = World(seed, Faults(hints=0.2, deliveries=0.2))
    for run_id in range(1, 9):
        world.github.queue(run_id, world.random.choice([SMALL, LARGE, ("spot-runner", "image=debian-12")]))
        for _ in range(world.random.randint(0, 15)):
            world.tick()
    settle(world)
    assert {world.github.conclusions(run_id)[0] for run_id in range(1, 9)} == {"success"}


# ---------------------------------------------------------------- environments


def test_a_job_that_is_held_back_gets_no_runner_and_costs_nothing() -> None:
    world = World()
    job = world.github.queue(1)
    world.github.hold_back(job)
    for _ in range(120):
        world.tick()
    assert row_of(world, job).state is JobState.WAITING
    assert not world.store.hosts.rows
    world.github.approve(job)
    settle(world)
    assert row_of(world, job).state is JobState.COMPLETED


def test_the_runner_of_a_job_that_is_held_back_serves_the_next_one() -> None:
    world = World(ready_hosts=1, hosts_max=1)
    world.until(lambda: bool(world.hosts.daemons), MINUTE)
    job = world.github.queue(1)
    world.until(lambda: bool(world.store.runners.open()), 2 * MINUTE)
    world.github.hold_back(job)
    world.until(lambda: row_of(world, job).state is JobState.WAITING, MINUTE)
    (spare,) = world.store.runners.open()
    other = world.github.queue(2)
    world.until(lambda: is_in_progress(world, other), MINUTE)
    assert row_of(world, other).runner_id == spare.id
    assert len(world.store.runners.rows) == 1
    world.github.approve(job)
    settle(world)


def test_what_the_deliveries_do_not_say_github_is_asked() -> None:
    """`queued, waiting, queued` with equal moments: only the API knows which of them is so now."""
    world = World()
    job = world.github.queue(1)
    for change in (world.github.hold_back, world.github.approve):
        world.github.jobs[job].deployment_at = None
        change(job)
        world.tick()
    assert row_of(world, job).state in {JobState.QUEUED, JobState.PLACED}
    assert len(world.trouble.of("github", "job")) <= 5, "once for each contradiction, and while clocks may differ"
    settle(world)


@pytest.mark.parametrize("wait", [0, 1, 10, 21, 60, 130, 240])
def test_an_approval_of_which_nothing_was_heard_is_found_out(wait: int) -> None:
    world = World()
    job = world.github.queue(1)
    world.github.hold_back(job)
    world.until(lambda: world.store.jobs.get(job) is not None, MINUTE)
    for _ in range(wait):
        world.tick()
    world.github.is_installed = False
    world.github.approve(job)
    world.github.is_installed = True
    approved_at = world.clock.now()
    world.until(lambda: is_in_progress(world, job), 7 * MINUTE)
    assert world.clock.now() - approved_at < 5 * MINUTE
    settle(world)


# ---------------------------------------------------------------- facts that come again


def test_what_is_told_of_a_job_years_after_its_end_changes_nothing() -> None:
    world = World()
    job = world.github.queue(1)
    settle(world)
    before, rows = row_of(world, job), len(world.store.timeline())
    remote = world.github.jobs[job]
    assert remote.runner is not None
    for number, action in enumerate([*JobAction, *JobAction]):
        said = Said(
            action, job, 1, runner_id=remote.runner.github_id, runner_name=remote.runner.name, conclusion="failure"
        )
        world.store.write_deliveries([delivered(said, f"late-{number}", world.clock.now() + timedelta(days=900))])
        world.look_at("job", str(job))
    assert row_of(world, job) == before
    assert len(world.store.timeline()) == rows
    assert not world.store.jobs_with_unseen_facts()


def test_an_end_that_is_sent_again_on_a_rerun_changes_nothing_of_the_earlier_attempt() -> None:
    world = World()
    job = world.github.queue(1)
    world.until(lambda: is_in_progress(world, job), 2 * MINUTE)
    remote = world.github.jobs[job]
    assert remote.runner is not None
    world.github.report(remote.runner.github_id, "failure")
    world.until(lambda: row_of(world, job).end is not None, MINUTE)
    before, said = row_of(world, job), len(world.store.facts_of(job))
    world.github.rerun_failed(1, "octo/hello", 1)
    settle(world)
    assert len(world.store.facts_of(job)) == said + 1
    assert row_of(world, job) == before
    assert [(row.run_attempt, row.state) for row in world.store.jobs.rows.values()] == [
        (1, JobState.COMPLETED),
        (2, JobState.COMPLETED),
    ]


def test_a_job_on_a_runner_of_another_repository_with_the_same_number_is_none_of_ours() -> None:
    """GitHub counts registrations in each repository for itself, and its own runners with them."""
    world = World()
    job = world.github.queue(1)
    world.until(lambda: is_in_progress(world, job), 2 * MINUTE)
    runner = runner_of(world, job)
    for number, (name, repository, installation) in enumerate(
        [
            ("GitHub Actions 5", "octo/hello", 1),
            ("other", "octo/other", 1),
            (runner.id, "hexa/hello", 2),
            (None, "octo/other", 1),
        ]
    ):
        said = Said(
            JobAction.IN_PROGRESS,
            9_000_000 + number,
            77,
            labels=("ubuntu-latest",),
            runner_id=runner.github_id,
            runner_name=name,
            repository=repository,
            installation_id=installation,
        )
        world.store.write_deliveries([delivered(said, f"foreign-{number}", world.clock.now())])
        world.look_at("job", str(said.job_id))
        assert world.store.jobs.rows[JobId(said.job_id)].runner_id is None, said
    assert runner_of(world, job).job_id == job


# ---------------------------------------------------------------- runners that get no job


def test_runners_that_get_no_job_trip_the_breaker_and_the_first_that_does_closes_it() -> None:
    world = World()
    world.github.is_outdated = True
    jobs = [world.github.queue(1), world.github.queue(2)]
    world.until(lambda: happened(world, Happening.BREAKER_TRIPPED) == 1, 15 * MINUTE)
    (tripped,) = told(world, Happening.BREAKER_TRIPPED)
    assert "GitHub gives none to runners of a release older than 30 days" in str(tripped.detail["because"])
    assert tripped.detail["unused"] == UNUSED_MAX
    made = len(world.store.runners.rows)
    assert made <= UNUSED_MAX + 1
    world.until(lambda: not world.store.runners.open(), 5 * MINUTE)
    hour = world.clock.now() + 60 * MINUTE
    world.until(lambda: world.clock.now() >= hour, 61 * MINUTE)
    assert len(world.store.runners.rows) - made <= 4, "a probe now and then, each later than the one before"
    breaker = world.store.breaker(kind_of(row_of(world, jobs[0])))
    assert breaker is not None
    assert breaker.retry_at is not None
    assert {row_of(world, job).state for job in jobs} <= {JobState.QUEUED, JobState.PLACED}
    world.github.is_outdated = False
    world.until(lambda: happened(world, Happening.BREAKER_CLOSED) == 1, RETRY_INTERVAL_MAX + 5 * MINUTE)
    closed_at = world.clock.now()
    world.until(lambda: all(is_in_progress(world, job) or _is_over(world, job) for job in jobs), 3 * MINUTE)
    assert world.clock.now() - closed_at < 3 * MINUTE, "whoever else was held back follows at once"
    settle(world)
    assert not world.store.tripped()


def _is_over(world: World, job: JobId) -> bool:
    return world.github.jobs[job].status == "completed"


def test_while_it_is_open_one_probe_is_made_at_a_time_for_however_many_jobs() -> None:
    world = World()
    world.github.is_outdated = True
    for run_id in range(1, 9):
        world.github.queue(run_id)
    world.until(lambda: happened(world, Happening.BREAKER_TRIPPED) == 1, 15 * MINUTE)
    world.until(lambda: not world.store.runners.open(), 5 * MINUTE)
    before = set(world.store.runners.rows)
    end = world.clock.now() + 3 * RETRY_INTERVAL
    while world.clock.now() < end:
        world.tick()
        open_ones = [one for one in world.store.runners.open() if one.id not in before]
        assert len(open_ones) <= 1
    assert 1 <= len(set(world.store.runners.rows) - before) <= 3


def test_another_package_is_tried_at_once() -> None:
    world = World()
    world.github.is_outdated = True
    job = world.github.queue(1)
    world.until(lambda: happened(world, Happening.BREAKER_TRIPPED) == 1, 15 * MINUTE)
    world.github.is_outdated = False
    built = Package("debian-12", PackageDigest("sha256:02"), RUNNER)
    world.policy = replace(POLICY, packages=(built,))
    world.until(lambda: is_in_progress(world, job), 2 * MINUTE)
    assert runner_of(world, job).package == built.digest


def test_runners_without_a_job_trip_nothing_where_nobody_waits() -> None:
    world = World()
    for run_id in range(1, 6):
        world.github.is_outdated = True
        job = world.github.queue(run_id)
        world.until(lambda: any(one.state is RunnerState.IDLE for one in world.store.runners.open()), 3 * MINUTE)
        world.github.cancel(job)
        world.until(lambda: not world.store.runners.open(), 5 * MINUTE)
    assert len(world.store.runners.rows) == 5
    assert happened(world, Happening.BREAKER_TRIPPED) == 0


# ---------------------------------------------------------------- pools


@pytest.mark.parametrize("seed", range(6))
def test_a_stranger_s_job_on_a_runner_of_a_pool_that_takes_none_is_ended_and_the_other_served_anew(seed: int) -> None:
    world = World(seed, policy=TWO_POOLS)
    world.github.of_forks = {1}
    own = world.github.queue(2)
    world.until(lambda: bool(world.store.runners.open()), 2 * MINUTE)
    fork = world.github.queue(1)
    if seed < 3:
        world.github.chosen = fork
    world.until(lambda: world.github.conclusions(2) == ["success"], 20 * MINUTE)
    world.until(lambda: _is_over(world, fork), 20 * MINUTE)
    row, runner = row_of(world, fork), runner_of(world, fork)
    assert runner_of(world, own).pool in {"default", "strangers"}
    if runner.pool == "default":
        assert runner.end is RunnerEnd.JOB_REFUSED
        assert "a runner of pool default, which takes no such job" in str(row.unserved or _why(world, fork))
    else:
        assert world.github.conclusions(1) == ["success"]
    world.until(lambda: not world.store.runners.open(), 15 * MINUTE)


def _why(world: World, job: JobId) -> str:
    return " ".join(str(event.detail) for event in told(world, Happening.JOB_UNSERVED) if event.job_id == job)
