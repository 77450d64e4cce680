"""Runs and jobs that GitHub knows and nobody told us of: a sweep of the repositories in which anything happens.

active repositories, all of them after a start ─▶ unfinished runs ─▶ their jobs ─▶ what is not in our rows
where a runner has run what nobody told us of ──▶ finished runs ──────┘               └─▶ written as a delivery
every half hour, when nothing else is to be asked ─────┘
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog

from workers.domain.errors import Refused, TryLater
from workers.domain.events import Delivery
from workers.domain.installation import EVERYBODY, Guests
from workers.domain.job import Job
from workers.domain.listed import JobListed, Scope
from workers.domain.names import JobId, RunnerId
from workers.domain.runner import Runner, place_of
from workers.listing import GitHubLists
from workers.planning.catching_up import news, runs_to_ask
from workers.planning.pace import PLENTY, slowed
from workers.ports import Clock, Hints, Store
from workers.reconcilers.standing import require_served

log = structlog.get_logger()

# With the refill's and the sweep's own pace below five minutes.
SWEEP_INTERVAL: Final = timedelta(minutes=4)
REFILL_INTERVAL: Final = timedelta(seconds=10)
# A repository that was quiet over a long weekend is still one whose next job must not be lost.
ACTIVE_LIMIT: Final = timedelta(days=7)
# What a runner has run that nobody told us of is looked for if it was asked for within so long.
UNTOLD_LIMIT: Final = timedelta(hours=2)
# Of what has ended without a runner of ours nothing is left to be done. It is asked for so that no job is missing from
# the record, so seldom: once in so many sweeps, and as long as GitHub answers plenty.
SWEEPS_PER_RECORD: Final = 8
# A look is a task, and ends in less time than a task may take.
LOOK_LIMIT: Final = timedelta(seconds=20)


@dataclass(frozen=True)
class _Question:
    """What is still to be asked: the runs of a repository, or (with a run) the jobs of one."""

    scope: Scope
    run_id: int | None = None
    ended_since: datetime | None = None
    """Asks for the runs that have ended since then."""
    sought: tuple[Runner, ...] = ()
    """Asks only as long as it is not known of one of these runners what it has run."""
    ended_at: datetime | None = None
    """When that run ended, if it did."""
    is_quiet: bool = False
    """Nothing was heard of the repository for so long that it is only asked once, after a start."""


class CatchUp:
    """Asks GitHub for what was not delivered. Doubled looks cost requests and nothing else."""

    def __init__(
        self,
        store: Store,
        lists: GitHubLists,
        hints: Hints,
        clock: Clock,
        interval: timedelta = SWEEP_INTERVAL,
        served: Guests = EVERYBODY,
    ) -> None:
        """`served` says whose jobs are served; of others nothing is asked but what becomes of those that we know."""
        self._store, self._lists, self._hints = store, lists, hints
        self._clock, self._interval, self._served = clock, interval, served
        self._questions: deque[_Question] = deque()
        self._for_the_record: deque[_Question] = deque()
        self._recorded_at: dict[Scope, datetime] = {}
        """Of runs that ended before then every job is known."""
        self._swept_at: dict[Scope, datetime] = {}
        self._unlisted = set(lists.apps)
        self._sought: dict[RunnerId, Runner] = {}
        self._looked_for: dict[RunnerId, Runner] = {}
        self._heard: dict[tuple[Scope, int], datetime] = {}
        """When those runs had ended of which every job was heard since: nothing of them is ever news again."""
        self._refilled_at: datetime | None = None

    def is_due(self, now: datetime) -> bool:
        """Say whether there is something to ask, or it is time to see whether there is."""
        is_stale = self._refilled_at is None or now - self._refilled_at >= min(REFILL_INTERVAL, self._interval)
        return bool(self._questions) or is_stale

    def look(self) -> None:
        """Ask for as long as a look may last; the rest is asked by the next ones. Raises `TryLater`."""
        began = self._clock.now()
        if not self._questions:
            self._refill(began)
        while self._clock.now() - began < LOOK_LIMIT and (questions := self._questions or self._for_the_record):
            question = questions.popleft()
            if questions is self._for_the_record and self._puts_off(question):
                continue
            try:
                self._ask(question, questions)
            except Refused as error:  # our App is not installed there any more
                log.warning("sweep_refused", repository=question.scope.repository, why=str(error))
            except TryLater:
                questions.append(question)  # another installation may still be answered
                raise

    def ask_about(self, scope: Scope, run_id: int) -> None:
        """Ask for the jobs of one run now. Raises `TryLater` and `Refused`."""
        require_served(self._store, scope.installation_id, scope.repository)
        self._hear(scope, self._lists.all_jobs(scope, run_id))

    def _refill(self, now: datetime) -> None:
        """Note which repositories are to be asked again; after a start all that there are, once."""
        self._refilled_at = now
        active = self._store.active_repositories(now - ACTIVE_LIMIT)
        scopes = dict.fromkeys((*active, *(_scope(job) for job in self._store.jobs.open())))
        due = [scope for scope in scopes if self._is_due(scope, now)]
        quiet = [scope for scope in self._everywhere() if scope not in scopes]
        self._swept_at |= dict.fromkeys((*due, *quiet), now)
        self._questions.extend(_Question(scope) for scope in due)
        self._questions.extend(_Question(scope, is_quiet=True) for scope in quiet)
        self._heard = {run: at for run, at in self._heard.items() if now - at < UNTOLD_LIMIT}
        self._seek(self._store.untold(now - UNTOLD_LIMIT), active)
        if not self._for_the_record:
            self._record(active, now)

    def _record(self, active: Sequence[Scope], now: datetime) -> None:
        """Ask for what has ended, where that is due."""
        for scope in active:
            since = max(self._recorded_at.get(scope, now - UNTOLD_LIMIT), now - UNTOLD_LIMIT)
            if now - since >= self._interval * SWEEPS_PER_RECORD:
                self._recorded_at[scope] = now
                self._for_the_record.append(_Question(scope, ended_since=since))

    def _puts_off(self, question: _Question) -> bool:
        """Leave for later what is only for the record, if GitHub answers plenty no more."""
        if self._lists.left(question.scope.installation_id) >= PLENTY:
            return False
        since = question.ended_since or question.ended_at
        if since is not None:
            self._recorded_at[question.scope] = min(self._recorded_at[question.scope], since)
        return True

    def _seek(self, untold: Sequence[Runner], active: Sequence[Scope]) -> None:
        """Ask once for what each of these has run, wherever it may have got a job."""
        fresh = [one for one in untold if one.id not in self._looked_for]
        self._looked_for = {one.id: one for one in untold}
        self._sought = {key: one for key, one in self._sought.items() if key in self._looked_for}
        self._sought |= {one.id: one for one in fresh}
        for scope in active:
            near = (one for one in fresh if one.installation_id == scope.installation_id)
            there = [one for one in near if place_of(scope.repository, one.level).lower() == one.place.lower()]
            if there:
                since = min(one.requested_at for one in there)
                self._questions.append(_Question(scope, ended_since=since, sought=tuple(there)))

    def _is_due(self, scope: Scope, now: datetime) -> bool:
        at = self._swept_at.get(scope)
        return at is None or now - at >= slowed(self._interval, self._lists.left(scope.installation_id))

    def _everywhere(self) -> list[Scope]:
        """Return where the Apps are installed that were not asked for it yet since the start."""
        found = list[Scope]()
        for app in sorted(self._unlisted):
            try:
                found += self._lists.repositories(app)
            except (TryLater, Refused) as error:  # asked again at the next refill; what is known is swept meanwhile
                log.info("later", kind="repositories", id=app, why=str(error))
            else:
                self._unlisted.discard(app)
        return found

    def _ask(self, question: _Question, beside: deque[_Question]) -> None:
        """Ask one question; those that its answer raises are put `beside` it."""
        scope, run_id, ended_at = question.scope, question.run_id, question.ended_at
        if question.sought and not any(one.id in self._sought for one in question.sought):
            return  # they were found
        if run_id is not None:
            if ended_at is None or self._heard.get((scope, run_id)) != ended_at:
                self.ask_about(scope, run_id)
            if ended_at is not None:
                self._heard[scope, run_id] = ended_at
            return
        require_served(self._store, scope.installation_id, scope.repository)
        if question.ended_since is not None:
            ended = self._lists.finished_runs(scope, question.ended_since)
            beside.extend(_Question(scope, run, sought=question.sought, ended_at=at) for run, at in ended.items())
            return
        rows = [job for job in self._store.jobs.open() if _scope(job) == scope]
        if not rows and self._is_denied(scope):
            return
        runs = runs_to_ask(self._lists.unfinished_runs(scope, is_quiet=question.is_quiet), rows)
        beside.extend(_Question(scope, run) for run in runs)

    def _hear(self, scope: Scope, jobs: Sequence[JobListed]) -> None:
        rows = {job.id: row for job in jobs if (row := self._store.jobs.get(job.id)) is not None}
        told = [job for job in jobs if job.id in rows] if self._is_denied(scope) else jobs
        if found := list(news(told, rows, scope, self._clock.now(), self._ours(told, rows))):
            self._write(found, scope)
        for job in told:
            if job.runner_name is not None and job.status == "completed":
                self._sought.pop(RunnerId(job.runner_name), None)

    def _ours(self, told: Sequence[JobListed], rows: Mapping[JobId, Job]) -> frozenset[RunnerId]:
        """Return the runners of ours that have run one of these of which nobody told us."""
        unheard = (job for job in told if job.id not in rows and job.status == "completed")
        names = {RunnerId(job.runner_name) for job in unheard if job.runner_name is not None}
        return frozenset(name for name in names if self._store.runners.get(name) is not None)

    def _write(self, found: Sequence[Delivery], scope: Scope) -> None:
        self._store.write_deliveries(found)
        missed = [one.fact for one in found if one.fact is not None]
        for fact in missed:
            log.info("delivery_missed", job=fact.job_id, action=fact.action.value, repository=scope.repository)
        self._hints.look_at("job", *(str(fact.job_id) for fact in missed))

    def _is_denied(self, scope: Scope) -> bool:
        return self._served.refusal(scope.installation_id, scope.repository) is not None


def _scope(job: Job) -> Scope:
    return Scope(job.installation_id, job.repository)
