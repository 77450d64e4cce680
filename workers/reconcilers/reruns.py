"""Jobs that were lost after all: said beside the commit, and run again as soon as GitHub allows it, or not and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from workers.domain.errors import NotThere, Refused, TryLater
from workers.domain.events import Event, Happening
from workers.domain.job import Job, Rerun
from workers.domain.names import JobId
from workers.planning import facts
from workers.planning import reruns as planning
from workers.planning.reruns import Way
from workers.ports import Clock, GitHub, Lease, Store
from workers.reconcilers.answers import Answers
from workers.reconcilers.deployments import Deployed
from workers.reconcilers.doubts import Doubts

# The attempt has ended for all that we know and GitHub says that it has not: some job of it is not known to us.
ASK_INTERVAL: Final = timedelta(seconds=30)
# Some job of it is open for all that we know; that it has ended may not have been told us.
DOUBT_INTERVAL: Final = timedelta(minutes=2)


class Reruns:
    """Advances one lost job at a time."""

    def __init__(self, store: Store, github: GitHub, clock: Clock, answers: Answers, deployed: Deployed) -> None:
        self._store, self._github, self._clock = store, github, clock
        self._answers, self._deployed, self._doubts = answers, deployed, Doubts(clock)
        self._asked_at: dict[JobId, datetime] = {}  # forgotten at a restart, which costs one more question a job

    def advance(self, lease: Lease[Job]) -> None:
        """Say what happened to a lost job, and once GitHub has failed it have it run again. Raises `TryLater`."""
        if lease.row.lost_at is None:
            lease.write(replace(lease.row, lost_at=self._clock.now()))
        attempts = self._store.jobs_of_run(lease.row.repository, lease.row.run_id)
        unsaid = self._deployed.settle(lease, attempts)
        job = lease.row
        refusal = planning.refusal(job, attempts, unsaid)
        self._answers.lost(job, attempts, refusal)
        if job.rerun is not Rerun.WANTED:
            return
        if planning.is_answered(job, attempts):
            self._close(lease)
        elif refusal is not None:
            self._close(lease, refusal)
        else:
            self._ask(lease, attempts, ASK_INTERVAL if planning.has_ended(attempts) else DOUBT_INTERVAL)

    def _ask(self, lease: Lease[Job], attempts: Sequence[Job], interval: timedelta) -> None:
        """Ask for the rerun; asked twice, GitHub refuses the second because of the attempt that the first began."""
        job, now = lease.row, self._clock.now()
        asked_at = self._asked_at.get(job.id)
        if asked_at is not None and now - asked_at < interval:
            return
        self._asked_at[job.id] = now
        try:
            with self._doubts.given(job.id):
                self._ask_github(job, attempts)
        except Refused as error:
            refusal = f"GitHub refuses it: {error}"
            self._answers.lost(job, attempts, refusal)
            self._close(lease, refusal)
        else:
            self._close(lease)

    def _ask_github(self, job: Job, attempts: Sequence[Job]) -> None:
        where, repository = job.installation_id, job.repository
        latest = self._github.jobs_of(where, repository, job.run_id)
        if not latest:
            raise NotThere(f"it knows of no jobs of run {job.run_id} of {repository}")
        match planning.way(job, attempts, latest, self._clock.now()):
            case Way.WAIT:
                raise TryLater(f"run {job.run_id} of {repository} has not ended, or we do not know how; {job.id} waits")
            case Way.TOGETHER:
                self._github.rerun_failed(where, repository, job.run_id)
            case Way.ALONE:
                self._github.rerun_job(where, repository, planning.target(job, latest))
            case Way.NEEDLESS:
                pass

    def _close(self, lease: Lease[Job], refusal: str | None = None) -> None:
        job, now = lease.row, self._clock.now()
        self._asked_at.pop(job.id, None)
        detail: dict[str, str | int] = {"attempt": job.run_attempt}
        if refusal is None:
            lease.write(facts.rerun_asked(job), Event(Happening.RERUN_ASKED, now, job_id=job.id, detail=detail))
        else:
            event = Event(Happening.RERUN_REFUSED, now, job_id=job.id, detail=detail | {"because": refusal})
            lease.write(facts.rerun_refused(job), event)
