"""GitHub: runs, jobs, registrations, locks that expire, and deliveries that come twice, late or never."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count

from tests.fakes.github_lists import INSTALLATIONS, Carrier, Post
from tests.fakes.trouble import Trouble
from workers.domain.errors import NotThere, Refused, RunnerBusy, TryLater
from workers.domain.events import Delivery, JobAction, JobFact
from workers.domain.job import JobSeen, RunJob, RunSeen
from workers.domain.names import JobId
from workers.domain.remark import Remark
from workers.domain.runner import DEFAULT_GROUP
from workers.ports import Clock, Registration

LOCK = timedelta(minutes=10)
# Between two and six minutes, and who is in time for the shortest is for all; one that never connected stays for a day.
IDLE_LIMIT = timedelta(minutes=2)
NEVER_CONNECTED_LIMIT = timedelta(days=1)


@dataclass
class RemoteJob:
    id: JobId
    run_id: int
    attempt: int
    labels: tuple[str, ...]
    name: str = "build"
    branch: str = "main"
    repository: str = "octo/hello"
    status: str = "queued"
    conclusion: str | None = None
    runner: RemoteRunner | None = None
    locked_until: datetime | None = None
    deployment_at: datetime | None = None
    """When its deployment was changed last, if it has one."""
    completed_at: datetime | None = None
    slot: int = 0
    """Which of the run's jobs with this name it is; the same in every attempt, and told nobody."""


@dataclass
class RemoteRunner:
    github_id: int
    name: str
    labels: tuple[str, ...]
    registered_at: datetime
    place: str
    """A repository, or an organization."""
    group_id: int = DEFAULT_GROUP
    connected_at: datetime | None = None
    job: RemoteJob | None = None


@dataclass
class RemoteGroup:
    """A runner group of octo's."""

    id: int
    name: str
    repositories: set[str]


def head_sha(run_id: int) -> str:
    """Return the commit of a run: one of its own, as every push makes one."""
    return f"{run_id:040x}"


def _is_same(one: RemoteJob, other: RemoteJob) -> bool:
    """Say whether these are attempts at one job."""
    return (one.run_id, one.name, one.slot) == (other.run_id, other.name, other.slot)


def _fits(job: RemoteJob, runner: RemoteRunner, groups: Sequence[RemoteGroup]) -> bool:
    """Say whether GitHub gives it this job: where it is registered; labels are compared without case."""
    is_there = runner.place in {job.repository, job.repository.partition("/")[0]}
    group = next((one for one in groups if one.id == runner.group_id), None)
    is_admitted = group is None or job.repository in group.repositories
    return (
        is_there
        and is_admitted
        and {label.lower() for label in job.labels} <= {label.lower() for label in runner.labels}
    )


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
    """Whether our App is; without it GitHub knows of nothing that we ask about, and nothing is told us."""
    is_suspended: bool = False
    """Whether its installations are; then everything that we ask of them is refused, and nothing is told us."""
    has_permissions: bool = True
    """Whether it may ask anything at all; all the same it is told, and listed as installed."""
    of_forks: set[int] = field(default_factory=set)
    """The runs that come from forks."""
    is_outdated: bool = False
    """Whether the runner program is too old: it is registered, gets no job, and is removed."""
    chosen: JobId | None = None
    """Who is given the next runner that fits, if it waits; else any job that fits is."""
    carrier: Carrier | None = None
    """Carries the deliveries, if they are to have whole bodies and fates of their own."""
    may_remark: bool = True
    """Whether our App may make check runs, and see them."""
    refuses_reruns: bool = False
    """As for runs that are older than a month."""
    remarks: list[Remark] = field(default_factory=list)
    """Everything that was said beside commits, in the order in which it was."""
    jobs: dict[JobId, RemoteJob] = field(default_factory=dict)
    runners: dict[int, RemoteRunner] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1000))
    post: Post = field(default_factory=Post)
    groups: list[RemoteGroup] = field(default_factory=list)
    """Beside the default one, which admits everybody."""
    keeps_runners: bool = False
    """Whether it leaves registrations whose job is over."""
    hidden: set[int] = field(default_factory=set)
    """The jobs, and the runs with their jobs' check runs, about which it answers that there are none such."""
    missed: set[JobAction] = field(default_factory=set)
    """What is never delivered at all, and is in no list of deliveries either."""

    # ------------------------------------------------------------ ports.GitHub

    def register(
        self, installation_id: int, place: str, name: str, labels: Sequence[str], group_id: int = DEFAULT_GROUP
    ) -> Registration:
        with self.trouble.befalls("github", "register", name):
            self._require_installed()
            if group_id not in {DEFAULT_GROUP, *(one.id for one in self.groups)}:
                raise Refused(f"there is no runner group {group_id}")
            for former in [one for one in self.runners.values() if one.name == name]:
                self._remove(former)
            runner = RemoteRunner(next(self._numbers), name, tuple(labels), self.clock.now(), place, group_id)
            self.runners[runner.github_id] = runner
            return Registration(runner.github_id, f"jit-{runner.github_id}")

    def number_of(self, installation_id: int, place: str, name: str) -> int | None:
        with self.trouble.befalls("github", "number_of", name):
            self._require_installed()
            there = (one for one in self.runners.values() if one.place.lower() == place.lower())
            return next((one.github_id for one in there if one.name == name), None)

    def group_of(self, installation_id: int, repository: str, name: str | None) -> int:
        with self.trouble.befalls("github", "group_of", repository):
            self._require_installed()
            if name is None:
                return DEFAULT_GROUP
            if (group := next((one for one in self.groups if one.name == name), None)) is None:
                raise Refused(f"there is no runner group {name}")
            if repository not in group.repositories:
                raise Refused(f"{name} does not admit {repository}")
            return group.id

    def deregister(self, installation_id: int, place: str, github_id: int) -> None:
        with self.trouble.befalls("github", "deregister", github_id):
            found = self.runners.get(github_id) if self.knows_us() else None
            if found is not None and found.place.lower() == place.lower():
                self._remove(found)

    def _require_checks(self) -> None:
        self._require_installed()
        if not self.may_remark:
            raise Refused("the App may not use check runs")

    def _require_installed(self) -> None:
        if not self.knows_us():
            raise Refused("the App is not installed there")

    def knows_us(self) -> bool:
        """Say whether our App is installed. Raises `Refused` if it may ask nothing although it is."""
        if self.is_installed and self.is_suspended:
            raise Refused("this installation has been suspended")
        if self.is_installed and not self.has_permissions:
            raise Refused("resource not accessible by integration")
        return self.is_installed

    def _remove(self, runner: RemoteRunner) -> None:
        if runner.job is not None:
            raise RunnerBusy(f"{runner.name} runs {runner.job.id}")
        del self.runners[runner.github_id]

    def job(self, installation_id: int, repository: str, job_id: JobId) -> JobSeen | None:
        with self.trouble.befalls("github", "job", job_id):
            job = self.jobs.get(job_id) if self.knows_us() else None
            if job is None or job_id in self.hidden:
                return None
            github_id, name = (job.runner.github_id, job.runner.name) if job.runner else (None, None)
            return JobSeen(job.status, job.conclusion, github_id, name, job.attempt)

    def run(self, installation_id: int, repository: str, run_id: int) -> RunSeen | None:
        with self.trouble.befalls("github", "run", run_id):
            if not self.knows_us() or not any(job.run_id == run_id for job in self.jobs.values()):
                return None
            return RunSeen(is_public=self.is_public, is_fork=run_id in self.of_forks)

    def rerun_failed(self, installation_id: int, repository: str, run_id: int) -> None:
        with self.trouble.befalls("github", "rerun_failed", run_id):
            self._require_installed()
            failed = [job for job in self._ended(run_id) if job.conclusion not in {"success", "skipped"}]
            if not failed:
                raise Refused(f"run {run_id} has no failed jobs")
            self._again(failed)

    def rerun_job(self, installation_id: int, repository: str, job_id: JobId) -> None:
        with self.trouble.befalls("github", "rerun_job", job_id):
            self._require_installed()
            if (job := self.jobs.get(job_id)) is None:
                raise NotThere(f"there is no job {job_id}")
            self._ended(job.run_id)
            if any(one.attempt > job.attempt for one in self.jobs.values() if _is_same(one, job)):
                raise Refused(f"job {job_id} was run again")
            self._again([job])

    def _ended(self, run_id: int) -> list[RemoteJob]:
        if self.refuses_reruns:
            raise Refused("this workflow run cannot be retried")
        latest = self._latest(run_id)
        if any(job.status != "completed" for job in latest):
            raise TryLater(f"run {run_id} has not ended")
        return latest

    def _latest(self, run_id: int) -> list[RemoteJob]:
        mine = [job for job in self.jobs.values() if job.run_id == run_id]
        return [job for job in mine if job.attempt == max(one.attempt for one in mine)]

    def _again(self, again: Sequence[RemoteJob]) -> None:
        attempt = self.attempt_of(again[0].run_id) + 1
        for earlier in self._latest(again[0].run_id):
            self._tell(earlier, JobAction.COMPLETED)  # GitHub sends it once more
        for job in again:
            self.queue(job.run_id, job.labels, attempt, job.name, job.branch, job.repository, job.slot)

    def jobs_of(self, installation_id: int, repository: str, run_id: int) -> Sequence[RunJob]:
        with self.trouble.befalls("github", "jobs_of", run_id):
            latest = self._latest(run_id) if self.knows_us() and run_id not in self.hidden else []
            return [RunJob(job.id, job.name, job.status, job.conclusion, job.completed_at) for job in latest]

    def holds_deployment(self, installation_id: int, repository: str, job_id: JobId) -> bool | None:
        with self.trouble.befalls("github", "holds_deployment", job_id):
            if not self.knows_us() or job_id not in self.jobs or self.jobs[job_id].run_id in self.hidden:
                return None
            self._require_checks()
            return self.jobs[job_id].deployment_at is not None

    def remark(self, remark: Remark) -> None:
        with self.trouble.befalls("github", "remark", remark.key):
            self._require_checks()
            self.remarks.append(remark)

    @property
    def beside(self) -> dict[str, Remark]:
        """What stands beside commits now, by its key."""
        return {one.key: one for one in self.remarks}

    # ------------------------------------------------------------ people

    def queue(
        self,
        run_id: int,
        labels: tuple[str, ...] = ("spot-runner",),
        attempt: int = 1,
        name: str = "build",
        branch: str = "main",
        repository: str = "octo/hello",
        slot: int = 0,
    ) -> JobId:
        job = RemoteJob(JobId(next(self._numbers)), run_id, attempt, labels, name, branch, repository, slot=slot)
        self.jobs[job.id] = job
        self._tell(job, JobAction.QUEUED)
        return job.id

    def hold_back(self, job_id: JobId) -> None:
        """Let the rules of its environment hold a queued job back, until it is approved."""
        self._deploy(self.jobs[job_id], "waiting", JobAction.WAITING)

    def approve(self, job_id: JobId) -> None:
        self._deploy(self.jobs[job_id], "queued", JobAction.QUEUED)

    def _deploy(self, job: RemoteJob, status: str, action: JobAction) -> None:
        """Note it in the job's deployment, whose moments are whole seconds and may be equal."""
        job.status, job.deployment_at = status, self.clock.now().replace(microsecond=0)
        self._tell(job, action)

    def cancel(self, job_id: JobId) -> None:
        self._complete(self.jobs[job_id], "cancelled")

    # ------------------------------------------------------------ a runner program's calls

    def connect(self, github_id: int) -> RemoteJob | None:
        """Poll for work; None if there is none. Raises `Refused` if the registration is gone."""
        runner = self._registered(github_id)
        runner.connected_at = runner.connected_at or self.clock.now()
        if runner.job is None and not self.is_outdated:
            waiting = [job for job in self.jobs.values() if job.status == "queued" and _fits(job, runner, self.groups)]
            if waiting:
                chosen = [job for job in waiting if job.id == self.chosen]
                self._assign(runner, self.random.choice(chosen or waiting))
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
        job.status, job.conclusion, job.completed_at = "completed", conclusion, self.clock.now()
        if job.runner is not None:
            job.runner.job = None
            if not self.keeps_runners:
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
            if runner.job is None and now - since > limit and not self.keeps_runners:
                del self.runners[runner.github_id]

    def arrived(self) -> list[Delivery]:
        """Return the deliveries that arrive now, in no order."""
        now = self.clock.now()
        if self.carrier is not None:
            return self.carrier.arrived(now)
        here = self.post.arrived(now)
        self.random.shuffle(here)
        return here

    def _tell(self, job: RemoteJob, action: JobAction) -> None:
        now = self.clock.now()
        fact = JobFact(
            delivery=f"d-{next(self._numbers)}",
            action=action,
            seen_at=now,
            job_id=job.id,
            installation_id=INSTALLATIONS[job.repository.partition("/")[0]][0],
            repository=job.repository,
            run_id=job.run_id,
            run_attempt=job.attempt,
            name=job.name,
            labels=job.labels,
            runner_id=job.runner.github_id if job.runner else None,
            runner_name=job.runner.name if job.runner else None,
            conclusion=job.conclusion,
            head_sha=head_sha(job.run_id),
            head_branch=job.branch,
            deployment_at=job.deployment_at,
        )
        if self.carrier is not None:
            self.carrier.send(fact)
            return
        delivery = Delivery(fact.delivery, "workflow_job", action.value, now, b"", fact)
        lost = not self.is_installed or self.is_suspended or action in self.missed or self.random.random() < self.loss
        for _ in range(0 if lost else 1 + (self.random.random() < self.loss)):
            delay = timedelta(seconds=self.random.uniform(0, 20)) if self.loss else timedelta()
            self.post.on_the_way.append((now + delay, delivery))

    def attempt_of(self, run_id: int) -> int:
        return max(job.attempt for job in self.jobs.values() if job.run_id == run_id)

    def conclusions(self, run_id: int) -> list[str | None]:
        """Return how the jobs of the run's last attempt ended."""
        attempt = self.attempt_of(run_id)
        return [job.conclusion for job in self.jobs.values() if (job.run_id, job.attempt) == (run_id, attempt)]
