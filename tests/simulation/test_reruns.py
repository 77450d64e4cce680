"""What becomes of a job that is lost after all: said beside its commit, and run again at most twice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.fakes.github import head_sha
from tests.fakes.world import POLICY, Faults, World
from tests.simulation.test_control_plane import MINUTE, happened, host_of
from tests.simulation.test_labels import row_of
from workers.domain.events import Happening, JobAction
from workers.domain.job import JobEnd, JobState, Rerun
from workers.domain.labels import Again, Wish
from workers.domain.names import JobId
from workers.domain.pools import Pool
from workers.domain.remark import Remark, Verdict

LOCK = 15 * MINUTE


def world_of(rerun: Again = Again.AUTO) -> World:
    world = World(policy=replace(POLICY, pools=(Pool("default", Wish(rerun=rerun)),)))
    world.hosts.job_takes = 30 * MINUTE
    return world


def until_running(world: World, *jobs: JobId) -> None:
    world.until(lambda: all(one in world.store.jobs.rows and is_running(world, one) for one in jobs), 5 * MINUTE)


def is_running(world: World, job: JobId) -> bool:
    return row_of(world, job).state is JobState.RUNNING


def kill_host_of(world: World, job: JobId) -> None:
    world.cloud.kill(host_of(world, job))
    world.until(lambda: row_of(world, job).state is JobState.LOST, 2 * MINUTE)


def beside(world: World, run_id: int = 1) -> list[Remark]:
    return [one for one in world.github.beside.values() if one.head_sha == head_sha(run_id)]


def attempt(world: World, number: int, name: str = "build") -> JobId:
    """Let time pass until a job is in its attempt with this number; return its number there."""

    def found() -> list[JobId]:
        return [one.id for one in world.github.jobs.values() if (one.attempt, one.name) == (number, name)]

    world.until(lambda: bool(found()), LOCK)
    return found()[0]


def test_a_lost_job_is_told_of_beside_its_commit_run_again_twice_and_then_given_up() -> None:
    world = world_of()
    job = world.github.queue(1)
    for number in (1, 2, 3):
        job = attempt(world, number)
        until_running(world, job)
        host = host_of(world, job)
        kill_host_of(world, job)
        world.until(lambda number=number: len(beside(world)) == number, MINUTE)  # type: ignore[misc]  # bound at once
        said = world.github.beside[f"lost-{job}"]
        assert f"`{host}`" in said.summary
        assert f"{row_of(world, job).lost_at:%Y-%m-%d %H:%M}" in said.summary
        if number < 3:
            assert (said.verdict, said.title) == (
                Verdict.NEUTRAL,
                f"Lost with its host, and run again ({number} of 2 times at most)",
            )
        else:
            assert (said.verdict, said.title) == (Verdict.ACTION_REQUIRED, "Lost with its host, and not run again")
            assert "lost and run again 2 times before" in said.summary
    world.until(lambda: not world.store.jobs.open(), LOCK)
    for _ in range(120):
        world.tick()
    assert world.github.attempt_of(1) == 3
    last = row_of(world, job)
    assert (last.state, last.end, last.rerun) == (JobState.COMPLETED, JobEnd.LOST, Rerun.REFUSED)
    assert (happened(world, Happening.RERUN_ASKED), happened(world, Happening.RERUN_REFUSED)) == (2, 1)
    assert len(world.github.remarks) == 3, "each loss was told once"


@pytest.mark.parametrize(
    ("rerun", "deploys", "again"),
    [
        (Again.AUTO, False, True),
        (Again.AUTO, True, False),
        (Again.ALWAYS, True, True),
        (Again.ALWAYS, False, True),
        (Again.NEVER, False, False),
        (Again.NEVER, True, False),
    ],
)
def test_labels_and_deployments_decide_whether_a_job_is_run_again(rerun: Again, *, deploys: bool, again: bool) -> None:
    world = world_of(rerun)
    job = world.github.queue(1)
    until_running(world, job)
    world.store.jobs.rows[job] = replace(row_of(world, job), has_deployment=deploys)
    kill_host_of(world, job)
    world.until(lambda: row_of(world, job).state is JobState.COMPLETED, LOCK)
    for _ in range(60):
        world.tick()
    assert world.github.attempt_of(1) == (2 if again else 1)
    assert row_of(world, job).rerun is (Rerun.ASKED if again else Rerun.REFUSED)
    (said,) = beside(world)
    assert said.verdict is (Verdict.NEUTRAL if again else Verdict.ACTION_REQUIRED)


# ---------------------------------------------------------------- jobs of which no delivery told


def swept_world(*, deploys: bool = False) -> tuple[World, JobId]:
    """Return a world in which a job runs that was only found in a list."""
    world = world_of()
    world.github.missed = set(JobAction)
    job = world.github.queue(1)
    world.github.jobs[job].deployment_at = world.clock.now() if deploys else None
    world.until(lambda: job in world.store.jobs.rows and is_running(world, job), 10 * MINUTE)
    assert row_of(world, job).has_deployment is None
    return world, job


@pytest.mark.parametrize("deploys", [False, True])
def test_a_job_of_which_no_delivery_told_is_run_again_only_if_github_says_that_it_does_not_deploy(
    *, deploys: bool
) -> None:
    world, job = swept_world(deploys=deploys)
    kill_host_of(world, job)
    world.until(lambda: row_of(world, job).state is JobState.COMPLETED, 2 * LOCK)
    assert len(world.trouble.of("github", "holds_deployment")) == 1
    assert world.github.attempt_of(1) == (1 if deploys else 2)
    assert row_of(world, job).has_deployment is deploys
    assert beside(world)[0].verdict is (Verdict.ACTION_REQUIRED if deploys else Verdict.NEUTRAL)


def test_a_job_of_which_github_may_not_say_whether_it_deploys_is_not_run_again() -> None:
    world, job = swept_world()
    world.github.may_remark = False
    kill_host_of(world, job)
    world.until(world.is_quiet, 2 * LOCK)
    assert (row_of(world, job).rerun, world.github.attempt_of(1)) == (Rerun.REFUSED, 1)
    (refused,) = [one for _, one in world.store.timeline() if one.happening is Happening.RERUN_REFUSED]
    assert "GitHub refuses to say" in str(refused.detail["because"])


@pytest.mark.parametrize("is_back", [True, False])
def test_an_outage_of_githubs_is_waited_for_but_not_for_ever(*, is_back: bool) -> None:
    world, job = swept_world()
    world.trouble.away.add("github holds_deployment")
    kill_host_of(world, job)
    end = world.clock.now() + 20 * MINUTE
    world.until(lambda: world.clock.now() > end, 21 * MINUTE, 5)
    assert row_of(world, job).rerun is Rerun.WANTED
    assert beside(world) == [], "nothing is said that may turn out to be wrong"
    if is_back:
        world.trouble.away.clear()
    world.until(lambda: row_of(world, job).state is JobState.COMPLETED, 15 * MINUTE, 5)
    assert world.github.attempt_of(1) == (2 if is_back else 1)
    world.until(lambda: len(beside(world)) == 1, MINUTE)
    assert ("has not answered for 30 minutes" in beside(world)[0].summary) is not is_back


def test_a_sibling_that_failed_by_itself_is_not_run_again() -> None:
    world = world_of()
    lost, failing = world.github.queue(1, name="lost"), world.github.queue(1, name="failing")
    until_running(world, lost, failing)
    remote = world.github.jobs[failing].runner
    assert remote is not None
    world.github.report(remote.github_id, "failure")
    kill_host_of(world, lost)
    attempt(world, 2, "lost")
    for _ in range(60):
        world.tick()
    assert [one.name for one in world.github.jobs.values() if one.attempt == 2] == ["lost"]
    assert row_of(world, failing).end is JobEnd.FAILED


def test_several_lost_jobs_beside_one_that_failed_are_run_again_one_after_the_other() -> None:
    world = world_of()
    names = ("first", "second", "failing")
    jobs = {name: world.github.queue(1, name=name) for name in names}
    until_running(world, *jobs.values())
    remote = world.github.jobs[jobs["failing"]].runner
    assert remote is not None
    world.github.report(remote.github_id, "failure")
    for host in {host_of(world, jobs[name]) for name in ("first", "second")}:
        world.cloud.kill(host)
    world.hosts.job_takes = MINUTE
    world.until(lambda: world.github.attempt_of(1) == 3, 60 * MINUTE)
    world.until(lambda: not world.store.jobs.open(), 10 * MINUTE)
    again = sorted(one.name for one in world.github.jobs.values() if one.attempt > 1)
    assert again == ["first", "second"]


def test_lost_jobs_of_one_name_beside_one_that_failed_are_all_run_again() -> None:
    world = world_of()
    twins = [world.github.queue(1, name="twin", slot=slot) for slot in (0, 1)]
    failing = world.github.queue(1, name="failing")
    until_running(world, *twins, failing)
    remote = world.github.jobs[failing].runner
    assert remote is not None
    world.github.report(remote.github_id, "failure")
    for host in {host_of(world, twin) for twin in twins}:
        world.cloud.kill(host)
    world.hosts.job_takes = MINUTE
    world.until(lambda: world.github.attempt_of(1) == 3, 60 * MINUTE)
    world.until(lambda: not world.store.jobs.open(), 10 * MINUTE)
    again = sorted((one.name, one.slot) for one in world.github.jobs.values() if one.attempt > 1)
    assert again == [("twin", 0), ("twin", 1)]


def test_a_rerun_waits_for_the_sibling_that_still_runs() -> None:
    world = world_of()
    world.hosts.job_takes = 45 * MINUTE
    lost = world.github.queue(1, name="lost")
    until_running(world, lost)
    sibling = world.github.queue(1, ("ubuntu-latest",), name="elsewhere")
    kill_host_of(world, lost)
    end = world.clock.now() + 20 * MINUTE
    world.until(lambda: world.clock.now() > end, 21 * MINUTE)
    assert row_of(world, lost).end is JobEnd.LOST
    assert len(world.trouble.of("github", "rerun_failed")) == 0
    assert len(world.trouble.of("github", "jobs_of")) < 12, "GitHub is not asked at the sweep's pace"
    world.github._complete(world.github.jobs[sibling], "success")
    world.until(lambda: world.github.attempt_of(1) == 2, MINUTE)


def test_what_github_refuses_to_run_again_is_said() -> None:
    world = world_of()
    job = world.github.queue(1)
    until_running(world, job)
    kill_host_of(world, job)
    world.until(lambda: len(beside(world)) == 1, MINUTE)
    assert beside(world)[0].verdict is Verdict.NEUTRAL
    world.github.refuses_reruns = True
    world.until(lambda: row_of(world, job).state is JobState.COMPLETED, LOCK)
    world.until(lambda: beside(world)[0].verdict is Verdict.ACTION_REQUIRED, MINUTE)
    assert "GitHub refuses it" in beside(world)[0].summary
    assert len(beside(world)) == 1


def test_a_merge_queue_is_not_held_up() -> None:
    world = world_of(Again.NEVER)
    job = world.github.queue(1, branch="gh-readonly-queue/main/pr-7-0123")
    unserved = world.github.queue(1, ("spot-runner/cpu=99",), name="big", branch="gh-readonly-queue/main/pr-7-0123")
    until_running(world, job)
    kill_host_of(world, job)
    world.until(lambda: len(beside(world)) == 2, MINUTE)
    assert {one.verdict for one in beside(world)} == {Verdict.NEUTRAL}
    assert "add it again" in world.github.beside[f"lost-{job}"].summary
    assert row_of(world, unserved).unserved is not None


@pytest.mark.parametrize("seed", range(6))
def test_whatever_goes_wrong_each_loss_is_told_and_the_job_is_run_again_once(seed: int) -> None:
    """Doubled looks, dying workers, lost answers: what is said twice stands there once."""
    world = World(seed, Faults(unreachable=0.1, death=0.02, hints=0.2, deliveries=0.1), ready_hosts=1)
    world.hosts.job_takes = 30 * MINUTE
    job = world.github.queue(1)
    until_running(world, job)
    world.cloud.kill(host_of(world, job))
    world.hosts.job_takes = MINUTE
    world.until(lambda: world.github.attempt_of(1) == 2, 60 * MINUTE)
    world.until(world.is_quiet, 60 * MINUTE)
    world.until(lambda: f"lost-{job}" in world.github.beside, 10 * MINUTE)
    assert world.github.attempt_of(1) == 2
    assert world.github.conclusions(1) == ["success"]


# ---------------------------------------------------------------- labels that nobody serves

UNSERVED = ("spot-runner/cpu=99",)


def test_labels_that_nobody_serves_are_answered_once_for_each_commit() -> None:
    world = World()
    for run_id in (1, 2):
        for name in ("one", "two"):
            world.github.queue(run_id, UNSERVED, name=name)
        world.github.queue(run_id, ("SPOT-runner/cpu=99",), name="three")
        world.github.queue(run_id, ("spot-runner/cpu=98",), name="other labels")
    for _ in range(60):
        world.tick()
    assert len(world.github.remarks) == 4
    for run_id in (1, 2):
        said = beside(world, run_id)
        assert {one.verdict for one in said} == {Verdict.ACTION_REQUIRED}
        assert len(said) == 2
        assert all("pool default has no package of cpu=9" in one.summary for one in said)
        assert all("runs-on: spot-runner/cpu=1" in one.summary for one in said)


def test_labels_that_are_not_ours_are_left_alone() -> None:
    world = World()
    job = world.github.queue(1, ("ubuntu-latest",))
    for _ in range(60):
        world.tick()
    assert row_of(world, job).unserved is not None
    assert not world.github.remarks


def test_labels_that_are_served_after_all_are_told_so_in_the_same_place() -> None:
    world = World()
    job = world.github.queue(1, ("spot-runner/image=debian-12",))
    world.until(lambda: job in world.store.jobs.rows, MINUTE)
    row = replace(row_of(world, job), state=JobState.QUEUED, runner_id=None, terms=None, unserved="as it was before")
    world.store.jobs.rows[job] = row
    world.until(lambda: row_of(world, job).terms is not None, MINUTE)
    world.until(lambda: len(beside(world)) == 1, MINUTE)
    assert (beside(world)[0].verdict, beside(world)[0].title) == (Verdict.NEUTRAL, "These labels are served now")


def test_an_app_that_may_not_speak_is_not_asked_for_ever() -> None:
    world = World()
    world.github.queue(1, UNSERVED)
    world.github.may_remark = False
    for _ in range(300):
        world.tick()
    assert len(world.trouble.of("github", "remark")) == 1


@pytest.mark.parametrize("seed", range(4))
def test_an_answer_is_made_in_spite_of_all_that_goes_wrong(seed: int) -> None:
    world = World(seed, Faults(unreachable=0.3, death=0.05, hints=0.5))
    for name in ("one", "two", "three"):
        world.github.queue(1, UNSERVED, name=name)
    world.until(lambda: len(beside(world)) == 1, 10 * MINUTE)
    world.calm_down()
    for _ in range(120):
        world.tick()
    assert len(beside(world)) == 1
    spoken = len(world.github.remarks)
    for _ in range(300):
        world.tick()
    assert len(world.github.remarks) == spoken, "what was said is not said again"
