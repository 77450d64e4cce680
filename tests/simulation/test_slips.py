"""Refusals that GitHub takes back (401 and 404): nothing is given up because of one, nor asked for ever."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.fakes.world import World
from tests.simulation.test_control_plane import MINUTE
from tests.simulation.test_labels import row_of
from tests.simulation.test_reruns import LOCK, UNSERVED, beside, kill_host_of, swept_world, until_running, world_of
from workers.domain.errors import NotThere, Refused, Unrecognized
from workers.domain.job import JobEnd, JobState, Rerun
from workers.domain.remark import Verdict


def passes_after(world: World, span: timedelta) -> None:
    end = world.clock.now() + span
    world.until(lambda: world.clock.now() > end, span + MINUTE, 5)


@pytest.mark.parametrize("passes", [True, False])
@pytest.mark.parametrize("error", [Unrecognized("401, Bad credentials"), NotThere("404, Not Found")])
@pytest.mark.parametrize("verb", ["jobs_of", "rerun_failed", "rerun_job"])
def test_a_refusal_that_github_may_take_back_is_waited_for_but_not_for_ever(
    verb: str, error: Refused, *, passes: bool
) -> None:
    world = world_of()
    job, sibling = world.github.queue(1), world.github.queue(1, name="failing")
    until_running(world, job, sibling)
    remote = world.github.jobs[sibling].runner
    assert remote is not None
    # Beside one that failed by itself it is asked for alone.
    world.github.report(remote.github_id, "failure" if verb == "rerun_job" else "success")
    kill_host_of(world, job)
    world.trouble.refused["github", verb] = error
    world.until(lambda: bool(world.trouble.of("github", verb)), LOCK)
    passes_after(world, 25 * MINUTE)
    assert (row_of(world, job).rerun, beside(world)[0].verdict) == (Rerun.WANTED, Verdict.NEUTRAL)
    if passes:
        world.trouble.refused.clear()
    world.until(lambda: row_of(world, job).rerun is not Rerun.WANTED, 10 * MINUTE, 5)
    assert world.github.attempt_of(1) == (2 if passes else 1)
    if not passes:
        world.until(lambda: beside(world)[0].verdict is Verdict.ACTION_REQUIRED, MINUTE)
        assert f"GitHub refuses it: {error}" in beside(world)[0].summary


@pytest.mark.parametrize("passes", [True, False])
def test_a_run_of_which_github_lists_no_jobs_is_waited_for_but_not_for_ever(*, passes: bool) -> None:
    """Without the list nobody can say whether its lost jobs may be run again together."""
    world = world_of()
    job = world.github.queue(1)
    until_running(world, job)
    kill_host_of(world, job)
    world.github.hidden.add(1)
    world.until(lambda: row_of(world, job).end is JobEnd.LOST, LOCK)
    passes_after(world, 15 * MINUTE)
    assert row_of(world, job).rerun is Rerun.WANTED
    if passes:
        world.github.hidden.clear()
    world.until(lambda: row_of(world, job).rerun is not Rerun.WANTED, 30 * MINUTE, 5)
    assert world.github.attempt_of(1) == (2 if passes else 1)
    assert len(world.trouble.of("github", "rerun_failed")) == (1 if passes else 0)
    assert not world.trouble.of("github", "rerun_job")


@pytest.mark.parametrize("passes", [True, False])
@pytest.mark.parametrize("error", [Unrecognized("401, Bad credentials"), None])
def test_a_slip_of_githubs_is_waited_for_before_a_job_is_taken_for_one_that_may_deploy(
    error: Refused | None, *, passes: bool
) -> None:
    world, job = swept_world()
    if error is None:
        world.github.hidden.add(1)  # it knows of no such check run
    else:
        world.trouble.refused["github", "holds_deployment"] = error
    kill_host_of(world, job)
    passes_after(world, 20 * MINUTE)
    assert (row_of(world, job).rerun, beside(world)) == (Rerun.WANTED, [])
    if passes:
        world.trouble.refused.clear()
        world.github.hidden.clear()
    world.until(lambda: row_of(world, job).state is JobState.COMPLETED, 15 * MINUTE, 5)
    world.until(lambda: row_of(world, job).rerun is not Rerun.WANTED, 5 * MINUTE, 5)
    assert world.github.attempt_of(1) == (2 if passes else 1)
    world.until(lambda: len(beside(world)) == 1, MINUTE)
    assert ("GitHub refuses to say" in beside(world)[0].summary) is not passes


@pytest.mark.parametrize("passes", [True, False])
@pytest.mark.parametrize("error", [Unrecognized("401, Bad credentials"), NotThere("404, Not Found")])
def test_words_that_github_may_take_yet_are_kept_for_it_but_not_for_ever(error: Refused, *, passes: bool) -> None:
    world = World()
    world.github.queue(1, UNSERVED)
    world.trouble.refused["github", "remark"] = error
    passes_after(world, 25 * MINUTE)
    assert len(world.trouble.of("github", "remark")) > 5
    if passes:
        world.trouble.refused.clear()
    passes_after(world, 10 * MINUTE)
    asked = len(world.trouble.of("github", "remark"))
    assert len(beside(world)) == (1 if passes else 0)
    passes_after(world, 10 * MINUTE)
    assert len(world.trouble.of("github", "remark")) == asked
