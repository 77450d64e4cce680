"""The rows that placing decides from: read once for many jobs, and kept up with what was decided from them.

A row may be a quarter of a second old, and what another process does is not seen before the next read. That is enough,
since a decision is written only if what it was decided on still stands; after one that did not, all is read anew.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from workers.domain.job import Job
from workers.domain.names import JobId
from workers.domain.runner import Runner
from workers.planning.demand import Balance
from workers.planning.fleet import Fleet
from workers.ports import Clock, Store
from workers.reconcilers.capacity import Buyer

# Hundreds of jobs that are queued at once would each read hundreds of rows.
AGE_MAX: Final = timedelta(milliseconds=250)


@dataclass
class Rows:
    """What there was at one moment, and what was placed since."""

    read_at: datetime
    jobs: dict[JobId, Job]
    fleet: Fleet


class Glance:
    """Every thread's look at what there is."""

    def __init__(self, store: Store, buyer: Buyer, clock: Clock) -> None:
        self._store, self._buyer, self._clock = store, buyer, clock
        self._lock = threading.Lock()
        self._last: Rows | None = None

    def rows(self, outdated: Rows | None = None) -> Rows:
        """Return what there is now or was a moment ago, but not `outdated`, which was found not to stand any more."""
        with self._lock:
            last, now = self._last, self._clock.now()
            if last is None or last is outdated or not timedelta() <= now - last.read_at < AGE_MAX:
                jobs, fleet = self._store.jobs.open(), self._buyer.fleet()
                # Reading takes long where there is much and others work, too; they wait for it, and then can use it.
                last = self._last = Rows(self._clock.now(), {job.id: job for job in jobs}, fleet)
            return last

    def balance(self, rows: Rows, job: Job) -> Balance:
        """Return who counts on whom if the row of one job is now as given."""
        with self._lock:
            rows.jobs[job.id] = job
            jobs, fleet = tuple(rows.jobs.values()), rows.fleet
        return self._buyer.balance(fleet, jobs)

    def noted(self, job: Job, runner: Runner) -> None:
        """Keep what was written down: this job has this runner now, or counts on it; it may be a new one."""
        with self._lock:
            if self._last is None:
                return
            self._last.jobs[job.id] = job
            others = (one for one in self._last.fleet.runners if one.id != runner.id)
            self._last.fleet = replace(self._last.fleet, runners=(*others, runner))
