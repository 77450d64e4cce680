"""An implementation of the GitHub port together with the means to make things happen behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import count
from random import Random
from typing import Protocol

from tests.contract.github.places import Place, PlayedRunner
from tests.fakes.clock import FakeClock
from tests.fakes.github import FakeGitHub
from tests.fakes.trouble import Trouble
from workers.domain.names import JobId
from workers.ports import GitHub, Registration


class Side(Protocol):
    """One GitHub, in which this test alone has jobs."""

    @property
    def port(self) -> GitHub: ...
    @property
    def installation(self) -> int: ...
    @property
    def repository(self) -> str: ...

    def register(self, name: str, labels: Sequence[str]) -> Registration:
        """Register through the port."""

    def queue_job(self, labels: Sequence[str], *, of_fork: bool = False) -> tuple[JobId, int]:
        """Start a run with one job, in a repository that anybody can see; return the job's and the run's id."""

    def take_job(self, registration: Registration) -> JobId:
        """Let the registered runner come online and take a job."""

    def end_job(self, job_id: JobId, registration: Registration, conclusion: str) -> None:
        """Let the runner report its job's end."""

    def trouble(self) -> AbstractContextManager[object]:
        """Let one call of the port, made within the block, meet an unreachable GitHub."""


class SimulatedSide:
    """PyGithub against the simulated GitHub."""

    def __init__(self, place: Place) -> None:
        self.port = place.port()
        self.installation = place.installation
        self.repository = place.repository
        self._place = place

    def register(self, name: str, labels: Sequence[str]) -> Registration:
        return self.port.register(self.installation, self.repository, name, labels)

    def queue_job(self, labels: Sequence[str], *, of_fork: bool = False) -> tuple[JobId, int]:
        job_id = self._place.control.start_jobs(self.repository, labels, [("one", "true")], of_fork=of_fork)[0]
        return JobId(job_id), self._place.control.job(job_id)["run_id"]

    def take_job(self, registration: Registration) -> JobId:
        return JobId(PlayedRunner(self._place, registration.jit_config).taking())

    def end_job(self, job_id: JobId, registration: Registration, conclusion: str) -> None:
        answer = PlayedRunner(self._place, registration.jit_config).finish(job_id, conclusion)
        assert answer.status_code == 200

    def trouble(self) -> AbstractContextManager[object]:
        self._place.control.plant("unavailable", "POST", f"/repos/{self.repository}/")
        return nullcontext()


class FakeSide:
    """The fake that the reconcilers are tested with."""

    def __init__(self) -> None:
        clock = FakeClock()
        self._trouble = Trouble(clock)
        self.port = FakeGitHub(clock, self._trouble, Random(0))
        self.installation = 1
        self.repository = "octo/hello"
        self._runs = count(1)

    def register(self, name: str, labels: Sequence[str]) -> Registration:
        return self.port.register(self.installation, self.repository, name, labels)

    def queue_job(self, labels: Sequence[str], *, of_fork: bool = False) -> tuple[JobId, int]:
        run_id = next(self._runs)
        if of_fork:
            self.port.of_forks.add(run_id)
        return self.port.queue(run_id, tuple(labels)), run_id

    def take_job(self, registration: Registration) -> JobId:
        job = self.port.connect(registration.github_id)
        assert job is not None
        return job.id

    def end_job(self, job_id: JobId, registration: Registration, conclusion: str) -> None:
        assert self.port.jobs[job_id].runner is self.port.runners[registration.github_id]
        self.port.report(registration.github_id, conclusion)

    @contextmanager
    def trouble(self) -> Iterator[None]:
        self._trouble.unreachable = 2.0  # half of it strikes before the call, and that half is certain
        yield
        self._trouble.end()
