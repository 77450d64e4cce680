"""Whatever happens in whatever order: each job is served or has a reason, no runner is too many, and all is put away.

The receiver's parser and every reconciler are the production ones; the cloud and the hosts are those of the simulation.
There are two kinds of stories, with the same rules:

- `TestStories`, 500 of 50 steps: GitHub and the store are fakes in memory, which keep the contracts of the real ones.
- `TestRealStories`, a few of 50 steps: the production receiver and SQLite, and the rehearsal's GitHub simulator behind
  the real adapter. Such a story takes some seconds, one in memory some hundredths of one.
"""

from __future__ import annotations

import random
from collections import Counter
from datetime import timedelta
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.fakes.github import RemoteJob
from tests.fakes.world import PACKAGE, World
from tests.simulation.post import Fate, StoryPost
from tests.simulation.real_world import RealWorld, real_world
from workers.domain.errors import Refused, TryLater
from workers.domain.job import JobState
from workers.domain.names import JobId
from workers.domain.pools import Policy, Pool
from workers.domain.runner import Runner, RunnerState
from workers.planning.demand import demand_of, supply_of
from workers.planning.fleet import is_open
from workers.planning.placement import UNTAKEN
from workers.planning.running import BOOT_LIMIT, UNUSED_RUNNER_LIMIT

STORIES, REAL_STORIES, STEPS = 500, 6, 50
JOBS_MAX = 9
POOLS = Policy((Pool("default"), Pool("other")), (PACKAGE,))
LABELS = st.sampled_from(
    [
        ("spot-runner",),
        ("spot-runner",),
        ("spot-runner", "cpu=1"),
        ("spot-runner/pool=other",),
        ("spot-runner/run=7",),
        ("spot-runner/gpu=1",),
    ]
)
# The longest that a runner which nobody needs may stay: it boots, waits for a job, and is looked at by the sweep.
SPARE_LIMIT = BOOT_LIMIT + UNUSED_RUNNER_LIMIT + timedelta(seconds=40)
# A lock that expires, a rerun, hosts that are bought for it, and the longest silence until GitHub is asked.
END_LIMIT = timedelta(minutes=60)
COARSE = 5
PAUSES = st.sampled_from([0, 0, 1, 5, 5, 15])
PLACES = st.integers(0, 50)


class Story(RuleBasedStateMachine):
    """GitHub's users, its deliveries, its choice among runners, the market and the workers, one thing at a time."""

    world: World
    post: StoryPost

    @initialize(seed=st.integers(0, 1 << 16), ready=st.integers(0, 2), first=st.lists(LABELS, min_size=1, max_size=4))
    def begin(self, seed: int, ready: int, first: list[tuple[str, ...]]) -> None:
        self.world, self.post = self._begun(seed, ready)
        self.world.hosts.job_takes = timedelta(seconds=60)
        self.world.store.inserted = self._require_demand
        self._pass(20 if ready else 0)
        for run_id, labels in enumerate(first, start=1):
            self.world.github.queue(run_id, labels)

    def _begun(self, seed: int, ready: int) -> tuple[World, StoryPost]:
        world = World(seed, policy=POOLS, ready_hosts=ready, hosts_max=4)
        post = world.github.carrier = StoryPost(world.clock, random.Random(seed))
        return world, post

    def _require_demand(self, runner: object) -> None:
        """Called when a row is made; of a runner: then at most as many have no job as there are jobs for them."""
        if not isinstance(runner, Runner):
            return
        store, demand = self.world.store, supply_of(runner)
        staying = {host.id for host in store.hosts.open() if is_open(host)}
        supply = [one for one in store.runners.open() if one.state in UNTAKEN and one.host_id in staying]
        wanted = [job for job in store.jobs.open() if job.state in {JobState.QUEUED, JobState.PLACED} and job.terms]
        made = sum(supply_of(one) == demand for one in supply)
        assert made <= sum(demand_of(job) == demand for job in wanted), "a runner is made that nobody waits for"

    # ------------------------------------------------------------ what people do

    @precondition(lambda self: len(self.world.github.jobs) < JOBS_MAX)
    @rule(labels=LABELS, together=st.booleans(), pause=PAUSES)
    def queue(self, labels: tuple[str, ...], pause: int, *, together: bool) -> None:
        jobs = self.world.github.jobs
        last = max((job.run_id for job in jobs.values()), default=0)
        attempt = self.world.github.attempt_of(last) if together and last else 1
        self.world.github.queue(last if together and last else last + 1, labels, attempt)
        self._pass(pause)

    @precondition(lambda self: self.world.github.jobs)
    @rule(place=PLACES, pause=PAUSES, what=st.sampled_from(["cancel", "fail", "hold back", "approve", "approve"]))
    def change(self, place: int, pause: int, what: str) -> None:
        github = self.world.github
        if what == "cancel" and (job := self._one(place, "queued", "waiting", "in_progress")):
            github.cancel(job.id)
        elif what == "fail" and (job := self._one(place, "in_progress")) and job.runner:
            github.report(job.runner.github_id, "failure")
        elif what == "hold back" and (job := self._one(place, "queued")):
            github.hold_back(job.id)
        elif what == "approve" and (job := self._one(place, "waiting")):
            github.approve(job.id)
        self._pass(pause)

    @precondition(lambda self: len(self.world.github.jobs) < JOBS_MAX)
    @rule(place=PLACES)
    def run_again(self, place: int) -> None:
        if job := self._one(place, "completed"):
            try:
                self.world.github.rerun_failed(1, "octo/hello", job.run_id)
            except (Refused, TryLater):
                return

    def _one(self, place: int, *statuses: str) -> RemoteJob | None:
        found = [job for job in self.world.github.jobs.values() if job.status in statuses]
        return found[place % len(found)] if found else None

    # ------------------------------------------------------------ what GitHub and the market do

    @rule(fate=st.sampled_from(Fate))
    def deal(self, fate: Fate) -> None:
        self.post.fate = fate

    @precondition(lambda self: self.post.lost)
    @rule()
    def replay(self) -> None:
        self.post.replay()

    @precondition(lambda self: self.world.github.jobs)
    @rule(place=PLACES, pause=PAUSES)
    def prefer(self, place: int, pause: int) -> None:
        """Whatever runner comes next is given to this job, if its labels fit."""
        if job := self._one(place, "queued"):
            self.world.github.chosen = job.id
        self._pass(pause)

    @precondition(lambda self: self.world.cloud.alive())
    @rule(place=PLACES, seconds=st.sampled_from([0, 30, 120]))
    def take_host_back(self, place: int, seconds: int) -> None:
        alive = self.world.cloud.alive()
        if seconds:
            self.world.cloud.take_back(alive[place % len(alive)], timedelta(seconds=seconds))
        else:
            self.world.cloud.kill(alive[place % len(alive)])

    # ------------------------------------------------------------ what workers and the clock do

    @rule(is_away=st.sampled_from([None, None, False, True]))
    def disturb(self, is_away: bool | None) -> None:  # noqa: FBT001 hypothesis gives it
        """Start every worker again, or let GitHub answer nobody, or everybody again."""
        if is_away is None:
            self.world.start_workers()
        else:
            self.world.trouble.away = {"github"} if is_away else set()

    @precondition(lambda self: self.world.github.jobs)
    @rule(place=PLACES)
    def look(self, place: int) -> None:
        """A hint comes twice, or for no reason."""
        jobs = list(self.world.github.jobs)
        self.world.look_at("job", str(jobs[place % len(jobs)]))

    @rule(seconds=st.sampled_from([1, 5, 15, 60]))
    def wait(self, seconds: int) -> None:
        self._pass(seconds)

    @precondition(lambda self: self.world.github.jobs)
    @rule(seconds=st.sampled_from([30, 70, 140]))
    def wait_long(self, seconds: int) -> None:
        self._pass(seconds)

    def _pass(self, seconds: int) -> None:
        while seconds > 0:
            self.world.tick(min(seconds, COARSE))
            self._check_moment()
            seconds -= COARSE

    # ------------------------------------------------------------ what must always be so

    @invariant()
    def no_runner_has_two_jobs_and_no_job_two_runners(self) -> None:
        if not hasattr(self, "world"):
            return
        running = [job for job in self.world.store.jobs.rows.values() if job.state is JobState.RUNNING]
        counted = Counter(job.runner_id for job in running if job.runner_id is not None)
        assert not counted or max(counted.values()) == 1, "one runner has two jobs"
        for job in running:
            remote = self.world.github.jobs[job.id].runner
            assert remote is not None
            assert job.runner_id in {None, remote.name}, "a job is bound to a runner that does not run it"

    def _check_moment(self) -> None:
        """No runner that nobody needs stays for longer than it may, as long as GitHub lets us take it away."""
        if self.world.trouble.away:
            return
        now, store = self.world.clock.now(), self.world.store
        for runner in store.runners.open():
            job = store.jobs.get(runner.job_id)
            is_needed = job is not None and job.runner_id == runner.id and job.end is None
            if runner.state is RunnerState.IDLE and not is_needed and runner.idle_at is not None:
                assert now - runner.idle_at <= SPARE_LIMIT, f"{runner} is left over"

    # ------------------------------------------------------------ how it ends

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        self._calm_down()
        self.world.until(self._is_over, END_LIMIT, COARSE)
        self.world.check_nothing_is_left()
        for job in self.world.github.jobs.values():
            self._require_truth(job)

    def _calm_down(self) -> None:
        """From now on GitHub answers, delivers everything, and nobody does anything but approve what waits."""
        self.post.fate = Fate.FINE
        self.world.trouble.away = set()
        self.post.replay()
        for job in list(self.world.github.jobs.values()):
            if job.status == "waiting":
                self.world.github.approve(job.id)

    def _is_over(self) -> bool:
        """Say whether every job has run, or stays in the queue for a reason that its row tells."""
        github, store = self.world.github, self.world.store
        for job in github.jobs.values():
            row = store.jobs.rows.get(job.id)
            if job.status == "queued" and row is not None and row.unserved is not None:
                github.cancel(job.id)
        over = all(job.status == "completed" for job in github.jobs.values())
        left = store.jobs.open() or store.runners.open() or store.migrations.open()
        return over and not left and not self.post.on_the_way and not github.runners and not self.world.relay.table

    def _require_truth(self, job: RemoteJob) -> None:
        row = self.world.store.jobs.rows[JobId(job.id)]
        assert row.conclusion == job.conclusion, f"{row} but GitHub says {job}"
        assert row.run_attempt == job.attempt
        assert row.state is (JobState.CANCELLED if job.conclusion == "cancelled" else JobState.COMPLETED)
        if job.runner is not None and row.runner_id is not None:
            assert row.runner_id == job.runner.name


class RealStory(Story):
    """The same with the production app, called as gunicorn calls it, SQLite, and the simulator for GitHub."""

    def _begun(self, seed: int, ready: int) -> tuple[World, StoryPost]:
        return real_world(seed, policy=POOLS, ready_hosts=ready, hosts_max=4)

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            if isinstance(world := getattr(self, "world", None), RealWorld):
                world.close()
                assert not world.violations()


def _settings(**more: Any) -> settings:  # noqa: ANN401 hypothesis's own wide type
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    return settings(stateful_step_count=STEPS, deadline=None, suppress_health_check=checks, **more)


# Five hundred stories take more than a minute of processor time, and machines are shared.
pytestmark = pytest.mark.timeout(900)
TestStories = Story.TestCase
# The same stories in every run, so that a change is judged by itself.
TestStories.settings = _settings(max_examples=STORIES, derandomize=True)
TestRealStories = RealStory.TestCase
# A story on SQLite takes as long as some dozens in memory.
TestRealStories.settings = _settings(max_examples=REAL_STORIES, derandomize=True, phases=[Phase.generate])
