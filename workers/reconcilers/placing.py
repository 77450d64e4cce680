"""A waiting job gets a runner: one that is left over, or a new one where there is room."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from workers.domain.errors import NoRoom, TryLater
from workers.domain.events import Event, Happening
from workers.domain.job import JOB, Job, JobState
from workers.domain.names import HostId, JobId, RunnerId, runner_id
from workers.domain.pools import Terms
from workers.domain.runner import Runner
from workers.planning.placement import made_for, runner_for
from workers.ports import Clock, Hints, Lease, Store
from workers.reconcilers.capacity import Buyer
from workers.reconcilers.glance import Glance, Rows

# Somebody else may take a number, a runner or the last room between our look and our write.
PLACING_TRIES: Final = 3
# Where GitHub deals many runners to many jobs at once, each is heard by itself: for a moment it looks as if a job had
# lost its own and no other were free, until what the next delivery says is written down, too.
DEALING: Final = timedelta(seconds=1)


class Placing:
    """Carries out for one job what the balance of all says."""

    def __init__(
        self,
        store: Store,
        hints: Hints,
        clock: Clock,
        buyer: Buyer,
        hold_limit_s: int = 0,
        token: Callable[[], str] = lambda: secrets.token_hex(5),
    ) -> None:
        """`hold_limit_s` is how long a job may ask not to be moved, in all."""
        self._store, self._hints, self._clock, self._buyer = store, hints, clock, buyer
        self._hold_limit_s, self._token = hold_limit_s, token
        self._turn = threading.RLock()
        self._glance = Glance(store, buyer, clock)
        self._lost_at: dict[JobId, datetime] = {}  # forgotten at a restart, which costs a runner too many at most

    def serve(self, lease: Lease[Job], terms: Terms) -> None:
        """Give a job that waits what it is to get now; what is missing for it is bought.

        Raises `TryLater` if that is not known yet, because its runner has just been given to another job.
        """
        # Two that look at the same time would both want the last place of their repository, and one look in vain.
        with nullcontext() if self._buyer.quota(lease.row, terms) is None else self._turn:
            self._serve(lease, terms)

    def _serve(self, lease: Lease[Job], terms: Terms) -> None:
        rows: Rows | None = None
        for _ in range(PLACING_TRIES):
            rows, job = self._glance.rows(rows), lease.row
            balance = self._glance.balance(rows, job)
            if (known := balance.counted.get(job.id)) is not None:
                runner = self._adopt(lease, next(one for one in rows.fleet.runners if one.id == known))
            elif any(one.id == job.id for one in balance.missing):
                self._await_dealing(job)
                candidates = self._buyer.candidates(rows.fleet, terms)
                if not candidates:
                    self._buyer.buy(rows.fleet, balance, rows.read_at)
                    self.defer(lease, self._buyer.refusal(terms.pool))
                    return
                runner = self._make(lease, terms, candidates[0].id)
            else:
                breaker = balance.held.get(job.id)
                self.defer(lease, balance.deferred.get(job.id) if breaker is None else breaker.sentence)
                return
            if runner is not None:
                self._glance.noted(lease.row, runner)
                return

    def lost(self, job: Job) -> None:
        """Hear that its runner was given to another job."""
        now = self._clock.now()
        self._lost_at = {one: at for one, at in self._lost_at.items() if now - at < DEALING} | {job.id: now}

    def _await_dealing(self, job: Job) -> None:
        at = self._lost_at.get(job.id)
        if at is not None and timedelta() <= self._clock.now() - at < DEALING:
            raise TryLater(
                f"job {job.id} has just lost its runner; whether another is free is known soon", at + DEALING
            )

    def noted(self, job: Job, runner: Runner) -> None:
        """Hear that this job has this runner now."""
        self._glance.noted(job, runner)

    def defer(self, lease: Lease[Job], because: str | None) -> None:
        """Write down why a job gets no runner although it is served; None: there is no reason any more."""
        if lease.row.deferred == because:
            return
        job, now = replace(lease.row, deferred=because), self._clock.now()
        event = Event(Happening.JOB_DEFERRED, now, job_id=job.id, detail={"because": because})
        lease.write(job, *([event] if because is not None else []))

    def _adopt(self, lease: Lease[Job], runner: Runner) -> Runner | None:
        """Count on a runner that nobody else counts on, and return it; None if it is not any more as it was seen."""
        with self._store.runners.lease(runner.id) as other:
            if other.row.state is not runner.state or other.row.job_id != runner.job_id:
                return None
            other.write(made_for(other.row, lease.row))
        placed = self._placed(lease.row, runner.id)
        lease.write(placed, self._event(Happening.JOB_PLACED, placed, runner.host_id, is_spare=True))
        return other.row

    def _make(self, lease: Lease[Job], terms: Terms, host_id: HostId) -> Runner | None:
        """Ask for a runner, and return it; None if its host has no room for it any more, or its pool no number."""
        name, number = runner_id(self._token()), self._store.free_number()
        runner = runner_for(lease.row, terms, name, number, host_id, self._clock.now())
        runner = replace(runner, hold_limit_s=self._hold_limit_s)
        placed, quota = self._placed(lease.row, runner.id), self._buyer.quota(lease.row, terms)
        try:
            lease.write(
                placed,
                *([] if quota is None else [quota]),
                runner,
                self._event(Happening.JOB_PLACED, placed, host_id, is_spare=False),
                self._event(Happening.RUNNER_REQUESTED, placed, host_id),
            )
        except NoRoom:
            return None
        self._hints.look_at("runner", runner.id)
        return runner

    def _placed(self, job: Job, runner: RunnerId) -> Job:
        return replace(job, state=JOB.move(job.state, JobState.PLACED), runner_id=runner, deferred=None)

    def _event(self, happening: Happening, job: Job, host: HostId | None, **detail: bool) -> Event:
        return Event(happening, self._clock.now(), job_id=job.id, runner_id=job.runner_id, host_id=host, detail=detail)
