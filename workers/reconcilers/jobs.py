"""Jobs: what GitHub says is written into the row, and a job that waits gets a runner.

facts ─▶ fold ─▶ QUEUED: place, or ask for room      PLACED: is the runner still to be hoped for?
                 RUNNING: is its machine still there?  LOST: run it again once GitHub has failed it
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from workers.domain.errors import NoRoom, Refused, TryLater
from workers.domain.events import Event, Happening, JobFact
from workers.domain.job import JOB, Job, JobState, Rerun
from workers.domain.labels import Unserved
from workers.domain.names import HostId, JobId, RunnerId, runner_id
from workers.domain.pools import Origin, Policy, Terms
from workers.domain.runner import RUNNER, Runner, RunnerState
from workers.planning import facts as planning
from workers.planning.fleet import is_silent
from workers.planning.placement import counts_on, runner_for, spare_runner
from workers.planning.running import RunnerSeen, is_lost_with_its_host, is_taken_away
from workers.planning.serving import judge
from workers.ports import Clock, GitHub, Hints, Lease, Store
from workers.reconcilers.capacity import Buyer
from workers.reconcilers.origins import Origins
from workers.reconcilers.sight import host_of

# Webhooks get lost; an installation may ask 5,000 times an hour, so this serves some 80 jobs at once with half of it.
POLL_INTERVAL: Final = timedelta(minutes=2)
# Somebody else may take a number or the last room between our look and our write.
PLACING_TRIES: Final = 3


@dataclass(frozen=True)
class JobPolicy:
    """What a runner for a job is made of, and how long a host may be silent."""

    pools: Policy
    heartbeat_limit: timedelta
    hold_limit_s: int = 0
    """How long a job may ask not to be moved, in all."""
    park_limit: timedelta = timedelta()
    """How long a job may lie in the store before it is given up."""


class Jobs:
    """Advances one job at a time."""

    def __init__(
        self,
        store: Store,
        github: GitHub,
        hints: Hints,
        clock: Clock,
        buyer: Buyer,
        policy: JobPolicy,
        token: Callable[[], str] = lambda: secrets.token_hex(5),
    ) -> None:
        self._store, self._github, self._hints, self._clock = store, github, hints, clock
        self._buyer, self._policy, self._token = buyer, policy, token
        self._origins = Origins(github, minds_origins=policy.pools.minds_origins)
        self._asked_at: dict[JobId, datetime] = {}  # forgotten at a restart, which costs one more question a job

    def due(self) -> Sequence[JobId]:
        """Return every job that has something left to be done."""
        unseen = self._store.jobs_with_unseen_facts()
        return list(dict.fromkeys((*unseen, *(job.id for job in self._store.jobs.open()))))

    def advance(self, job_id: JobId) -> None:
        """Write down what is known of a job and do what follows from it.

        Raises `TryLater`, mostly because another has the lease.
        """
        facts = self._store.facts_of(job_id)
        if not planning.is_wanted(facts):
            self._store.mark_seen(facts)
            return
        if self._store.jobs.get(job_id) is None:
            self._create(facts)
        polled, origin = self._poll(job_id, facts), self._origin(job_id, facts)
        with self._store.jobs.lease(job_id) as lease:
            self._hear(lease, (*facts, *polled))
            self._store.mark_seen(facts)
            self._settle(lease, origin)
        if lease.row.end is not None and lease.row.runner_id is not None:
            self._hints.look_at("runner", lease.row.runner_id)

    def _create(self, facts: Sequence[JobFact]) -> None:
        job = planning.first_row(facts)
        event = Event(
            Happening.JOB_QUEUED,
            job.queued_at,
            job_id=job.id,
            detail={"name": job.name, "repository": job.repository, "attempt": job.run_attempt},
        )
        self._store.jobs.add(job, event)

    # ------------------------------------------------------------ what GitHub says

    def _poll(self, job_id: JobId, facts: Sequence[JobFact]) -> tuple[JobFact, ...]:
        """Ask GitHub about a job of which nothing was heard for long."""
        job, now = self._store.jobs.get(job_id), self._clock.now()
        if job is None or job.end is not None or job.unserved is not None:
            self._asked_at.pop(job_id, None)
            return ()
        heard_at = max([fact.seen_at for fact in facts], default=job.queued_at)
        if now - max(heard_at, self._asked_at.get(job_id, heard_at)) < POLL_INTERVAL:
            return ()
        self._asked_at[job_id] = now
        try:
            seen = self._github.job(job.installation_id, job.repository, job_id)
        except (TryLater, Refused):
            return ()  # asked again when the interval is over; the webhooks may come by themselves
        if seen is None:
            return (planning.polled_fact(job, "completed", "cancelled", (None, None), now),)
        taker = (seen.runner_id, seen.runner_name)
        return (planning.polled_fact(job, seen.status, seen.conclusion, taker, now),)

    def _origin(self, job_id: JobId, facts: Sequence[JobFact]) -> Origin | None:
        """Find out where a job comes from, if it is still to be judged: that may decide which pool takes it."""
        job = self._store.jobs.get(job_id)
        if job is None or job.end is not None or (job.state is not JobState.QUEUED and job.terms is not None):
            return None
        return self._origins.of(job, facts)

    def _hear(self, lease: Lease[Job], facts: Sequence[JobFact]) -> None:
        told, job = planning.sum_of(facts), lease.row
        runner = self._taker(told) if job.end is None else None
        if runner is not None:
            self._bind(job.id, runner)
        after, events = job, list[Event]()
        if told.is_started and job.state in {JobState.QUEUED, JobState.PLACED}:
            after = planning.started(job, runner.id if runner else None, told.started_at)
            events.append(self._event(Happening.JOB_STARTED, after))
        if told.conclusion is not None and job.end is None:
            ended = planning.completed(after, told.conclusion, with_its_host=self._went_with_host(after))
            if ended.state is JobState.LOST and job.state is not JobState.LOST:
                events.append(self._event(Happening.JOB_LOST, ended))
            events.append(self._event(Happening.JOB_COMPLETED, ended, conclusion=told.conclusion))
            after = ended
        if after != job:
            lease.write(after, *events)

    def _taker(self, told: planning.Told) -> Runner | None:
        """Return the runner of ours that GitHub says runs it: its number decides, the name is the fallback."""
        if told.github_id is not None:
            for runner in self._store.runners.open():
                if runner.github_id == told.github_id:
                    return runner
        return self._store.runner_named(told.runner_name) if told.runner_name else None

    def _bind(self, job_id: JobId, runner: Runner) -> None:
        """Write into the runner's row which job it runs; whoever counted on it looks for another one."""
        if runner.job_id == job_id and RUNNER.heard(runner.state, RunnerState.BUSY) is runner.state:
            return
        with self._store.runners.lease(runner.id) as lease:
            state = RUNNER.heard(lease.row.state, RunnerState.BUSY)
            lease.write(replace(lease.row, job_id=job_id, state=state))
        if runner.job_id != job_id:
            self._hints.look_at("job", str(runner.job_id))
        self._hints.look_at("runner", runner.id)

    def _went_with_host(self, job: Job) -> bool:
        runner = self._store.runners.get(job.runner_id) if job.runner_id else None
        if runner is None:
            return False
        seen = self._seen(runner)
        return is_lost_with_its_host(seen, self._is_silent(seen))

    def _is_silent(self, seen: RunnerSeen) -> bool:
        """Say whether nothing was heard of it for so long that GitHub may have given its job up."""
        now, parked_at = self._clock.now(), seen.runner.parked_at
        if parked_at is not None:
            return now - parked_at > self._policy.park_limit / 2  # what ends sooner had ended before it was parked
        return seen.host is not None and is_silent(seen.host, now, self._policy.heartbeat_limit)

    def _seen(self, runner: Runner) -> RunnerSeen:
        host, report = host_of(self._store, runner.host_id), self._store.report_of(runner.id)
        return RunnerSeen(runner=runner, host=host, job=None, report=report)

    # ------------------------------------------------------------ what follows

    def _settle(self, lease: Lease[Job], origin: Origin | None) -> None:
        if lease.row.state is JobState.PLACED and not counts_on(lease.row, self._runner(lease.row)):
            lease.write(replace(lease.row, state=JOB.move(lease.row.state, JobState.QUEUED), runner_id=None))
        match lease.row.state:
            case JobState.QUEUED if origin is not None:
                self._serve(lease, origin)
            case JobState.RUNNING:
                if origin is not None:
                    self._judged(lease, origin)
                self._watch(lease)
            case JobState.LOST if lease.row.rerun is Rerun.WANTED:
                self._run_again(lease)
            case _:
                pass

    def _runner(self, job: Job) -> Runner | None:
        return self._store.runners.get(job.runner_id) if job.runner_id else None

    def _serve(self, lease: Lease[Job], origin: Origin) -> None:
        terms = self._judged(lease, origin)
        if terms is not None and not self._adopt(lease) and not self._place(lease, terms):
            self._buyer.buy()

    def _judged(self, lease: Lease[Job], origin: Origin) -> Terms | None:
        """Write down what a job gets, or why it gets nothing.

        GitHub may give a runner of ours to a job that was not judged yet, or was refused: its labels are all it knows.
        """
        job, decided = lease.row, judge(lease.row.labels, origin, self._policy.pools)
        if not isinstance(decided, Unserved):
            if (job.terms, job.unserved) != (decided, None):
                lease.write(replace(job, terms=decided, unserved=None))
            return decided
        if job.unserved != decided.sentence:
            job = replace(job, unserved=decided.sentence, terms=None)
            lease.write(job, self._event(Happening.JOB_UNSERVED, job, because=decided.sentence))
            if job.runner_id is not None:
                self._hints.look_at("runner", job.runner_id)
        return None

    def _adopt(self, lease: Lease[Job]) -> bool:
        """Count on a runner that another job has left over."""
        demands = {job.id: job for job in self._store.jobs.open()}
        runner = spare_runner(lease.row, self._buyer.fleet(), demands)
        if runner is None:
            return False
        with self._store.runners.lease(runner.id) as other:
            if other.row.state is not runner.state or other.row.job_id != runner.job_id:
                return False
            other.write(replace(other.row, job_id=lease.row.id))
        placed = self._placed(lease.row, runner.id)
        lease.write(placed, self._event(Happening.JOB_PLACED, placed, host=runner.host_id, is_spare=True))
        return True

    def _place(self, lease: Lease[Job], terms: Terms) -> bool:
        for _ in range(PLACING_TRIES):
            candidates = self._buyer.fleet().candidates(terms.shape)
            if not candidates:
                return False
            try:
                self._make_runner(lease, terms, candidates[0].id)
            except NoRoom:
                continue
            return True
        return False

    def _make_runner(self, lease: Lease[Job], terms: Terms, host_id: HostId) -> None:
        name, number = runner_id(self._token()), self._store.free_number()
        runner = runner_for(lease.row, terms, name, number, host_id, self._clock.now())
        runner = replace(runner, hold_limit_s=self._policy.hold_limit_s)
        placed = self._placed(lease.row, runner.id)
        lease.write(
            placed,
            runner,
            self._event(Happening.JOB_PLACED, placed, host=host_id, is_spare=False),
            self._event(Happening.RUNNER_REQUESTED, placed, host=host_id),
        )
        self._hints.look_at("runner", runner.id)

    def _placed(self, job: Job, runner: RunnerId) -> Job:
        return replace(job, state=JOB.move(job.state, JobState.PLACED), runner_id=runner)

    def _watch(self, lease: Lease[Job]) -> None:
        """Notice that the machine under a running job is no more, or was stopped so that it is run again."""
        runner = self._runner(lease.row)
        if runner is None:
            return
        seen = self._seen(runner)
        if is_taken_away(seen):
            job = planning.lost(lease.row)
            lease.write(job, self._event(Happening.JOB_LOST, job, host=runner.host_id))

    def _run_again(self, lease: Lease[Job]) -> None:
        """Ask for the rerun, once for all jobs of the attempt: a later attempt of the run is the answer to this one."""
        job = lease.row
        detail: dict[str, str | int] = {"attempt": job.run_attempt}
        later = [one for one in self._store.jobs.open() if one.run_id == job.run_id]
        if not any(one.run_attempt > job.run_attempt for one in later):
            try:
                self._github.rerun_failed(job.installation_id, job.repository, job.run_id)
            except Refused as error:
                detail["refused"] = str(error)
        lease.write(
            planning.rerun_asked(job), Event(Happening.RERUN_ASKED, self._clock.now(), job_id=job.id, detail=detail)
        )

    def _event(self, happening: Happening, job: Job, host: HostId | None = None, **detail: str | bool) -> Event:
        return Event(happening, self._clock.now(), job_id=job.id, runner_id=job.runner_id, host_id=host, detail=detail)
