"""What GitHub is asked about a job, because its deliveries do not come or do not say."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Final

from workers.domain.errors import Refused, TryLater
from workers.domain.events import JobFact
from workers.domain.job import Job, JobState
from workers.domain.names import JobId
from workers.domain.runner import Runner, RunnerState
from workers.planning import facts as planning
from workers.planning.standing import is_overdue
from workers.ports import Clock, GitHub, Store
from workers.reconcilers.standing import refusal

# Webhooks get lost; an installation may ask 5,000 times an hour, so this serves some 80 jobs at once with half of it.
POLL_INTERVAL: Final = timedelta(minutes=2)
# A job may wait for weeks until somebody approves it; what its approval says is lost as rarely as anything else.
WAITING_POLL_INTERVAL: Final = timedelta(minutes=5)
# Its runner has been given a job, and we were not told that it is this one: perhaps it is not.
TAKEN_POLL_INTERVAL: Final = timedelta(seconds=15)
# GitHub answers 404 for a moment to what it knows very well, so one says nothing: another must, so much later.
UNKNOWN_LIMIT: Final = timedelta(minutes=1)


class Polls:
    """Asks GitHub about one job, no more often than there is a reason to."""

    def __init__(self, store: Store, github: GitHub, clock: Clock, interval: timedelta = POLL_INTERVAL) -> None:
        """`interval` is how long nothing may be heard of a job that is queued or runs until GitHub is asked."""
        self._store, self._github, self._clock, self._usual = store, github, clock, interval
        self._asked_at: dict[JobId, datetime] = {}  # forgotten at a restart, which costs one more question a job
        self._unknown_since: dict[JobId, datetime] = {}  # forgotten at a restart, after which it takes two more
        self._due_at: dict[JobId, datetime] = {}
        self._notes = (self._asked_at, self._unknown_since, self._due_at)
        self._answered_at: dict[JobId, datetime] = {}  # forgotten at a restart, after which the facts say when
        self._denied: dict[JobId, str] = {}

    def may_rest(self, job: Job, runner: Runner | None, now: datetime) -> bool:
        """Say whether a job that has this runner is known not to be asked about yet, as long as no fact comes."""
        return now < self._due_at.get(job.id, now) and not is_in_doubt(job, runner)

    def keep_only(self, jobs: Collection[JobId]) -> None:
        """Forget every other job."""
        for notes in (*self._notes, self._answered_at, self._denied):
            for gone in [job_id for job_id in list(notes) if job_id not in jobs]:
                notes.pop(gone, None)

    def why_stopped(self, job: Job, facts: Sequence[JobFact]) -> str | None:
        """Say in words why nothing is done any more for an open job, None if all is well."""
        if because := refusal(self._store, job.installation_id, job.repository):
            return because
        denied = self._denied.get(job.id)
        if denied is None or job.end is not None or not self._is_overdue(job, facts):
            return None
        late = "GitHub does not say what became of it, and lets no job wait or run for as long as this one has"
        return f"{late} ({denied}); let the App in again and run the workflow again"

    def _is_overdue(self, job: Job, facts: Sequence[JobFact]) -> bool:
        return is_overdue(job, facts, self._answered_at.get(job.id), self._clock.now())

    def of(self, job: Job, facts: Sequence[JobFact]) -> JobFact | None:
        """Return what GitHub says of this job now; None if there is no reason to ask, or no answer."""
        now = self._clock.now()
        is_refused = job.unserved is not None and job.state is JobState.QUEUED
        if job.end is not None or (is_refused and not self._is_overdue(job, facts)):
            self._forget(job)
            return None
        heard_at = max([fact.seen_at for fact in facts], default=job.queued_at)
        silent_for = now - max(heard_at, self._asked_at.get(job.id, heard_at))
        if planning.waits(job, facts) is not None and silent_for < (interval := self._interval(job)):
            self._due_at[job.id] = now - silent_for + interval
            return None
        self._asked_at[job.id] = now
        try:
            seen = self._github.job(job.installation_id, job.repository, job.id)
            if seen is None and not self._is_gone(job, now):
                return None
        except TryLater:
            return None  # asked again when the interval is over; the webhooks may come by themselves
        except Refused as error:
            self._denied[job.id] = str(error)
            return None
        self._denied.pop(job.id, None)
        self._answered_at[job.id] = now
        if seen is None:
            return planning.polled_fact(job, "completed", "cancelled", (None, None), now)
        self._unknown_since.pop(job.id, None)
        return planning.polled_fact(job, seen.status, seen.conclusion, (seen.runner_id, seen.runner_name), now)

    def _is_gone(self, job: Job, now: datetime) -> bool:
        """Say whether a job that GitHub does not know now is no more; raises what asking GitHub raises.

        A registration ends with its one job, so as long as that of a busy runner is there the job is, too.
        """
        if now - self._unknown_since.setdefault(job.id, now) < UNKNOWN_LIMIT:
            return False
        runner = self._store.runners.get(job.runner_id) if job.runner_id else None
        if runner is None or runner.state is not RunnerState.BUSY:
            return True
        return self._github.number_of(runner.installation_id, runner.place, runner.id) is None

    def _forget(self, job: Job) -> None:
        for notes in self._notes:
            notes.pop(job.id, None)

    def _interval(self, job: Job) -> timedelta:
        if job.state is JobState.WAITING:
            return WAITING_POLL_INTERVAL
        return TAKEN_POLL_INTERVAL if is_in_doubt(job, self._runner(job)) else self._usual

    def _runner(self, job: Job) -> Runner | None:
        return self._store.runners.get(job.runner_id) if job.runner_id and job.state is JobState.PLACED else None


def is_in_doubt(job: Job, runner: Runner | None) -> bool:
    """Say whether the runner on which a job counts has been given a job, and nobody has said which one."""
    return job.state is JobState.PLACED and runner is not None and runner.state is RunnerState.BUSY
