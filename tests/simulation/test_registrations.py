"""A runner is registered while its microVM is restored, and no registration outlives a restore that failed."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta

import pytest

from tests.fakes.beside import AtOnce
from tests.fakes.github import IDLE_LIMIT
from tests.fakes.trouble import WorkerDied
from tests.fakes.world import World
from workers.domain.breaker import RETRY_INTERVAL, UNUSED_MAX
from workers.domain.errors import LeaseLost, Refused, Throttled, TryLater, Unreachable, Unregistrable
from workers.domain.events import Delivery, Happening, JobAction
from workers.domain.host import Host
from workers.domain.installation import InstallationAction, InstallationFact
from workers.domain.messages import BootOrder
from workers.domain.names import RunnerId
from workers.domain.runner import Runner, RunnerEnd, RunnerState
from workers.planning.demand import kind_of
from workers.ports import Registration
from workers.reconcilers.runners import Runners

MINUTE = timedelta(minutes=1)
PATIENCE_S = 30.0


def a_requested_runner(world: World) -> Runner:
    """Let time pass until a host is to restore a microVM, and stop right before."""
    world.trouble.away.add("host")
    world.github.queue(1)
    world.until(lambda: bool(world.store.runners.open()), 5 * MINUTE)
    world.trouble.away.clear()
    (runner,) = world.store.runners.open()
    assert runner.state is RunnerState.REQUESTED
    world.trouble.log.clear()
    return runner


def looked_at(world: World, runner: Runner, reconciler: Runners | None = None) -> Runner:
    with suppress(TryLater, WorkerDied):
        (reconciler or world.reconcilers.runners).advance(runner.id)
    found = world.store.runners.get(runner.id)
    assert found is not None
    return found


class Meeting:
    """GitHub and a host that wait for each other: who asks one after the other waits for ever."""

    def __init__(self, world: World) -> None:
        self.world, self.barrier = world, threading.Barrier(2)

    def __getattr__(self, name: str) -> object:
        return getattr(self.world.github if hasattr(self.world.github, name) else self.world.hosts, name)

    def register(
        self, installation_id: int, place: str, name: str, labels: Sequence[str], group_id: int
    ) -> Registration:
        self.barrier.wait(PATIENCE_S)
        return self.world.github.register(installation_id, place, name, labels, group_id)

    def boot(self, host: Host, order: BootOrder) -> None:
        self.barrier.wait(PATIENCE_S)
        self.world.hosts.boot(host, order)


def test_a_runner_is_registered_while_it_is_restored() -> None:
    world = World()
    runner = a_requested_runner(world)
    meeting = Meeting(world)
    with ThreadPoolExecutor(1) as beside:
        reconciler = Runners(world.store, meeting, meeting, world.relay, world.hints, world.clock, beside)  # type: ignore[arg-type]  # it passes everything else on
        assert looked_at(world, runner, reconciler).state is RunnerState.IDLE


@pytest.mark.parametrize("error", [Refused("this package is not for this host"), Unreachable("no answer")])
def test_a_registration_for_a_restore_that_fails_is_taken_back(error: Exception) -> None:
    world = World()
    runner = a_requested_runner(world)
    world.trouble.lost_calls["host", "boot"] = error
    after = looked_at(world, runner)
    assert world.trouble.of("github", "register")
    assert not world.github.runners
    assert after.github_id is None
    assert (after.end is RunnerEnd.BOOT_FAILED) == isinstance(error, Refused)
    world.until(world.is_quiet, 10 * MINUTE)
    world.check_nothing_is_left()


def test_a_registration_whose_maker_died_beside_the_restore_is_found_by_its_name() -> None:
    world = World()
    runner = a_requested_runner(world)
    world.trouble.lost_calls["host", "boot"] = WorkerDied()
    looked_at(world, runner)
    assert world.github.runners, "nobody lived to take it back"
    world.github.cancel(next(iter(world.github.jobs)))
    world.until(world.is_quiet, 10 * MINUTE)
    world.check_nothing_is_left()
    assert world.trouble.of("github", "number_of")


class Late(AtOnce):
    """Is so slow that another worker has the row by the time of the answer."""

    def __init__(self, world: World, runner_id: RunnerId) -> None:
        self.world, self.runner_id = world, runner_id

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN002, ANN003, ANN201 - as Executor's
        done = super().submit(fn, *args, **kwargs)
        self.world.clock.move(timedelta(seconds=11))
        with self.world.store.runners.lease(self.runner_id):
            return done


def test_who_has_lost_the_row_takes_the_own_registration_away() -> None:
    world = World()
    runner = a_requested_runner(world)
    late = Late(world, runner.id)
    reconciler = Runners(world.store, world.hosts, world.github, world.relay, world.hints, world.clock, late)
    with pytest.raises(LeaseLost):
        reconciler.advance(runner.id)
    assert world.trouble.of("github", "deregister")
    assert not world.github.runners


def test_a_runner_that_github_cannot_take_yet_is_restored_and_waits() -> None:
    """The microVM is ready when its turn comes, however long that takes; whoever looks is told when."""
    world = World()
    runner = a_requested_runner(world)
    at = world.clock.now() + 4 * MINUTE
    world.trouble.lost_calls["github", "register"] = Throttled("the limit is reached", at=at)
    with pytest.raises(Throttled) as caught:
        world.reconcilers.runners.advance(runner.id)
    assert caught.value.at == at
    found = world.store.runners.get(runner.id)
    assert found is not None
    assert found.state is RunnerState.BOOTING
    assert len(world.trouble.of("host", "boot")) == 1
    world.trouble.away.add("github")
    for _ in range(240):
        world.tick()
    world.trouble.away.clear()
    assert looked_at(world, runner).state is RunnerState.IDLE
    assert len(world.trouble.of("host", "boot")) == 1
    restored = [event for _, event in world.store.timeline() if event.happening is Happening.RUNNER_RESTORED]
    assert len(restored) == 1


# ---------------------------------------------------------------- what GitHub will never register


def test_labels_that_github_does_not_accept_cost_one_restore_and_are_tried_again_at_a_breakers_pace() -> None:
    world = World(ready_hosts=1)
    runner = a_requested_runner(world)
    world.trouble.lost_calls["github", "register"] = Unregistrable("GitHub does not accept the labels")
    assert looked_at(world, runner).end is RunnerEnd.BOOT_FAILED
    (tripped,) = [event for _, event in world.store.timeline() if event.happening is Happening.BREAKER_TRIPPED]
    assert tripped.detail["because"] == "GitHub does not accept the labels"
    for _ in range(int(RETRY_INTERVAL.total_seconds()) - 30):
        world.tick()
    assert len(world.store.runners.rows) == 1, "no other is made for it meanwhile"
    world.until(world.is_quiet, 10 * MINUTE)  # by then GitHub has changed its mind
    assert len(world.store.runners.rows) == 2
    world.check_nothing_is_left()


NO_PERMISSION = "registering it: GitHub answered 403, Resource not accessible by integration"


def test_registrations_that_are_refused_again_and_again_cost_a_few_restores_and_the_job_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(ready_hosts=1)

    def refuse(*_: object) -> Registration:
        raise Refused(NO_PERMISSION)

    with monkeypatch.context() as refusing:
        refusing.setattr(world.github, "register", refuse)
        job = world.github.queue(1)
        for _ in range(8 * 60):
            world.tick()
    assert len(world.store.runners.rows) == UNUSED_MAX
    row = world.store.jobs.get(job)
    assert row is not None
    assert str(row.deferred).startswith(f"{NO_PERMISSION}; the next runner is tried at ")
    world.until(world.is_quiet, 20 * MINUTE)  # by then an owner has given the permission
    assert len(world.store.runners.rows) == UNUSED_MAX + 1
    world.check_nothing_is_left()


def test_one_refusal_that_the_next_registration_does_not_meet_holds_nothing_up() -> None:
    """A name that somebody else has taken: the next runner has another one."""
    world = World(ready_hosts=1)
    runner = a_requested_runner(world)
    world.trouble.lost_calls["github", "register"] = Refused("a runner of that name is there")
    assert looked_at(world, runner).end is RunnerEnd.BOOT_FAILED
    world.until(world.is_quiet, 5 * MINUTE)
    assert len(world.store.runners.rows) == 2


def test_a_refusal_by_an_installation_that_is_gone_says_nothing_of_another_app_s_runners() -> None:
    world = World(ready_hosts=1)
    runner = a_requested_runner(world)
    now = world.clock.now()
    fact = InstallationFact("gone", InstallationAction.DELETED, now, 1, "octo", now, is_suspended=False, takes_all=True)
    world.store.write_deliveries([Delivery("gone", "installation", "deleted", now, b"", installation=fact)])
    assert looked_at(world, runner).end is RunnerEnd.BOOT_FAILED
    assert not world.store.breaker(kind_of(runner))


# ---------------------------------------------------------------- GitHub removes what has done its one job


@pytest.mark.parametrize("seed", range(3))
def test_a_registration_whose_job_is_over_is_not_deleted_since_github_does_so_itself(seed: int) -> None:
    world = World(seed)
    for run_id in range(1, 5):
        world.github.queue(run_id)
    world.until(world.is_quiet, 30 * MINUTE)
    world.check_nothing_is_left()
    ended = [event.detail["end"] for _, event in world.store.timeline() if event.happening is Happening.RUNNER_GONE]
    used = ended.count(RunnerEnd.JOB_COMPLETED)
    assert used == 4
    assert len(world.trouble.of("github", "deregister")) == len(ended) - used


@pytest.mark.parametrize("wait", range(0, 15, 4))
def test_a_runner_that_waits_in_vain_is_put_away_before_github_removes_it(wait: int) -> None:
    """GitHub does so after two to six minutes, and this one after two."""
    world = World(ready_hosts=1)
    world.github.is_outdated = True
    for _ in range(wait):
        world.tick()
    world.github.queue(1)
    world.until(lambda: bool(world.github.runners), 5 * MINUTE)
    (remote,) = world.github.runners.values()
    world.until(lambda: remote.github_id not in world.github.runners, 5 * MINUTE)
    assert remote.connected_at is not None
    assert world.clock.now() - remote.connected_at < IDLE_LIMIT
    first = next(iter(world.store.runners.rows.values()))
    assert (first.id, first.end) == (remote.name, RunnerEnd.UNUSED)


def test_where_github_does_not_do_so_the_registration_is_taken_away_soon() -> None:
    world = World()
    world.github.keeps_runners = True
    job = world.github.queue(1)
    world.until(lambda: world.github.jobs[job].status == "in_progress", 10 * MINUTE)
    world.github.cancel(job)
    world.until(world.is_quiet, 10 * MINUTE)
    assert len(world.github.runners) == 1
    assert not world.trouble.of("github", "deregister")
    world.until(lambda: not world.github.runners, 3 * MINUTE)
    assert len(world.trouble.of("github", "deregister")) == 1


def test_a_program_that_has_ended_before_github_says_so_costs_no_question_and_no_deletion() -> None:
    world = World()
    world.github.missed = {JobAction.COMPLETED}
    world.github.queue(1)
    world.until(lambda: world.github.conclusions(1) == ["success"], 10 * MINUTE)
    world.until(lambda: not world.store.runners.open(), MINUTE)
    assert not world.trouble.of("github", "number_of")
    assert not world.trouble.of("github", "deregister")


def test_a_program_that_ended_without_its_job_leaves_a_registration_and_the_reaper_finds_it() -> None:
    world = World()
    world.github.missed = {JobAction.COMPLETED}
    world.github.keeps_runners = True
    world.github.queue(1)
    world.until(lambda: world.github.conclusions(1) == ["success"], 10 * MINUTE)
    world.until(lambda: not world.store.runners.open(), MINUTE)
    assert len(world.github.runners) == 1
    world.until(lambda: not world.github.runners, 3 * MINUTE)


def test_a_registration_that_we_may_not_take_away_any_more_is_left_and_its_runner_put_away() -> None:
    """Our App has lost the permission."""
    world = World()
    runner = a_requested_runner(world)
    assert looked_at(world, runner).state is RunnerState.IDLE
    world.github.missed = {JobAction.COMPLETED}
    world.github.cancel(next(iter(world.github.jobs)))  # so it waits in vain
    world.github.has_permissions = False
    world.until(lambda: not world.store.runners.open(), 10 * MINUTE)
    told = [event.happening for _, event in world.store.timeline() if event.runner_id == runner.id]
    assert told.count(Happening.REGISTRATION_LEFT) == 1
    assert world.github.runners, "GitHub drops it once it has heard nothing of it for a day"
