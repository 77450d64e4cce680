"""The simulated GitHub's state and rules: accounts, registrations, runs and their jobs.

    job      QUEUED ──▶ IN_PROGRESS ──▶ COMPLETED        runner   registered ──▶ offered ──▶ busy ──▶ gone
             ▲ ▲ │ offered                                            │            │
             │ └─┘ not taken within 60 s                              └── idle ────┴─ deregistered ──▶ gone
             ▼
           WAITING, in `environments`

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
    DEFAULT_GROUP,
    ApiError,
    App,
    Group,
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
IDLE_TOO_LONG: Final = "it was idle for too long"

Announce = Callable[[str, Job], None]


@dataclass(frozen=True)
class Limits:
    """The spans that GitHub does not let anybody choose, and that a rehearsal must shorten."""

    lock: timedelta = timedelta(minutes=10)
    idle: timedelta = timedelta(minutes=2)
    token: timedelta = TOKEN_LIMIT


@dataclass(frozen=True)
class StepOrder:
    """A `run:` step of a workflow."""

    name: str
    run: str


class World:
    """Everything that GitHub would keep, behind one lock."""

    def __init__(self, clock: Clock, limits: Limits, announce: Announce, app: App) -> None:
        """`announce(action, job)` is called under the lock and must return at once; `app` is the first App."""
        self.app = app
        self.clock = clock
        self.limits = limits
        self.announce = announce
        self.changed = threading.Condition(threading.RLock())
        self.installations: dict[int, Installation] = {}
        self.tokens: dict[str, Token] = {}
        self.runners: dict[int, Runner] = {}
        self.live: dict[int, Runner] = {}
        """The registrations that are not gone."""
        self.by_secret: dict[str, Runner] = {}
        self.runs: dict[int, Run] = {}
        self.jobs: dict[int, Job] = {}
        self.unfinished: dict[int, Job] = {}
        """The jobs that are not completed, oldest first."""
        self.private: set[str] = set()
        """Repositories that not everybody can see, in lower case."""
        self.oldest_version = ""
        """Of a runner's program that is still given jobs."""
        self.violations: list[Violation] = []
        self._ids = itertools.count(1_000_001)

    def free_id(self) -> int:
        """Return a number that nothing has yet."""
        return next(self._ids)

    def violated(self, where: str, what: str) -> None:
        """Keep what nobody may do, for tests and the demo to read."""
        with self.changed:
            if len(self.violations) < VIOLATIONS_MAX:
                self.violations.append(Violation(self.clock.now(), where, what))

    # ---------------------------------------------------------------- accounts

    def install(self, account: str, app: App | None = None, permissions: dict[str, str] | None = None) -> Installation:
        """Install an App in an account, once: the first App, and with all that it asks for, unless others are named."""
        app = app or self.app
        with self.changed:
            known = self.installation_of(account, app)
            if known is None:
                accepted = app.permissions if permissions is None else permissions
                known = Installation(next(self._ids), account, self.clock.now(), app, dict(accepted))
                self.installations[known.id] = known
            return known

    def installation_of(self, account: str, app: App | None = None) -> Installation | None:
        """Find the installation of an App in an account, the latest of any App if none is named.

        GitHub compares accounts without case.
        """
        with self.changed:
            wanted, found = account.lower(), reversed(self.installations.values())
            here = (one for one in found if one.account.lower() == wanted and (app is None or app is one.app))
            return next(here, None)

    def repositories_of(self, installation: Installation) -> list[str]:
        """Return the repositories of an installation in which anything ever ran, the oldest first."""
        account = installation.account.lower()
        with self.changed:
            names = dict.fromkeys(run.repository for run in self.runs.values())
            return [name for name in names if name.lower().partition("/")[0] == account]

    def issue_token(self, installation_id: int) -> Token:
        """Make an access token for an installation."""
        with self.changed:
            if installation_id not in self.installations:
                raise ApiError(HTTPStatus.NOT_FOUND, "Not Found")
            if self.installations[installation_id].suspended_at is not None:
                raise ApiError(HTTPStatus.FORBIDDEN, "This installation has been suspended")
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
            if token.installation.id not in self.installations:
                raise ApiError(HTTPStatus.UNAUTHORIZED, "Bad credentials")
            installation = self.installations[token.installation.id]
            if installation.suspended_at is not None:
                raise ApiError(HTTPStatus.FORBIDDEN, "This installation has been suspended")
            return installation

    def told_of(self, run: Run) -> list[Installation]:
        """Return whose Apps hear of a run: all that are installed there, but not once one is suspended or removed."""
        repository = run.repository.lower()
        here = [one for one in self.installations.values() if one.account.lower() == repository.partition("/")[0]]
        return [one for one in here if one.suspended_at is None and repository not in one.left]

    # ---------------------------------------------------------------- registrations

    def add_runner(self, scope: str, name: str, labels: Sequence[str], group: Group = DEFAULT_GROUP) -> Runner:
        """Register a just-in-time runner; it has the labels that were asked for and no others."""
        if any(not label.strip() or len(label) > LABEL_LENGTH_MAX for label in labels):
            raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid label: must be between 1 and 256 characters")
        with self.changed:
            if any(runner.name == name for runner in self.runners_in(scope)):
                text = f"Already exists - A runner with the name {name} already exists."
                raise ApiError(HTTPStatus.CONFLICT, text)
            secret = secrets.token_urlsafe(48)
            runner = Runner(next(self._ids), name, tuple(labels), scope, secret, self.clock.now(), group=group)
            self.runners[runner.id] = self.live[runner.id] = self.by_secret[secret] = runner
            return runner

    def runners_in(self, scope: str) -> list[Runner]:
        """Return the live registrations of a repository or an organization."""
        wanted = scope.lower()
        with self.changed:
            return [one for one in self.live.values() if one.scope.lower() == wanted]

    def runner_in(self, scope: str, runner_id: int) -> Runner:
        """Return one live registration."""
        found = self.live.get(runner_id)
        if found is None or found.scope.lower() != scope.lower():
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
            self.live.pop(runner.id, None)
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
        branch: str = "main",
        environment: str | None = None,
    ) -> Run:
        """Start a workflow run with one job per name, all alike; `of_fork`: for the code of a fork."""
        with self.changed:
            if self.installation_of(repository.split("/", maxsplit=1)[0]) is None:
                text = f"the App is not installed for {repository!r}; POST /_simulator/installations first"
                raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, text)
            now = self.clock.now()
            is_private = repository.lower() in self.private
            run = Run(next(self._ids), repository, now, is_of_fork=of_fork, branch=branch, is_private=is_private)
            self.runs[run.id] = run
            for slot, name in enumerate(names):
                self._queue(run, slot, name, tuple(labels), steps, environment)
            return run

    def rerun_failed(self, run: Run) -> None:
        """Start another attempt with what failed."""
        with self.changed:
            if not run.is_over:
                raise ApiError(HTTPStatus.FORBIDDEN, "This workflow is already running")
            failed = [job for job in run.of_attempt() if job.conclusion in {"failure", "cancelled"}]
            if not failed:
                raise ApiError(HTTPStatus.FORBIDDEN, "This workflow run cannot be retried")
            self._rerun(run, failed)

    def rerun_job(self, job: Job) -> None:
        """Start another attempt with this one job, however it had ended; others depend on none here."""
        with self.changed:
            if not job.run.is_over:
                raise ApiError(HTTPStatus.FORBIDDEN, "The workflow run containing this job is already running")
            if any(one.slot == job.slot and one.attempt > job.attempt for one in job.run.jobs):
                raise ApiError(HTTPStatus.FORBIDDEN, "This job cannot be retried")
            self._rerun(job.run, [job])

    def _rerun(self, run: Run, again: Sequence[Job]) -> None:
        """Begin the attempt; GitHub sends `completed` of the earlier attempt's jobs once more."""
        earlier = run.of_attempt()
        run.attempt += 1
        for job in earlier:
            self.announce("completed", job)
        for job in again:
            orders = [StepOrder(step.name, step.run) for step in job.steps]
            self._queue(run, job.slot, job.name, job.labels, orders, job.environment)

    def _queue(
        self,
        run: Run,
        slot: int,
        name: str,
        labels: tuple[str, ...],
        orders: Iterable[StepOrder],
        environment: str | None,
    ) -> None:
        steps = [Step(number, order.name, order.run) for number, order in enumerate(orders, start=1)]
        job = Job(
            next(self._ids), run, slot, run.attempt, name, labels, steps, self.clock.now(), environment=environment
        )
        run.jobs.append(job)
        self.jobs[job.id] = self.unfinished[job.id] = job
        self.announce("queued", job)
        self.changed.notify_all()

    def complete(self, job: Job, conclusion: str) -> None:
        """End a job, and with it the registration of the runner that had it."""
        with self.changed:
            now = self.clock.now()
            self.unfinished.pop(job.id, None)
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
            for job in list(self.unfinished.values()):
                if job.lock_until is not None and job.lock_until <= now:
                    self.complete(job, "failure")
                elif job.offered_until is not None and job.offered_until <= now:
                    self.take_back(job)
            for runner in list(self.live.values()):
                if runner.job is None and self._is_abandoned(runner, now):
                    self.end_runner(runner, IDLE_TOO_LONG)

    def expire_tokens(self) -> int:
        """Let every access token end now; return how many there were."""
        with self.changed:
            ended = len(self.tokens)
            self.tokens.clear()
            return ended

    def expire_lock(self, job: Job) -> None:
        """Let a running job's lock end now, as if its runner had not renewed it: the job fails."""
        with self.changed:
            if job.lock_until is None:
                raise ApiError(HTTPStatus.CONFLICT, f"job {job.id} has no lock: it is {job.status.value}")
            self.complete(job, "failure")

    def remove_idle(self) -> list[Runner]:
        """Remove every runner that is connected and has no job, as if it had waited for minutes; return them."""
        with self.changed:
            idle = [one for one in self.live.values() if one.job is None and one.connected_at is not None]
            for runner in idle:
                self.end_runner(runner, IDLE_TOO_LONG)
            return idle

    def _is_abandoned(self, runner: Runner, now: datetime) -> bool:
        """Say whether GitHub would remove a runner that has no job."""
        if runner.connected_at is None:
            return now - runner.registered_at > NEVER_CONNECTED_LIMIT
        return now - runner.connected_at > self.limits.idle

    def take_back(self, job: Job) -> None:
        """Queue a job again that its runner did not take."""
        if job.runner is not None:
            job.runner.job = None
        job.runner = job.offered_until = None
        self.changed.notify_all()

    def is_outdated(self, runner: Runner) -> bool:
        """Say whether a runner's program is too old: GitHub lets it wait, gives it no job, and removes it."""
        return _numbers_of(runner.version) < _numbers_of(self.oldest_version)

    def is_online(self, runner: Runner) -> bool:
        """Say whether a runner has spoken lately."""
        return runner.seen_at is not None and self.clock.now() - runner.seen_at <= ONLINE_LIMIT


def _numbers_of(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


def is_busy(runner: Runner) -> bool:
    """Say whether a runner has taken a job."""
    return runner.job is not None and runner.job.status is JobStatus.IN_PROGRESS


def fits(runner: Runner, job: Job) -> bool:
    """Say whether GitHub would give this runner the job: its scope and group, and its labels and more, without case."""
    repository = job.run.repository.lower()
    if runner.scope.lower() not in {repository, repository.split("/", maxsplit=1)[0]}:
        return False
    if not runner.group.admits(repository):
        return False
    return {label.lower() for label in job.labels} <= {label.lower() for label in runner.labels}


def close_step(step: Step, conclusion: str, now: datetime) -> None:
    """Give a step that has not ended the end that its job forces on it."""
    if step.conclusion is None:
        step.conclusion = "skipped" if step.started_at is None else conclusion
        step.completed_at = now
