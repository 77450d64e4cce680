"""A job of which no delivery ever told, and that a runner of ours has run, is found once it is over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest

from tests.fakes.github_lists import HOME, FakeLists
from tests.fakes.store import MemoryStore
from tests.fakes.world import World
from tests.simulation.test_control_plane import MINUTE
from workers.domain.breaker import UNUSED_MAX
from workers.domain.errors import Unreachable
from workers.domain.events import SWEPT, Delivery, JobAction
from workers.domain.job import JobEnd, JobState
from workers.domain.listed import Scope
from workers.domain.names import JobId, RunnerId
from workers.domain.runner import RunnerEnd
from workers.reconcilers.catch_up import SWEEP_INTERVAL, SWEEPS_PER_RECORD, UNTOLD_LIMIT, CatchUp


def told_nobody(world: World) -> tuple[JobId, JobId]:
    """Let a runner that was made for one job run another, of which nobody hears; return both."""
    world.github.queue(1)
    world.until(world.is_quiet, 10 * MINUTE)  # so everything was listed once, as it is after each start
    told = world.github.queue(2)
    world.tick()
    world.github.missed = set(JobAction)
    untold = world.github.queue(3)
    world.github.chosen = untold
    world.until(lambda: world.github.jobs[untold].runner is not None, 2 * MINUTE)
    world.until(lambda: world.github.jobs[untold].conclusion is not None, 5 * MINUTE)
    assert world.store.jobs.get(untold) is None
    world.github.missed = set()
    return told, untold


def test_it_is_found_and_its_runner_is_known_to_have_run_it() -> None:
    world = World(ready_hosts=1)
    told, untold = told_nobody(world)
    world.until(lambda: world.store.jobs.get(untold) is not None and world.is_quiet(), 10 * MINUTE)
    row = world.store.jobs.get(untold)
    assert row is not None
    assert (row.state, row.end, row.conclusion) == (JobState.COMPLETED, JobEnd.SUCCEEDED, "success")
    assert row.runner_id is not None
    runner = world.store.runners.get(row.runner_id)
    assert runner is not None
    assert (runner.job_id, runner.end) == (untold, RunnerEnd.JOB_COMPLETED)
    assert world.github.jobs[told].conclusion == "success", "it got a runner of its own"
    world.check_nothing_is_left()


def test_it_is_looked_for_once_and_no_more_after_it_was_found() -> None:
    world = World(ready_hosts=1)
    world.lists.requests_left = 0.49  # so nothing is asked for the record
    _, untold = told_nobody(world)
    world.until(lambda: world.store.jobs.get(untold) is not None, 10 * MINUTE)
    world.start_workers()
    for _ in range(int(UNTOLD_LIMIT / timedelta(minutes=1))):
        world.tick(60)
    assert len(world.trouble.of("github", "finished_runs")) == 1


def cancelled_in_silence(world: World, *labels: str) -> JobId:
    """Let a job be cancelled before anybody runs it, of which nobody hears a word; return it."""
    world.github.queue(1)
    world.until(world.is_quiet, 10 * MINUTE)
    world.github.missed = set(JobAction)
    job = world.github.queue(2, labels)
    world.github.cancel(job)
    world.github.missed = set()
    return job


def test_a_job_that_nobody_ran_and_nobody_heard_of_is_on_record_within_the_hour() -> None:
    world = World(ready_hosts=1)
    job = cancelled_in_silence(world, "spot-runner")
    world.until(lambda: world.store.jobs.get(job) is not None, 60 * MINUTE)
    world.until(world.is_quiet, MINUTE)
    row = world.store.jobs.get(job)
    assert row is not None
    assert (row.state, row.conclusion) == (JobState.CANCELLED, "cancelled")
    asked = [one.about for one in world.trouble.of("github", "all_jobs")].count("2")
    for _ in range(2 * 60 * 4):
        world.tick(15)
    assert [one.about for one in world.trouble.of("github", "all_jobs")].count("2") == asked, "once is enough"


def test_what_waited_for_somebody_else_is_not_on_record() -> None:
    world = World(ready_hosts=1)
    job = cancelled_in_silence(world, "nobodys")
    for _ in range(60 * 4):
        world.tick(15)
    assert "2" in [one.about for one in world.trouble.of("github", "all_jobs")]
    assert not world.store.facts_of(job)


def test_the_record_waits_until_github_answers_plenty() -> None:
    world = World(ready_hosts=1)
    job = cancelled_in_silence(world, "spot-runner")
    world.lists.requests_left = 0.49
    for _ in range(45 * 4):
        world.tick(15)
    assert not world.store.facts_of(job)
    world.lists.requests_left = 1.0
    world.until(lambda: world.store.jobs.get(job) is not None, 45 * MINUTE)


class Dwindling(FakeLists):
    """The first question for the record uses up what is plenty."""

    def finished_runs(self, scope: Scope, since: datetime) -> Mapping[int, datetime]:
        if not self.github.trouble.of("github", "finished_runs"):
            self.requests_left = 0.3
        return super().finished_runs(scope, since)


def test_what_was_put_off_is_asked_for_the_next_time() -> None:
    world = World()
    job = world.github.queue(1)
    world.receive()
    world.github.missed = set(JobAction)
    untold = world.github.queue(2)
    world.github.cancel(job)
    world.github.cancel(untold)
    world.clock.move(MINUTE)
    lists = Dwindling(world.github)
    catch_up = CatchUp(world.store, lists, world.hints, world.clock)
    catch_up.look()
    assert len(world.trouble.of("github", "finished_runs")) == 1
    assert not world.store.facts_of(untold)
    lists.requests_left = 1.0
    world.clock.move(SWEEP_INTERVAL * SWEEPS_PER_RECORD)
    catch_up.look()
    assert [fact.action for fact in world.store.facts_of(untold)] == [JobAction.COMPLETED]


def test_a_run_that_has_ended_is_asked_about_once_however_many_runners_are_looked_for() -> None:
    """A storm of runners that got no job must not use up the hour's requests."""
    world = World(ready_hosts=1)
    _, untold = told_nobody(world)
    world.until(lambda: world.store.jobs.get(untold) is not None and world.is_quiet(), 10 * MINUTE)
    row = world.store.jobs.get(untold)
    assert row is not None
    assert row.runner_id is not None
    runner = world.store.runners.get(row.runner_id)
    assert runner is not None
    asked, looked = (len(world.trouble.of("github", verb)) for verb in ("all_jobs", "finished_runs"))
    for number in range(3):
        other = replace(runner, id=RunnerId(f"spot-runner-late-{number}"), end=RunnerEnd.UNTOLD)
        assert world.store.runners.add(other)
        for _ in range(20):
            world.tick(15)
    assert len(world.trouble.of("github", "finished_runs")) == looked + 3
    again = [one.about for one in world.trouble.of("github", "all_jobs")][asked:]
    assert again == ["2"], "the first search was over before it came to that one"


def test_a_job_is_found_with_its_run_though_its_runners_end_is_heard_of_later() -> None:
    """So nothing is lost of a run that is not asked about again."""
    world = World(ready_hosts=1)
    _, untold = told_nobody(world)
    assert not world.store.facts_of(untold)
    CatchUp(world.store, world.lists, world.hints, world.clock).ask_about(HOME, 3)
    assert [fact.action for fact in world.store.facts_of(untold)] == [JobAction.COMPLETED]


class BalkingStore(MemoryStore):
    """It cannot be reached when what was found is written down for the first times."""

    refusals = 3

    def write_deliveries(self, rows: Sequence[Delivery]) -> None:
        if self.refusals and any(row.guid.startswith(SWEPT) for row in rows):
            self.refusals -= 1
            raise Unreachable("the store does not answer")
        super().write_deliveries(rows)


class BalkingWorld(World):
    def make_store(self) -> MemoryStore:
        return BalkingStore(self.clock)


def test_it_is_looked_for_until_it_is_written_down() -> None:
    world = BalkingWorld(ready_hosts=1)
    _, untold = told_nobody(world)
    world.until(lambda: world.store.jobs.get(untold) is not None, 10 * MINUTE)
    assert isinstance(world.store, BalkingStore)
    assert world.store.refusals == 0


@pytest.mark.parametrize("is_ours", [True, False])
def test_a_job_that_somebody_else_has_run_is_none_of_our_business(*, is_ours: bool) -> None:
    world = World(ready_hosts=1)
    _, untold = told_nobody(world)
    if not is_ours:
        runner = world.github.jobs[untold].runner
        assert runner is not None
        runner.name = "somebody's"
    for _ in range(20):
        world.tick(15)
    assert (world.store.jobs.get(untold) is not None) is is_ours


def test_runners_whose_programs_end_without_a_job_though_one_waits_are_not_made_for_ever() -> None:
    world = World(ready_hosts=1)
    world.github.is_outdated = True
    job = world.github.queue(1)
    for _ in range(8 * 60):
        world.tick()
        world.github.runners.clear()  # so that each program is turned away, and ends
    rows = world.store.runners.rows.values()
    assert [row.end for row in rows] == [RunnerEnd.UNTOLD] * UNUSED_MAX
    waiting = world.store.jobs.get(job)
    assert waiting is not None
    assert "the next runner is tried at " in str(waiting.deferred)


@dataclass
class NotedLists(FakeLists):
    """Remembers whether runs were asked for as where nothing was heard of for long."""

    asked: list[bool] = field(default_factory=list)

    def unfinished_runs(self, scope: Scope, *, is_quiet: bool = False) -> Sequence[int]:
        self.asked.append(is_quiet)
        return super().unfinished_runs(scope, is_quiet=is_quiet)


def test_every_kind_of_unfinished_run_is_asked_for_where_jobs_come_and_fewer_elsewhere() -> None:
    """Each kind is a request for each repository, and after a start all of them are asked."""
    world = World(ready_hosts=1)
    world.lists = lists = NotedLists(world.github)
    world.start_workers()
    world.until(lambda: bool(lists.asked), MINUTE)
    world.github.queue(1)
    world.until(lambda: len(lists.asked) == 3, 2 * SWEEP_INTERVAL + 2 * MINUTE)
    assert lists.asked == [True, False, False]
