"""The simulated GitHub's state and rules: accounts, registrations, runs and their jobs.

    job      QUEUED ──▶ IN_PROGRESS ──▶ COMPLETED        runner   registered ──▶ offered ──▶ busy ──▶ gone
               ▲ │ offered                                            │            │
               └─┘ not taken within 60 s                              └── idle ────┴─ deregistered ──▶ gone

One lock guards everything; `changed` wakes the long polls. Each change of a job is announced while the lock is held, so
that announcements are in the order of the changes.
"""

from __future__ import annotations

import itertools
import secrets
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Final

from workers.ports import Clock
from workers.rehearsal.github.records import (
    ApiError,
    Installation,
    Job,
    JobStatus,
    Run,
    Runner,
    Step,
    Token,
    Violation,
)

TOKEN_LIMIT: Final = timedelta(minutes=60)
# GitHub takes a job back from a runner that was given it and does not start it.
TAKE_LIMIT: Final = timedelta(seconds=60)
# A runner polls for 50 s at most, so one that has been silent for longer than this is not there.
ONLINE_LIMIT: Final = timedelta(seconds=65)
# A registration that nobody has used yet stays much longer than one whose runner waits.
NEVER_CONNECTED_LIMIT: Final = timedelta(days=1)
LABEL_LENGTH_MAX: Final = 256
VIOLATIONS_MAX: Final = 1000

Announce = Callable[[str, Job], None]


@dataclass(frozen=True)
class Limits:
    """The spans that GitHub does not let anybody choose, and that a rehearsal must shorten."""

    lock: timedelta = timedelta(minutes=10)
    idle: timedelta = timedelta(minutes=5)
    token: timedelta = TOKEN_LIMIT


@dataclass(frozen=True)
class StepOrder:
    """A `run:` step of a workflow."""

    name: str
    run: str


class World:
    """Everything that GitHub would keep, behind one lock."""

    def __init__(self, clock: Clock, limits: Limits, announce: Announce) -> None:
        """`announce(action, job)` is called under the lock and must return at once."""
        self.clock = clock
        self.limits = limits
        self.announce = announce
        self.changed = threading.Condition(threading.RLock())
        self.installations: dict[int, Installation] = {}
        self.tokens: dict[str, Token] = {}
        self.runners: dict[int, Runner] = {}
        self.runs: dict[int, Run] = {}
        self.jobs: dict[int, Job] = {}
        self.violations: list[Violation] = []
        self._ids = itertools.count(1_000_001)

    def violated(self, where: str, what: str) -> None:
        """Keep what nobody may do, for tests and the demo to read."""
        with self.changed:
            if len(self.violations) < VIOLATIONS_MAX:
                self.violations.append(Violation(self.clock.now(), where, what))

    # ---------------------------------------------------------------- accounts

    def install(self, account: str) -> Installation:
        """Install the App in an account; once."""
        with self.changed:
            known = self.installation_of(account)
            if known is None:
                known = Installation(next(self._ids), account, self.clock.now())
                self.installations[known.id] = known
            return known

    def installation_of(self, account: str) -> Installation | None:
        """Find the installation of an account, which GitHub compares without case."""
        wanted = account.lower()
        return next((one for one in self.installations.values() if one.account.lower() == wanted), None)

    def issue_token(self, installation_id: int) -> Token:
        """Make an access token for an installation."""
        with self.changed:
            if installation_id not in self.installations:
                raise ApiError(HTTPStatus.NOT_FOUND, "Not Found")
            expires_at = self.clock.now() + self.limits.token
            token = Token(f"ghs_{secrets.token_hex(18)}", self.installations[installation_id], expires_at)
            self.tokens[token.text] = token
            return token

    def installation_by_token(self, text: str) -> Installation:
        """Return whose token this is."""
        with self.changed:
            token = self.tokens.get(text)
            if token is None or token.expires_at <= self.clock.now():
                raise ApiError(HTTPStatus.UNAUTHORIZED, "Bad credentials")
            return token.installation

    # ---------------------------------------------------------------- registrations

    def add_runner(self, scope: str, name: str, labels: Sequence[str]) -> Runner:
        """Register a just-in-time runner; it has the labels that were asked for and no others."""
        if any(not label.strip() or len(label) > LABEL_LENGTH_MAX for label in labels):
            raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid label: must be between 1 and 256 characters")
        with self.changed:
            if any(runner.name == name for runner in self.runners_in(scope)):
                text = f"Already exists - A runner with the name {name} already exists."
                raise ApiError(HTTPStatus.CONFLICT, text)
            secret = secrets.token_urlsafe(48)
            runner = Runner(next(self._ids), name, tuple(labels), scope, secret, self.clock.now())
            self.runners[runner.id] = runner
            return runner

    def runners_in(self, scope: str) -> list[Runner]:
        """Return the live registrations of a repository or an organization."""
        wanted = scope.lower()
        return [one for one in self.runners.values() if one.scope.lower() == wanted and one.gone_because is None]

    def runner_in(self, scope: str, runner_id: int) -> Runner:
        """Return one live registration."""
        found = next((one for one in self.runners_in(scope) if one.id == runner_id), None)
        if found is None:
            raise ApiError(HTTPStatus.NOT_FOUND, "Not Found")
        return found

    def remove_runner(self, scope: str, runner_id: int) -> None:
        """Deregister a runner that runs nothing."""
        with self.changed:
            runner = self.runner_in(scope, runner_id)
            if is_busy(runner):
                text = f"Bad request - Runner {runner.name!r} is still running a job."
                raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, text)
            self.end_runner(runner, "it was deregistered")

    def end_runner(self, runner: Runner, because: str) -> None:
        """Forget a registration; what was offered to it is queued again."""
        with self.changed:
            runner.gone_because = because
            if runner.job is not None and runner.job.status is JobStatus.QUEUED:
                runner.job.runner = runner.job.offered_until = None
            runner.job = None
            self.changed.notify_all()

    # ---------------------------------------------------------------- runs and jobs

    def start_run(
        self,
        repository: str,
        names: Sequence[str],
        labels: Sequence[str],
        steps: Sequence[StepOrder],
        *,
        of_fork: bool = False,
    ) -> Run:
        """Start a workflow run with one job per name, all alike; `of_fork`: for the code of a fork."""
        with self.changed:
            installation = self.installation_of(repository.split("/", maxsplit=1)[0])
            if installation is None:
                text = f"the App is not installed for {repository!r}; POST /_simulator/installations first"
                raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, text)
            run = Run(next(self._ids), repository, installation, self.clock.now(), is_of_fork=of_fork)
            self.runs[run.id] = run
            for slot, name in enumerate(names):
                self._queue(run, slot, name, tuple(labels), steps)
            return run

    def rerun_failed(self, run: Run) -> None:
        """Start another attempt with what failed; GitHub sends `completed` of the earlier attempt's jobs once more."""
        with self.changed:
            if not run.is_over:
                raise ApiError(HTTPStatus.FORBIDDEN, "This workflow is already running")
            earlier = run.of_attempt()
            failed = [job for job in earlier if job.conclusion in {"failure", "cancelled"}]
            if not failed:
                raise ApiError(HTTPStatus.FORBIDDEN, "This workflow run cannot be retried")
            run.attempt += 1
            for job in earlier:
                self.announce("completed", job)
            for job in failed:
                orders = [StepOrder(step.name, step.run) for step in job.steps]
                self._queue(run, job.slot, job.name, job.labels, orders)

    def _queue(self, run: Run, slot: int, name: str, labels: tuple[str, ...], orders: Iterable[StepOrder]) -> None:
        steps = [Step(number, order.name, order.run) for number, order in enumerate(orders, start=1)]
        job = Job(next(self._ids), run, slot, run.attempt, name, labels, steps, self.clock.now())
        run.jobs.append(job)
        self.jobs[job.id] = job
        self.announce("queued", job)
        self.changed.notify_all()

    def complete(self, job: Job, conclusion: str) -> None:
        """End a job, and with it the registration of the runner that had it."""
        with self.changed:
            now = self.clock.now()
            job.status, job.conclusion, job.completed_at, job.lock_until = JobStatus.COMPLETED, conclusion, now, None
            job.started_at = job.started_at or now
            for step in job.steps:
                close_step(step, conclusion, now)
            if job.runner is not None:
                self.end_runner(job.runner, f"its job {job.id} is over ({conclusion})")
            self.announce("completed", job)
            self.changed.notify_all()

    def cancel(self, job: Job) -> None:
        """Cancel a job, as a person would."""
        with self.changed:
            if job.is_over:
                raise ApiError(HTTPStatus.CONFLICT, f"job {job.id} is over already")
            self.complete(job, "cancelled")

    # ---------------------------------------------------------------- what time does

    def tick(self) -> None:
        """Carry out what is due: locks and offers expire, idle registrations are removed."""
        with self.changed:
            now = self.clock.now()
            for job in list(self.jobs.values()):
                if job.lock_until is not None and job.lock_until <= now:
                    self.complete(job, "failure")
                elif job.offered_until is not None and job.offered_until <= now:
                    self._take_back(job)
            for runner in list(self.runners.values()):
                if runner.gone_because is None and runner.job is None and self._is_abandoned(runner, now):
                    self.end_runner(runner, "it was idle for too long")

    def _is_abandoned(self, runner: Runner, now: datetime) -> bool:
        """Say whether GitHub would remove a runner that has no job."""
        if runner.connected_at is None:
            return now - runner.registered_at > NEVER_CONNECTED_LIMIT
        return now - runner.connected_at > self.limits.idle

    def _take_back(self, job: Job) -> None:
        """Queue a job again that its runner did not take."""
        if job.runner is not None:
            job.runner.job = None
        job.runner = job.offered_until = None
        self.changed.notify_all()

    def is_online(self, runner: Runner) -> bool:
        """Say whether a runner has spoken lately."""
        return runner.seen_at is not None and self.clock.now() - runner.seen_at <= ONLINE_LIMIT


def is_busy(runner: Runner) -> bool:
    """Say whether a runner has taken a job."""
    return runner.job is not None and runner.job.status is JobStatus.IN_PROGRESS


def fits(runner: Runner, job: Job) -> bool:
    """Say whether GitHub would give this runner the job: its scope, and a superset of the labels without case."""
    repository = job.run.repository.lower()
    if runner.scope.lower() not in {repository, repository.split("/", maxsplit=1)[0]}:
        return False
    return {label.lower() for label in job.labels} <= {label.lower() for label in runner.labels}


def close_step(step: Step, conclusion: str, now: datetime) -> None:
    """Give a step that has not ended the end that its job forces on it."""
    if step.conclusion is None:
        step.conclusion = "skipped" if step.started_at is None else conclusion
        step.completed_at = now
