"""GitHub: runs, jobs, registrations, locks that expire, and deliveries that come twice, late or never."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count

from tests.fakes.trouble import Trouble
from workers.domain.errors import Refused, RunnerBusy, TryLater
from workers.domain.events import Delivery, JobAction, JobFact
from workers.domain.names import JobId
from workers.ports import Clock, JobSeen, Registration, RunSeen

LOCK = timedelta(minutes=10)
# Between two and six minutes; a registration that never connected stays for a day.
IDLE_LIMIT = timedelta(minutes=4)
NEVER_CONNECTED_LIMIT = timedelta(days=1)


@dataclass
class RemoteJob:
    id: JobId
    run_id: int
    attempt: int
    labels: tuple[str, ...]
    status: str = "queued"
    conclusion: str | None = None
    runner: RemoteRunner | None = None
    locked_until: datetime | None = None


@dataclass
class RemoteRunner:
    github_id: int
    name: str
    labels: tuple[str, ...]
    registered_at: datetime
    connected_at: datetime | None = None
    job: RemoteJob | None = None


def _fits(job: RemoteJob, runner: RemoteRunner) -> bool:
    """Compare labels as GitHub does: without case."""
    return {label.lower() for label in job.labels} <= {label.lower() for label in runner.labels}


@dataclass
class FakeGitHub:
    clock: Clock
    trouble: Trouble
    random: random.Random
    loss: float = 0.0
    """Of deliveries."""
    is_public: bool = True
    """Whether anybody can see the repository."""
    is_installed: bool = True
    """Whether our App is; without it everything we ask is refused and nothing is told us."""
    of_forks: set[int] = field(default_factory=set)
    """The runs that come from forks."""
    jobs: dict[JobId, RemoteJob] = field(default_factory=dict)
    runners: dict[int, RemoteRunner] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1000))
    _on_the_way: list[tuple[datetime, Delivery]] = field(default_factory=list)

    # ------------------------------------------------------------ ports.GitHub

    def register(self, installation_id: int, repository: str, name: str, labels: Sequence[str]) -> Registration:
        with self.trouble.befalls("github", "register", name):
            self._require_installed()
            for former in [one for one in self.runners.values() if one.name == name]:
                self._remove(former)
            runner = RemoteRunner(next(self._numbers), name, tuple(labels), self.clock.now())
            self.runners[runner.github_id] = runner
            return Registration(runner.github_id, f"jit-{runner.github_id}")

    def deregister(self, installation_id: int, repository: str, github_id: int) -> None:
        with self.trouble.befalls("github", "deregister", github_id):
            self._require_installed()
            if github_id in self.runners:
                self._remove(self.runners[github_id])

    def _require_installed(self) -> None:
        if not self.is_installed:
            raise Refused("the App is not installed there")

    def _remove(self, runner: RemoteRunner) -> None:
        if runner.job is not None:
            raise RunnerBusy(f"{runner.name} runs {runner.job.id}")
        del self.runners[runner.github_id]

    def job(self, installation_id: int, repository: str, job_id: JobId) -> JobSeen | None:
        with self.trouble.befalls("github", "job", job_id):
            self._require_installed()
            job = self.jobs.get(job_id)
            if job is None:
                return None
            github_id, name = (job.runner.github_id, job.runner.name) if job.runner else (None, None)
            return JobSeen(job.status, job.conclusion, github_id, name, job.attempt)

    def run(self, installation_id: int, repository: str, run_id: int) -> RunSeen | None:
        with self.trouble.befalls("github", "run", run_id):
            self._require_installed()
            if not any(job.run_id == run_id for job in self.jobs.values()):
                return None
            return RunSeen(is_public=self.is_public, is_fork=run_id in self.of_forks)

    def rerun_failed(self, installation_id: int, repository: str, run_id: int) -> None:
        with self.trouble.befalls("github", "rerun_failed", run_id):
            self._require_installed()
            attempt = self.attempt_of(run_id)
            latest = [job for job in self.jobs.values() if job.run_id == run_id and job.attempt == attempt]
            if any(job.status != "completed" for job in latest):
                raise TryLater(f"run {run_id} has not ended")
            failed = [job for job in latest if job.conclusion not in {"success", "skipped"}]
            if not failed:
                raise Refused(f"run {run_id} has no failed jobs")
            for job in failed:
                self.queue(run_id, job.labels, attempt + 1)

    # ------------------------------------------------------------ people

    def queue(self, run_id: int, labels: tuple[str, ...] = ("spot-runner",), attempt: int = 1) -> JobId:
        job = RemoteJob(JobId(next(self._numbers)), run_id, attempt, labels)
        self.jobs[job.id] = job
        self._tell(job, JobAction.QUEUED)
        return job.id

    def cancel(self, job_id: JobId) -> None:
        self._complete(self.jobs[job_id], "cancelled")

    # ------------------------------------------------------------ a runner program's calls

    def connect(self, github_id: int) -> RemoteJob | None:
        """Poll for work; None if there is none. Raises `Refused` if the registration is gone."""
        runner = self._registered(github_id)
        runner.connected_at = runner.connected_at or self.clock.now()
        if runner.job is None:
            waiting = [job for job in self.jobs.values() if job.status == "queued" and _fits(job, runner)]
            if waiting:
                self._assign(runner, self.random.choice(waiting))
        return runner.job

    def renew(self, github_id: int) -> None:
        """Renew the lock. Raises `Refused` if the job is not this runner's any more."""
        job = self._registered(github_id).job
        if job is None or job.status != "in_progress":
            raise Refused("the job is over")
        job.locked_until = self.clock.now() + LOCK

    def report(self, github_id: int, conclusion: str) -> None:
        job = self._registered(github_id).job
        if job is not None and job.status == "in_progress":
            self._complete(job, conclusion)

    def _registered(self, github_id: int) -> RemoteRunner:
        if github_id not in self.runners:
            raise Refused("the registration is gone")
        return self.runners[github_id]

    def _assign(self, runner: RemoteRunner, job: RemoteJob) -> None:
        job.status, job.runner, runner.job = "in_progress", runner, job
        job.locked_until = self.clock.now() + LOCK
        self._tell(job, JobAction.IN_PROGRESS)

    def _complete(self, job: RemoteJob, conclusion: str) -> None:
        job.status, job.conclusion = "completed", conclusion
        if job.runner is not None:
            self.runners.pop(job.runner.github_id, None)
        self._tell(job, JobAction.COMPLETED)

    # ------------------------------------------------------------ time

    def pass_time(self) -> None:
        now = self.clock.now()
        for job in list(self.jobs.values()):
            if job.status == "in_progress" and job.locked_until is not None and now > job.locked_until:
                self._complete(job, "failure")
        for runner in list(self.runners.values()):
            since = runner.connected_at or runner.registered_at
            limit = NEVER_CONNECTED_LIMIT if runner.connected_at is None else IDLE_LIMIT
            if runner.job is None and now - since > limit:
                del self.runners[runner.github_id]

    def arrived(self) -> list[Delivery]:
        """Return the deliveries that arrive now, in no order."""
        now = self.clock.now()
        here = [one for at, one in self._on_the_way if at <= now]
        self._on_the_way = [(at, one) for at, one in self._on_the_way if at > now]
        self.random.shuffle(here)
        return here

    def _tell(self, job: RemoteJob, action: JobAction) -> None:
        now = self.clock.now()
        fact = JobFact(
            delivery=f"d-{next(self._numbers)}",
            action=action,
            seen_at=now,
            job_id=job.id,
            installation_id=1,
            repository="octo/hello",
            run_id=job.run_id,
            run_attempt=job.attempt,
            name="build",
            labels=job.labels,
            runner_id=job.runner.github_id if job.runner else None,
            runner_name=job.runner.name if job.runner else None,
            conclusion=job.conclusion,
        )
        delivery = Delivery(fact.delivery, "workflow_job", action.value, now, b"", fact)
        # Whoever missed `queued` would never know of the job; GitHub's users redeliver that one.
        lost = not self.is_installed or (action is not JobAction.QUEUED and self.random.random() < self.loss)
        for _ in range(0 if lost else 1 + (self.random.random() < self.loss)):
            delay = timedelta(seconds=self.random.uniform(0, 20)) if self.loss else timedelta()
            self._on_the_way.append((now + delay, delivery))

    def attempt_of(self, run_id: int) -> int:
        return max(job.attempt for job in self.jobs.values() if job.run_id == run_id)

    def conclusions(self, run_id: int) -> list[str | None]:
        """Return how the jobs of the run's last attempt ended."""
        attempt = self.attempt_of(run_id)
        return [job.conclusion for job in self.jobs.values() if (job.run_id, job.attempt) == (run_id, attempt)]
