"""The simulated GitHub of the rehearsal in a story: on the story's clock, without a network, asked by the real adapter.

Where the stories in memory have a fake, these have what the demo and the soak have: the API's own routes, checked
against the published description, the broker's rules, and its deliveries word for word. The real adapter's requests go
into the Flask application, and only what travels by threads elsewhere is carried by the story: time, deliveries, and
what runners say.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, Final, Protocol, cast

from flask import Flask
from github.Requester import Requester

from tests.contract.github.places import APP_ID, app_jwt, app_key
from tests.fakes.clock import FakeClock
from tests.fakes.github import IDLE_LIMIT, RemoteJob, RemoteRunner
from tests.fakes.trouble import Trouble
from workers.domain.errors import Refused
from workers.domain.names import JobId
from workers.domain.runner import DEFAULT_GROUP
from workers.github.app import AppGitHub
from workers.github.calls import Calls
from workers.github.lists import Lists
from workers.github.login import Login, Token
from workers.ports import Registration
from workers.rehearsal.github import environments
from workers.rehearsal.github.app import Simulation
from workers.rehearsal.github.broker import Broker
from workers.rehearsal.github.deliveries import payload_of
from workers.rehearsal.github.records import ApiError, Installation, Job, JobStatus, Runner
from workers.rehearsal.github.settings import Settings
from workers.rehearsal.github.world import Limits, StepOrder, fits

URL: Final = "http://simulated"
OCTO: Final = 1
STEPS: Final = (StepOrder("work", "true"),)
SESSION: Final = "story"
# A check against the description costs more than the call.
CHECKED_EVERY: Final = 25


class Announced(Protocol):
    def post(self, guid: str, content: Mapping[str, Any]) -> None:
        """Take one delivery."""


class StorySimulation(Simulation):
    """Hands its deliveries to the story."""

    def __init__(self, settings: Settings, clock: FakeClock) -> None:
        self.carrier: Announced | None = None
        self._guids = count(1)
        super().__init__(settings, clock)

    def _announce(self, action: str, job: Job) -> None:
        for installation in self.world.told_of(job.run):
            assert self.carrier is not None
            self.carrier.post(f"d-{next(self._guids)}", payload_of(action, job, installation, URL))


class Wire:
    """What PyGithub's client is to the adapter; it speaks to an application of this process."""

    def __init__(self, flask: Flask, login: str) -> None:
        self._client, self._login = flask.test_client(), login

    def requestJson(  # noqa: N802  # PyGithub's name
        self,
        verb: str,
        path: str,
        parameters: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None,
        body: Mapping[str, Any] | None,
    ) -> tuple[int, dict[str, str], str]:
        said = {"Authorization": f"Bearer {self._login}", **(headers or {})}
        answer = self._client.open(path, method=verb, query_string=parameters, headers=said, json=body)
        return answer.status_code, {name.lower(): value for name, value in answer.headers.items()}, answer.text


class StoryLogin(Login):
    """Tokens live by the story's clock."""

    def __init__(self, flask: Flask, clock: FakeClock) -> None:
        super().__init__(URL, APP_ID, app_key()[0])
        self._flask, self._clock, self._known = flask, clock, dict[int, tuple[Token, Wire]]()

    def as_app(self) -> Requester:
        return cast("Requester", Wire(self._flask, app_jwt()))

    def as_installation(self, installation_id: int, fetch: Callable[[], Token]) -> Requester:
        if installation_id not in self._known or self._known[installation_id][0].ends_at <= self._clock.now():
            token = fetch()
            self._known[installation_id] = token, Wire(self._flask, token.text)
        return cast("Requester", self._known[installation_id][1])

    def forget(self, installation_id: int) -> None:
        self._known.pop(installation_id, None)


class StoryAdapter(AppGitHub):
    """The real adapter."""

    def __init__(self, login: StoryLogin, clock: FakeClock) -> None:
        calls = Calls([login], clock=lambda: clock.now().timestamp())
        super(AppGitHub, self).__init__(calls, "")
        self.lists = Lists(calls)


class Troubled:
    """An adapter whose calls meet the story's troubles."""

    def __init__(self, adapter: object, trouble: Trouble) -> None:
        self._adapter, self._trouble = adapter, trouble

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the adapter has
        found = getattr(self._adapter, name)
        return found if not callable(found) or name == "left" else self._wrapped(name, found)

    def _wrapped(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*given: object, **more: object) -> object:
            with self._trouble.befalls("github", name, given[-1]):
                return call(*given, **more)

        return wrapped


class SimulatedGitHub(Troubled):
    """All that a story has of `tests.fakes.github.FakeGitHub`."""

    def __init__(self, clock: FakeClock, trouble: Trouble, dice: random.Random) -> None:
        settings = Settings(
            *(URL, URL, "no secret", app_key()[1], APP_ID, Limits(idle=IDLE_LIMIT)), checked_every=CHECKED_EVERY
        )
        self.simulation = StorySimulation(settings, clock)
        self.world, self._broker = self.simulation.world, Broker(self.simulation.world)
        app = self.world.app
        self.world.installations[OCTO] = Installation(OCTO, "octo", clock.now(), app, dict(app.permissions))
        adapter = StoryAdapter(StoryLogin(self.simulation.flask, clock), clock)
        super().__init__(adapter, trouble)
        self.lists = Troubled(adapter.lists, trouble)
        self._random = dice
        self.chosen: JobId | None = None
        self.loss = 0.0

    @property
    def carrier(self) -> Announced | None:
        return self.simulation.carrier

    @carrier.setter
    def carrier(self, carrier: Announced) -> None:
        self.simulation.carrier = carrier

    def register(
        self, installation_id: int, place: str, name: str, labels: Sequence[str], group_id: int = DEFAULT_GROUP
    ) -> Registration:
        """Register as the adapter does; the guests of stories read a simpler configuration."""
        found = self._wrapped("register", self._adapter.register)(  # type: ignore[attr-defined]
            installation_id, place, name, labels, group_id
        )
        return Registration(found.github_id, f"jit-{found.github_id}")

    # ------------------------------------------------------------ what the story sees

    @property
    def jobs(self) -> dict[JobId, RemoteJob]:
        return {JobId(job.id): seen(job) for job in self.world.jobs.values()}

    @property
    def runners(self) -> dict[int, Runner]:
        return self.world.live

    def attempt_of(self, run_id: int) -> int:
        return self.world.runs[run_id].attempt

    # ------------------------------------------------------------ people

    def queue(self, run_id: int, labels: tuple[str, ...], attempt: int = 1) -> None:
        """Start a run; of two jobs if there is one of this number, since no run gets jobs later here."""
        names = ["one", "two"] if run_id in self.world.runs else ["one"]
        self.world.start_run("octo/hello", names, labels, STEPS)

    def cancel(self, job_id: JobId) -> None:
        self.world.cancel(self.world.jobs[job_id])

    def hold_back(self, job_id: JobId) -> None:
        """Hold it back as if it had named an environment; that it has none else lets it be run again."""
        job = self.world.jobs[job_id]
        job.environment = "production"
        environments.hold_back(self.world, job)

    def approve(self, job_id: JobId) -> None:
        environments.approve(self.world, self.world.jobs[job_id])

    # ------------------------------------------------------------ a runner program's calls

    def connect(self, github_id: int) -> Job | None:
        """Poll for work; GitHub chooses as it likes. Raises `Refused` if the registration is gone."""
        runner = self._registered(github_id)
        with refusing():
            if runner.session is None:
                self._broker.open_session(runner, SESSION)
            self._choose(runner)
            offer = self._broker.next_offer(runner, SESSION, 0)
            if offer is not None:
                self._broker.acquire(runner, offer["job_id"])
        return runner.job

    def _choose(self, runner: Runner) -> None:
        fitting = [
            job for job in self.world.unfinished.values() if job.status is JobStatus.QUEUED and fits(runner, job)
        ]
        if fitting:
            chosen = [job for job in fitting if job.id == self.chosen]
            first = self._random.choice(chosen or fitting)
            self.world.unfinished = {first.id: first} | self.world.unfinished

    def renew(self, github_id: int) -> None:
        runner = self._registered(github_id)
        with refusing():
            self._broker.renew(runner, runner.job.id if runner.job else 0)

    def report(self, github_id: int, conclusion: str) -> None:
        runner = self._registered(github_id)
        with refusing():
            self._broker.finish(runner, runner.job.id if runner.job else 0, conclusion)

    def _registered(self, github_id: int) -> Runner:
        if github_id not in self.world.live:
            raise Refused("the registration is gone")
        return self.world.live[github_id]

    # ------------------------------------------------------------ time

    def pass_time(self) -> None:
        self.world.tick()


@contextmanager
def refusing() -> Iterator[None]:
    """Let a runner program hear no."""
    try:
        yield
    except ApiError as error:
        raise Refused(str(error)) from error


def seen(job: Job) -> RemoteJob:
    """Show a job as the stories know jobs."""
    by = job.runner if job.status in {JobStatus.IN_PROGRESS, JobStatus.COMPLETED} else None
    runner = None if by is None else RemoteRunner(by.id, by.name, by.labels, by.registered_at, by.scope)
    shown = RemoteJob(JobId(job.id), job.run.id, job.attempt, job.labels, job.name, job.run.branch, job.run.repository)
    shown.status, shown.conclusion, shown.runner = job.status.value, job.conclusion, runner
    return shown
