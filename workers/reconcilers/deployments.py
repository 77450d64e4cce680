"""Whether a lost job holds a deployment: asked of GitHub if no delivery has told of the job, since lists do not say.

unknown ─▶ asked: yes or no, written into the row   ·   refused: not run again, and why
               └▶ not answered, or not known to GitHub: asked again, and after a while as if refused
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, Protocol

from workers.domain.errors import NotThere, Refused, TryLater, Unrecognized
from workers.domain.job import Job
from workers.domain.names import JobId
from workers.listing import Deployments
from workers.planning.reruns import hangs_on_its_deployment
from workers.ports import Clock, GitHub, Lease, Store
from workers.reconcilers.standing import require_served

ASK_INTERVAL: Final = timedelta(seconds=30)
# GitHub fails a lost job within ten minutes, and an outage of GitHub's own is mostly over in less than this.
UNANSWERED_LIMIT: Final = timedelta(minutes=30)


class JobGitHub(GitHub, Deployments, Protocol):
    """All that is asked of GitHub about jobs."""


class Deployed:
    """Asks about one lost job at a time."""

    def __init__(self, store: Store, github: JobGitHub, clock: Clock) -> None:
        self._store, self._github, self._clock = store, github, clock
        self._unsaid: dict[JobId, tuple[datetime, str]] = {}  # forgotten at a restart, which costs one question a job

    def settle(self, lease: Lease[Job], attempts: Sequence[Job]) -> str:
        """Write into the row of a lost job whether it deploys, if its rerun hangs on that; else say why nobody knows.

        Raises `TryLater` while GitHub may still answer.
        """
        job, now = lease.row, self._clock.now()
        if not hangs_on_its_deployment(job, attempts):
            self._unsaid.pop(job.id, None)
            return ""
        asked_at, unsaid = self._unsaid.get(job.id, (None, ""))
        if asked_at is None or now - asked_at >= ASK_INTERVAL:
            unsaid = self._ask(lease, now)
        return unsaid

    def _ask(self, lease: Lease[Job], now: datetime) -> str:
        job = lease.row
        try:
            require_served(self._store, job.installation_id, job.repository)
            holds = self._github.holds_deployment(job.installation_id, job.repository, job.id)
            if holds is None:
                raise NotThere("it knows of no check run with this job's number")
        except Refused as error:
            if isinstance(error, NotThere | Unrecognized) and self._may_pass(job, now):
                raise TryLater(str(error)) from error
            return self._noted(job, now, f"GitHub refuses to say ({error})")
        except TryLater as error:
            if self._may_pass(job, now):
                raise
            return self._noted(
                job, now, f"GitHub has not answered for {UNANSWERED_LIMIT.seconds // 60} minutes ({error})"
            )
        self._unsaid.pop(job.id, None)
        lease.write(replace(job, has_deployment=holds))
        return ""

    def _may_pass(self, job: Job, now: datetime) -> bool:
        """Say whether an outage, or a slip, of GitHub's may be the reason."""
        return job.lost_at is None or now - job.lost_at < UNANSWERED_LIMIT

    def _noted(self, job: Job, now: datetime, unsaid: str) -> str:
        self._unsaid[job.id] = (now, unsaid)
        return unsaid
