"""What nobody told us is found in time: deliveries that failed or were lost, and what is left over on any side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

import pytest

from tests.fakes.github_lists import APP, HOME, FakeLists
from tests.fakes.guests import Guest
from tests.fakes.hosts import Vm
from tests.fakes.world import MARK, World
from workers.domain.errors import Unreachable
from workers.domain.events import Happening, JobAction
from workers.domain.job import JobEnd, JobState
from workers.domain.listed import DeliveryPage, Scope
from workers.domain.migration import Migration, MigrationPhase, Said
from workers.domain.names import HostId, JobId, RunnerId, runner_id
from workers.domain.runner import Runner, RunnerEnd, RunnerState
from workers.reconcilers.catch_up import CatchUp
from workers.reconcilers.recovery import Recovery
from workers.reconcilers.replay import Replay
from workers.reconcilers.survey import Ours, Survey

MINUTE = timedelta(minutes=1)
SERVED = {JobState.PLACED, JobState.RUNNING}


def state(world: World, job: JobId) -> JobState | None:
    row = world.store.jobs.get(job)
    return row.state if row else None


def ready_world() -> World:
    """A world whose workers have been up for long: nothing is found only because they have just begun."""
    world = World(ready_hosts=1)
    world.github.queue(1)
    world.until(lambda: world.github.conclusions(1) == ["success"] and world.is_quiet(), 10 * MINUTE)
    return world


def reaped(world: World) -> list[str]:
    return [str(event.detail["what"]) for _, event in world.store.timeline() if event.happening is Happening.REAPED]


def running(world: World) -> tuple[JobId, Runner]:
    """Let a job run, and return it with its runner."""
    world.hosts.job_takes = 20 * MINUTE
    job = world.github.queue(2)
    world.until(lambda: state(world, job) is JobState.RUNNING, 2 * MINUTE)
    row = world.store.jobs.get(job)
    assert row is not None
    assert row.runner_id is not None
    runner = world.store.runners.get(row.runner_id)
    assert runner is not None
    return job, runner


# ---------------------------------------------------------------- deliveries


@pytest.mark.parametrize("wait", range(0, 120, 17))
def test_a_failed_delivery_is_served_within_two_minutes(wait: int) -> None:
    world = ready_world()
    for _ in range(wait):
        world.tick()
    world.github.post.is_receiver_down = True
    job = world.github.queue(2)
    world.tick()
    world.github.post.is_receiver_down = False
    world.lists.requests_left = 0.0  # so that the sweep does not find it first
    world.until(lambda: state(world, job) in SERVED, 2 * MINUTE)
    assert len(world.trouble.of("github", "redeliver")) == 1, "once, since the store has it then"


def test_while_the_receiver_is_down_what_failed_is_asked_for_less_and_less_often() -> None:
    world = ready_world()
    world.github.post.is_receiver_down = True
    world.lists.requests_left = 0.0
    job = world.github.queue(2)
    for _ in range(45 * 60):
        world.tick()
    asked = len(world.trouble.of("github", "redeliver"))
    assert 4 < asked < 12
    world.github.post.is_receiver_down = False
    world.until(lambda: state(world, job) in SERVED, 11 * MINUTE)


class OneAppInTrouble(FakeLists):
    """GitHub answers nothing about the other App."""

    def deliveries(self, app: int, cursor: str | None = None) -> DeliveryPage:
        if app != APP:
            raise Unreachable("GitHub did not answer")
        return super().deliveries(app, cursor)

    def repositories(self, app: int) -> Sequence[Scope]:
        if app != APP:
            raise Unreachable("GitHub did not answer")
        return super().repositories(app)


@pytest.mark.parametrize("apps", [(APP, APP + 1), (APP + 1, APP)])
def test_an_app_in_trouble_holds_nothing_of_another_ones_up(apps: tuple[int, int]) -> None:
    world = ready_world()
    replay = Replay(world.store, OneAppInTrouble(world.github, apps=apps), world.clock)
    for run in (2, 3):  # the second one fails when the trouble has been known for a while
        world.github.post.is_receiver_down = True
        job = world.github.queue(run)
        assert not world.github.arrived()
        world.github.post.is_receiver_down = False
        world.clock.move(MINUTE)
        with pytest.raises(Unreachable):
            replay.look()
        world.receive()
        assert world.store.facts_of(job)


def test_an_app_in_trouble_does_not_hide_what_another_one_was_not_told_while_we_were_down() -> None:
    world = World()
    world.github.missed = {JobAction.QUEUED}
    job = world.github.queue(1)
    lists = OneAppInTrouble(world.github, apps=(APP - 1, APP))
    catch_up = CatchUp(world.store, lists, world.hints, world.clock)
    for _ in range(2):
        catch_up.look()
        world.clock.move(MINUTE)
    assert [one.job_id for one in world.store.facts_of(job)] == [job]
    assert len(world.trouble.of("github", "repositories")) == 1, "who has answered is not asked again"


@pytest.mark.parametrize("wait", range(0, 300, 47))
def test_a_lost_queued_delivery_is_served_within_five_minutes(wait: int) -> None:
    world = ready_world()
    for _ in range(wait):
        world.tick()
    world.github.missed = {JobAction.QUEUED}
    job = world.github.queue(2)
    world.until(lambda: state(world, job) in SERVED, 5 * MINUTE)
    assert not world.trouble.of("github", "redeliver")


def test_a_lost_completed_delivery_ends_the_job_within_five_minutes() -> None:
    world = ready_world()
    world.github.missed = {JobAction.COMPLETED}
    job, runner = running(world)
    assert runner.github_id is not None
    world.github.report(runner.github_id, "success")
    world.until(lambda: state(world, job) is JobState.COMPLETED, 5 * MINUTE)
    row = world.store.jobs.get(job)
    assert row is not None
    assert row.end is JobEnd.SUCCEEDED


class OnlyTheSweep(Recovery):
    """Nothing is sent again, and nothing reaped."""

    def due(self) -> Iterator[tuple[str, str]]:
        return ((kind, name) for kind, name in super().due() if name == "catch_up")


class SweptWorld(World):
    """Who does not hear of something finds it by the sweep of the repositories, or never: no job is polled either."""

    poll_interval = timedelta(days=1)

    def _recovery(self) -> Recovery:
        whole = super()._recovery()
        return OnlyTheSweep(whole.installed, whole.replay, whole.catch_up, whole.reaper, whole.clock)


@pytest.mark.parametrize("wait", range(0, 300, 47))
def test_the_sweep_alone_finds_a_lost_completed_delivery_within_five_minutes(wait: int) -> None:
    world = SweptWorld(ready_hosts=1)
    world.hosts.job_takes = 20 * MINUTE
    job = world.github.queue(1)
    world.until(lambda: state(world, job) is JobState.RUNNING, 2 * MINUTE)
    for _ in range(wait):
        world.tick()
    world.github.missed = {JobAction.COMPLETED}
    remote = world.github.jobs[job].runner
    assert remote is not None
    world.github.report(remote.github_id, "success")
    world.until(lambda: state(world, job) is JobState.COMPLETED, 5 * MINUTE)
    row = world.store.jobs.get(job)
    assert row is not None
    assert row.end is JobEnd.SUCCEEDED
    assert [one.delivery for one in world.store.facts_of(job) if one.action is JobAction.COMPLETED] == [
        f"sweep-{job}-completed"
    ]
    assert not world.trouble.of("github", "job")
    assert not world.trouble.of("github", "redeliver")


def test_what_happened_while_we_were_down_is_known_at_once_after_a_start() -> None:
    world = World()
    world.github.missed = {JobAction.QUEUED}
    lost = world.github.queue(1)
    world.github.missed = set()
    world.github.post.is_receiver_down = True
    failed = world.github.queue(2)
    for _ in range(5):  # nobody works, and the receiver is down
        world.clock.move(MINUTE)
        world.github.pass_time()
        assert not world.github.arrived()
    world.github.post.is_receiver_down = False
    for kind, key in list(world.reconcilers.recovery.due()):  # type: ignore[union-attr]  # this world has one
        world.look_at(kind, key)
    world.receive()
    assert {one.job_id for job in (lost, failed) for one in world.store.facts_of(job)} == {lost, failed}


def test_without_a_word_of_github_every_job_is_run() -> None:
    world = World()
    world.github.missed = set(JobAction)
    for run in (1, 2, 3):
        world.github.queue(run)
    world.until(world.is_quiet, 40 * MINUTE)
    assert {conclusion for run in (1, 2, 3) for conclusion in world.github.conclusions(run)} == {"success"}


def test_the_sweep_slows_down_with_what_is_left_of_the_hour() -> None:
    counts = []
    for left in (1.0, 0.2, 0.05):
        world = World()
        world.lists.requests_left = left
        world.github.queue(1, ("nobodys",))
        for _ in range(40 * 60):
            world.tick()
        counts.append(len(world.trouble.of("github", "unfinished_runs")))
    assert 9 <= counts[0] <= 11
    assert 4 <= counts[1] <= 5
    assert counts[2] == 1


# ---------------------------------------------------------------- the reaper


@pytest.mark.parametrize("wait", range(0, 60, 13))
def test_a_microvm_that_nobody_stands_for_is_gone_within_a_minute_of_its_hosts_word(wait: int) -> None:
    world = ready_world()
    for _ in range(wait):
        world.tick()
    (host_id,) = world.cloud.alive()
    name = RunnerId("spot-runner-of-nobody")
    world.hosts.daemons[host_id].vms[name] = Vm(Guest(name, 5 * MINUTE), 1)
    world.until(lambda: not world.hosts.kept(), MINUTE)
    assert reaped(world) == ["a microVM that nobody stands for was stopped"]


def test_the_microvm_of_a_runner_that_github_calls_busy_is_left_alone() -> None:
    world = ready_world()
    _, runner = running(world)
    assert runner.host_id is not None
    del world.store.runners.rows[runner.id]  # as if a backup had been put in its place
    for _ in range(5 * 60):
        world.tick()
    assert world.hosts.kept() == [runner.id]
    assert runner.github_id in world.github.runners
    assert reaped(world) == []


def test_where_github_says_for_a_moment_that_there_is_no_such_place_nothing_is_ended() -> None:
    world = ready_world()
    job, runner = running(world)
    del world.store.runners.rows[runner.id]
    world.lists.hidden.add(HOME)
    for _ in range(9 * 60):
        world.tick()
    assert world.hosts.kept() == [runner.id]
    world.until(lambda: runner.id not in world.hosts.kept(), 3 * MINUTE)
    world.until(lambda: world.github.attempt_of(2) == 2, 15 * MINUTE)
    assert world.github.jobs[job].conclusion == "failure", "it was ended in the middle of its job, which is run again"


def test_404s_between_which_github_has_answered_do_not_add_up() -> None:
    world = World()
    survey = Survey(world.store, world.lists, world.clock, Ours(""))
    for _ in range(3):
        world.lists.hidden.add(HOME)
        for _ in range(9):
            world.clock.move(MINUTE)
            assert survey.sides(world.clock.now(), [HOME]).unheard == {HOME}
        world.lists.hidden.clear()
        world.clock.move(MINUTE)
        assert survey.sides(world.clock.now(), [HOME]).listed == {HOME: ()}
    world.lists.hidden.add(HOME)
    assert survey.sides(world.clock.now(), [HOME]).unheard == {HOME}
    world.clock.move(24 * 60 * MINUTE)
    assert survey.sides(world.clock.now(), [HOME]).unheard == {HOME}, "two in a day are none one after the other"


def test_a_registration_that_nobody_stands_for_is_taken_away_and_another_deployments_is_not() -> None:
    world = ready_world()
    ours, theirs = runner_id(f"{MARK}feedbeef00"), runner_id("ffffff-feedbeef00")
    for name in (ours, theirs):
        world.github.register(1, HOME.repository, name, ("spot-runner", "never"))
    world.until(lambda: len(world.github.runners) == 1, 3 * MINUTE)
    for _ in range(5 * 60):
        world.tick()
    assert [one.name for one in world.github.runners.values()] == [theirs]
    assert reaped(world) == ["a registration that nobody stands for was taken away"]


def test_the_registration_of_a_runner_that_is_over_is_taken_away() -> None:
    """As when the answer to its deregistration was lost together with the worker."""
    world = ready_world()
    (over,) = [row.id for row in world.store.runners.rows.values()]
    world.github.register(1, HOME.repository, over, ("spot-runner", "never"))
    world.until(lambda: not world.github.runners, 3 * MINUTE)


def test_an_idle_runner_whose_registration_github_has_removed_is_put_away() -> None:
    world = ready_world()
    job = world.github.queue(2)
    world.github.jobs[job].status = "paused"  # so that nobody takes it
    world.until(lambda: any(one.state is RunnerState.IDLE for one in world.store.runners.open()), MINUTE)
    (runner,) = world.store.runners.open()
    assert runner.github_id is not None
    assert runner.host_id is not None
    world.hosts.daemons[runner.host_id].vms[runner.id].is_running = False  # so that it does not notice by itself
    del world.github.runners[runner.github_id]
    world.until(lambda: "its registration is gone" in reaped(world), 2 * MINUTE)
    world.until(lambda: runner.id not in {one.id for one in world.store.runners.open()}, MINUTE)


def test_a_row_whose_microvm_vanished_is_ended_and_its_job_run_again() -> None:
    world = ready_world()
    job, runner = running(world)
    assert runner.host_id is not None
    del world.hosts.daemons[runner.host_id].vms[runner.id]
    world.until(lambda: state(world, job) is JobState.LOST, MINUTE)
    row = world.store.runners.get(runner.id)
    assert row is not None
    assert (row.end, row.state) == (RunnerEnd.VANISHED, RunnerState.STOPPING)
    assert runner.github_id in world.github.runners, "GitHub calls it busy until the lock of its job has expired"
    world.hosts.job_takes = MINUTE
    world.until(lambda: world.github.attempt_of(2) == 2, 15 * MINUTE)
    world.until(world.is_quiet, 10 * MINUTE)
    assert world.github.conclusions(2) == ["success"]


def test_a_guest_that_dies_between_the_commit_and_its_first_moment_at_the_target_is_run_again() -> None:
    """The target wipes what is left of it and names it no more, and its migration never hears that it runs."""
    world = ready_world()
    job, runner = running(world)
    assert runner.host_id is not None
    world.cloud.take_back(runner.host_id, 2 * MINUTE)
    world.hosts.lost_words.add(Said.RUNNING)

    def committed() -> list[Migration]:
        return [row for row in world.store.migrations.rows.values() if row.phase is MigrationPhase.COMMITTED]

    world.until(lambda: bool(committed()), 2 * MINUTE)
    (row,) = committed()
    assert row.target_id is not None
    target = world.hosts.daemons[row.target_id]
    target.receiving.clear()
    target.vms.pop(runner.id, None)
    world.hosts.lost_words.clear()
    world.until(lambda: state(world, job) is JobState.LOST, 2 * MINUTE)
    world.hosts.job_takes = MINUTE
    world.until(lambda: world.github.attempt_of(2) == 2, 15 * MINUTE)
    world.until(world.is_quiet, 10 * MINUTE)
    assert world.github.conclusions(2) == ["success"]


def test_a_host_that_nobody_hears_loses_no_runner_to_the_reaper() -> None:
    world = World(ready_hosts=1)
    world.until(lambda: len(world.cloud.alive()) == 1 and not world.store.runners.open(), MINUTE)
    for _ in range(30):
        world.tick()
    world.hosts.job_takes = 5 * MINUTE
    job = world.github.queue(1)
    world.until(lambda: bool(world.trouble.of("host", "boot")), MINUTE)
    world.hosts.is_listener_down = True  # so the host's last word is older than the microVM
    for _ in range(3 * 60):
        world.tick()
    assert reaped(world) == []
    assert state(world, job) is JobState.RUNNING


def test_nothing_is_reaped_where_all_is_well() -> None:
    world = World(ready_hosts=2)
    world.hosts.job_takes = 3 * MINUTE
    for run in range(1, 6):
        world.github.queue(run)
        for _ in range(40):
            world.tick()
    source = next(HostId(one) for one in world.cloud.alive())
    world.cloud.take_back(source, 2 * MINUTE)
    world.until(world.is_quiet, 20 * MINUTE)
    world.until(world.is_given_back, 60 * MINUTE) if not world.cloud.alive() else None
    assert reaped(world) == []
