"""An implementation of the GitHub port together with the means to make things happen behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from itertools import count
from random import Random
from typing import Protocol

from tests.contract.github.places import APP_ID, Place, PlayedRunner, until
from tests.fakes.clock import FakeClock
from tests.fakes.github import FakeGitHub, RemoteGroup
from tests.fakes.github_lists import FakeLists
from tests.fakes.trouble import Trouble
from workers.domain.names import JobId
from workers.listing import GitHubLists
from workers.ports import Registration
from workers.reconcilers.deployments import JobGitHub


class Side(Protocol):
    """One GitHub, in which this test alone has jobs."""

    @property
    def port(self) -> JobGitHub: ...
    @property
    def lists(self) -> GitHubLists: ...
    @property
    def installation(self) -> int: ...
    @property
    def repository(self) -> str: ...

    def register(self, name: str, labels: Sequence[str]) -> Registration:
        """Register through the port."""

    def queue_job(
        self,
        labels: Sequence[str],
        *,
        of_fork: bool = False,
        repository: str | None = None,
        is_private: bool = False,
    ) -> tuple[JobId, int]:
        """Start a run with one job, in a repository that anybody can see unless it `is_private`.

        Return the job's and the run's id.
        """

    def queue_deploying(self, labels: Sequence[str]) -> tuple[JobId, int]:
        """Start a run with one job that deploys to an environment."""

    def hold_back(self, job_id: JobId) -> None:
        """Let the rules of its environment hold a queued job back."""

    def approve(self, job_id: JobId) -> None:
        """Let a job that waits be queued."""

    def make_group(self, name: str, repositories: Sequence[str]) -> int:
        """Let the organization have a runner group that admits these repositories only; return its number."""

    def queue_pair(self, labels: Sequence[str]) -> tuple[JobId, JobId, int]:
        """Start a run with two jobs of different names; return theirs and the run's id."""

    def remarks(self) -> list[tuple[str, str, str, str, str, str]]:
        """Return what stands beside commits: key, commit, name, conclusion, title, summary."""

    def take_job(self, registration: Registration) -> JobId:
        """Let the registered runner come online and take a job."""

    def end_job(self, job_id: JobId, registration: Registration, conclusion: str) -> None:
        """Let the runner report its job's end."""

    def next_second(self) -> datetime:
        """Let a second begin, as GitHub's stamps have no parts of one; return its first moment."""

    def trouble(self) -> AbstractContextManager[object]:
        """Let one call of the port, made within the block, meet an unreachable GitHub."""

    def suspend(self) -> None:
        """Let the owner suspend our App."""

    def uninstall(self) -> None:
        """Let the owner remove our App."""

    def undelivered(self, labels: Sequence[str]) -> str:
        """Start a run whose delivery fails; return its GUID once GitHub has noted the failure."""

    def deliver_all(self) -> None:
        """Let what GitHub was asked to send be sent, to a receiver that is well; it may take a while to be noted."""


class SimulatedSide:
    """PyGithub against the simulated GitHub."""

    def __init__(self, place: Place) -> None:
        self.port = place.port()
        self.lists = self.port.lists
        self.installation = place.installation
        self.repository = place.repository
        self._place = place

    def register(self, name: str, labels: Sequence[str]) -> Registration:
        return self.port.register(self.installation, self.repository, name, labels)

    def queue_job(
        self,
        labels: Sequence[str],
        *,
        of_fork: bool = False,
        repository: str | None = None,
        is_private: bool = False,
    ) -> tuple[JobId, int]:
        where, control = repository or self.repository, self._place.control
        if is_private:
            control.make_private(where)
        (job_id,) = control.start_jobs(where, labels, [("one", "true")], of_fork=of_fork)
        return JobId(job_id), control.job(job_id)["run_id"]

    def queue_deploying(self, labels: Sequence[str]) -> tuple[JobId, int]:
        control = self._place.control
        (job_id,) = control.start_jobs(self.repository, labels, [("one", "true")], environment="production")
        return JobId(job_id), control.job(job_id)["run_id"]

    def hold_back(self, job_id: JobId) -> None:
        self._place.control.hold_back(job_id)

    def approve(self, job_id: JobId) -> None:
        self._place.control.approve(job_id)

    def make_group(self, name: str, repositories: Sequence[str]) -> int:
        return self._place.control.make_group(self._place.owner, name, repositories)

    def queue_pair(self, labels: Sequence[str]) -> tuple[JobId, JobId, int]:
        first, second = self._place.control.start_jobs(
            self.repository, labels, [("one", "true")], count=2, together=True
        )
        return JobId(first), JobId(second), self._place.control.job(first)["run_id"]

    def remarks(self) -> list[tuple[str, str, str, str, str, str]]:
        mine = [one for one in self._place.control.checks() if one["repository"] == self.repository]
        return [
            (
                *(one["external_id"], one["head_sha"], one["name"], one["conclusion"]),
                *(one["output"]["title"], one["output"]["summary"]),
            )
            for one in mine
        ]

    def take_job(self, registration: Registration) -> JobId:
        return JobId(PlayedRunner(self._place, registration.jit_config).taking())

    def end_job(self, job_id: JobId, registration: Registration, conclusion: str) -> None:
        answer = PlayedRunner(self._place, registration.jit_config).finish(job_id, conclusion)
        assert answer.status_code == 200

    def next_second(self) -> datetime:
        second = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1)
        until(lambda: datetime.now(UTC) >= second, "the next second")
        return second

    def trouble(self) -> AbstractContextManager[object]:
        self._place.control.plant("unavailable", "POST", f"/repos/{self.repository}/")
        return nullcontext()

    def suspend(self) -> None:
        self._place.control.change_installation(self._place.owner, "suspend")

    def uninstall(self) -> None:
        self._place.control.change_installation(self._place.owner, "remove")

    def undelivered(self, labels: Sequence[str]) -> str:
        self._place.receiver.statuses.put(503)
        job_id, _ = self.queue_job(labels)
        (one,) = until(lambda: self._place.receiver.of_job(job_id), "the delivery is tried")
        guid = one.headers["x-github-delivery"]
        until(lambda: any(each.guid == guid for each in self.lists.deliveries(APP_ID).tries), "the try is listed")
        return guid

    def deliver_all(self) -> None:
        """Its sender never rests."""


class FakeSide:
    """The fake that the reconcilers are tested with."""

    def __init__(self) -> None:
        clock = self._clock = FakeClock()
        self._trouble = Trouble(clock)
        self.port = FakeGitHub(clock, self._trouble, Random(0))
        self.lists = FakeLists(self.port)
        self.installation = 1
        self.repository = "octo/hello"
        self._runs = count(1)

    def register(self, name: str, labels: Sequence[str]) -> Registration:
        return self.port.register(self.installation, self.repository, name, labels)

    def queue_job(
        self,
        labels: Sequence[str],
        *,
        of_fork: bool = False,
        repository: str | None = None,
        is_private: bool = False,
    ) -> tuple[JobId, int]:
        run_id = next(self._runs)
        self.port.is_public = not is_private
        if of_fork:
            self.port.of_forks.add(run_id)
        return self.port.queue(run_id, tuple(labels), repository=repository or self.repository), run_id

    def queue_deploying(self, labels: Sequence[str]) -> tuple[JobId, int]:
        job_id, run_id = self.queue_job(labels)
        self.port.jobs[job_id].deployment_at = self._clock.now()
        return job_id, run_id

    def hold_back(self, job_id: JobId) -> None:
        self.port.hold_back(job_id)

    def approve(self, job_id: JobId) -> None:
        self.port.approve(job_id)

    def make_group(self, name: str, repositories: Sequence[str]) -> int:
        made = RemoteGroup(100 + len(self.port.groups), name, set(repositories))
        self.port.groups.append(made)
        return made.id

    def queue_pair(self, labels: Sequence[str]) -> tuple[JobId, JobId, int]:
        run_id = next(self._runs)
        first, second = (self.port.queue(run_id, tuple(labels), name=name) for name in ("one", "two"))
        return first, second, run_id

    def remarks(self) -> list[tuple[str, str, str, str, str, str]]:
        return [
            (one.key, one.head_sha, one.name, one.verdict.value, one.title, one.summary)
            for one in self.port.beside.values()
        ]

    def take_job(self, registration: Registration) -> JobId:
        job = self.port.connect(registration.github_id)
        assert job is not None
        return job.id

    def end_job(self, job_id: JobId, registration: Registration, conclusion: str) -> None:
        assert self.port.jobs[job_id].runner is self.port.runners[registration.github_id]
        self.port.report(registration.github_id, conclusion)

    def next_second(self) -> datetime:
        self._clock.move(timedelta(seconds=1))
        return self._clock.now()

    @contextmanager
    def trouble(self) -> Iterator[None]:
        self._trouble.unreachable = 2.0  # half of it strikes before the call, and that half is certain
        yield
        self._trouble.end()

    def suspend(self) -> None:
        self.port.is_suspended = True

    def uninstall(self) -> None:
        self.port.is_installed = False

    def undelivered(self, labels: Sequence[str]) -> str:
        self.port.post.is_receiver_down = True
        self.queue_job(labels)
        assert not self.port.arrived()
        return self.lists.deliveries(self.lists.apps[0]).tries[0].guid

    def deliver_all(self) -> None:
        self.port.post.is_receiver_down = False
        self.port.arrived()
