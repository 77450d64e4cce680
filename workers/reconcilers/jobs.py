"""Jobs: what GitHub says is written into the row, and a job that waits gets a runner.

facts ─▶ fold ─▶ QUEUED: count on a runner, or get one PLACED: is the runner still to be hoped for?
                 RUNNING: is its machine still there?  LOST: run it again once GitHub has failed it
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache

from workers.domain.events import Event, Happening, JobAction, JobFact
from workers.domain.installation import EVERYBODY, Guests
from workers.domain.job import JOB, Job, JobState
from workers.domain.labels import Unserved
from workers.domain.names import HostId, JobId
from workers.domain.pools import Origin, Policy, Terms
from workers.domain.runner import RUNNER, Runner, RunnerState
from workers.planning import facts as planning
from workers.planning.fleet import is_silent
from workers.planning.placement import counts_on, made_for, may_be_given, strays
from workers.planning.running import RunnerSeen, goes_on, is_lost_with_its_host, is_taken_away
from workers.planning.serving import judge
from workers.planning.standing import stopped
from workers.ports import Clock, Hints, Lease, Store
from workers.reconcilers.answers import Answers
from workers.reconcilers.breakers import Breakers
from workers.reconcilers.capacity import Buyer
from workers.reconcilers.deployments import Deployed, JobGitHub
from workers.reconcilers.groups import Groups
from workers.reconcilers.origins import Origins
from workers.reconcilers.overview import Overview, overview
from workers.reconcilers.placing import Placing
from workers.reconcilers.polls import POLL_INTERVAL, Polls, is_in_doubt
from workers.reconcilers.reruns import Reruns
from workers.reconcilers.sight import host_of
from workers.reconcilers.standing import WhereInstalled, refusal


@dataclass(frozen=True)
class JobPolicy:
    """What a runner for a job is made of, and how long a host may be silent."""

    pools: Callable[[], Policy]
    """What the administrator allows now."""
    heartbeat_limit: timedelta
    hold_limit_s: int = 0
    """How long a job may ask not to be moved, in all."""
    park_limit: timedelta = timedelta()
    """How long a job may lie in the store before it is given up."""
    poll_interval: timedelta = POLL_INTERVAL
    served: Guests = EVERYBODY
    """Whose jobs get runners."""
    mark: str = ""
    """How the names of our own runners begin; none: nobody's do."""


@dataclass(frozen=True)
class _Judgement:
    """What is thought of a job before its row is leased."""

    origin: Origin
    decided: Terms | Unserved
    settled: Terms | Unserved | str
    """The same with the runner group that its runner would be in; in words why GitHub cannot say just now."""


class Jobs:
    """Advances one job at a time."""

    def __init__(
        self,
        store: Store,
        github: JobGitHub,
        hints: Hints,
        clock: Clock,
        buyer: Buyer,
        policy: JobPolicy,
        token: Callable[[], str] = lambda: secrets.token_hex(5),
    ) -> None:
        installed = WhereInstalled(store, github)
        self._store, self._github, self._hints, self._clock = store, installed, hints, clock
        self._policy = policy
        self._polls, self._breakers = Polls(store, installed, clock, policy.poll_interval), Breakers(store, clock)
        self._placing = Placing(store, hints, clock, buyer, policy.hold_limit_s, token)
        self._origins = Origins(installed, clock, lambda: policy.pools().minds_origins)
        self._groups = Groups(installed, clock, policy.pools)
        self.answers = Answers(store, installed, clock)
        self._reruns = Reruns(store, installed, clock, self.answers, Deployed(store, github, clock))

    def due(self) -> Sequence[JobId]:
        """Return every job that may need something."""
        unseen, seen = self._store.jobs_with_unseen_facts(), overview(self._store, self._clock.now())
        self._polls.keep_only(seen.jobs.keys())
        served = cache(lambda installation, repository: refusal(self._store, installation, repository) is None)
        rest = (job for job in seen.jobs.values() if served(job.installation_id, job.repository))
        resting = {job.id for job in rest if self._may_rest(job, seen)}
        return list(dict.fromkeys((*unseen, *(job_id for job_id in seen.jobs if job_id not in resting))))

    def _may_rest(self, job: Job, seen: Overview) -> bool:
        """Say whether a look at a job of which nothing new was heard would find nothing to do."""
        runner = seen.runners.get(job.runner_id) if job.runner_id else None
        if runner is None or job.terms is None or strays(job, runner):
            return False
        return goes_on(job, runner, seen.host_of(runner)) and self._polls.may_rest(job, runner, seen.read_at)

    def advance(self, job_id: JobId) -> None:
        """Write down what is known of a job and do what follows from it.

        Raises `TryLater`, mostly because another has the lease.
        """
        facts = self._store.facts_of(job_id)
        job = self._store.jobs.get(job_id) or self._create(facts)
        if job is None:
            return
        job = self._rehomed(job, facts)
        if self._is_stopped(job_id, facts):
            return
        answer, judgement = self._polls.of(job, facts), self._judgement(job, facts)
        has_news = answer is not None or self._store.has_unseen_facts(job_id)
        if not has_news and judgement is None and self._goes_on(job):
            return
        with self._store.jobs.lease(job_id) as lease:
            self._hear(lease, facts, answer)
            if has_news:
                self._store.mark_seen(facts)
            self._settle(lease, judgement, answer)
        if lease.row.end is not None and lease.row.runner_id is not None:
            self._hints.look_at("runner", lease.row.runner_id)

    def _goes_on(self, job: Job) -> bool:
        """Say whether a job needs nothing of us now: most looks find that, and write nothing."""
        runner = self._runner(job)
        return runner is not None and goes_on(job, runner, host_of(self._store, runner.host_id))

    def _create(self, facts: Sequence[JobFact]) -> Job | None:
        if not facts:
            return None
        job = planning.first_row(facts)
        event = Event(
            Happening.JOB_WAITING if job.state is JobState.WAITING else Happening.JOB_QUEUED,
            job.queued_at,
            job_id=job.id,
            detail={"name": job.name, "repository": job.repository, "attempt": job.run_attempt},
        )
        self._store.jobs.add(job, event)
        return job

    def look_at_all_of(self, installation_id: int) -> None:
        """Ask for a look at every job of an installation of which something was heard."""
        mine = [job.id for job in self._store.jobs.open() if job.installation_id == installation_id]
        self._hints.look_at("job", *map(str, mine))

    def _rehomed(self, job: Job, facts: Sequence[JobFact]) -> Job:
        """Let another App of ours that has told of a job, too, take the place of one that is served no more there."""
        if job.state not in JOB.open or refusal(self._store, job.installation_id, job.repository) is None:
            return job
        told = dict.fromkeys(fact.installation_id for fact in facts)
        home = next((one for one in told if refusal(self._store, one, job.repository) is None), None)
        if home is None:
            return job
        with self._store.jobs.lease(job.id) as lease:
            lease.write(replace(lease.row, installation_id=home))
            return lease.row

    def _is_stopped(self, job_id: JobId, facts: Sequence[JobFact]) -> bool:
        """Stop a job for whose installation or repository nothing is done any more, or that has timed out unheard."""
        job = self._store.jobs.get(job_id)
        because = self._polls.why_stopped(job, facts) if job and job.state in JOB.open else None
        if because is None:
            return False
        with self._store.jobs.lease(job_id) as lease:
            self._hear(lease, facts, None)
            self._store.mark_seen(facts)
            if lease.row.state in JOB.open:
                job = stopped(lease.row)
                lease.write(job, self._event(Happening.JOB_STOPPED, job, because=because))
        if lease.row.runner_id is not None:
            self._hints.look_at("runner", lease.row.runner_id)
        return True

    # ------------------------------------------------------------ what GitHub says

    def _judgement(self, job: Job, facts: Sequence[JobFact]) -> _Judgement | str | None:
        """Think about a job; in words why that cannot be done now, None if it need not be."""
        denied = self._policy.served.refusal(job.installation_id, job.repository)
        if denied is not None and job.state in {JobState.WAITING, JobState.QUEUED}:  # what runs already is let finish
            nobody = Unserved(denied, is_ours=False)
            return _Judgement(Origin(job.repository), nobody, nobody)
        origin = self._origin(job, facts)
        if not isinstance(origin, Origin):
            return origin
        decided = judge(job.labels, origin, self._policy.pools())
        return _Judgement(origin, decided, self._groups.settle(job, decided))

    def _origin(self, job: Job, facts: Sequence[JobFact]) -> Origin | str | None:
        """Find out where a job comes from, if it is still to be judged: that may decide which pool takes it."""
        if job.end is not None:
            return None
        is_judged = job.terms is not None and job.state not in {JobState.WAITING, JobState.QUEUED}
        return self._origins.of(job, facts) if not is_judged or strays(job, self._runner(job)) else None

    def _hear(self, lease: Lease[Job], facts: Sequence[JobFact], answer: JobFact | None) -> None:
        told = planning.sum_of(facts if answer is None else (*facts, answer))
        job = planning.described(lease.row, facts)
        runner = self._taker(job, told) if job.end is None else None
        bound = self._bind(job, runner) if runner is not None else None
        after, events = job, list[Event]()
        if told.is_started:
            after = planning.started(job, runner.id if runner else None, told.started_at)
            if after.state is not job.state:
                events.append(self._event(Happening.JOB_STARTED, after))
        else:
            after = planning.stood(job, facts, answer)
            events += self._stood(job, after)
        if told.conclusion is not None and job.end is None:
            is_lost = self._went_with_host(after) or self._is_forgotten(after, told)
            ended = planning.completed(after, told.conclusion, with_its_host=is_lost)
            if ended.state is JobState.LOST and job.state is not JobState.LOST:
                events.append(self._event(Happening.JOB_LOST, ended))
            events.append(self._event(Happening.JOB_COMPLETED, ended, conclusion=told.conclusion))
            after = ended
        if after != lease.row:
            lease.write(after, *events)
        if bound is not None:
            # Not before the job's own row says which runner it has: the one on which it counted is free for the other.
            its_runner, instead_of = bound
            self._placing.noted(after, its_runner)
            self._hints.look_at("job", *(str(one) for one in {instead_of} - {job.id}))
            self._hints.look_at("runner", its_runner.id)

    def _stood(self, job: Job, after: Job) -> list[Event]:
        """Tell that a job waits from now on, or does so no more; the runner on which it counted is spare."""
        if JobState.WAITING not in {job.state, after.state} or job.state is after.state:
            return []
        if job.runner_id is not None:
            self._hints.look_at("runner", job.runner_id)
        waits = after.state is JobState.WAITING
        return [self._event(Happening.JOB_WAITING if waits else Happening.JOB_QUEUED, after)]

    def _taker(self, job: Job, told: planning.Told) -> Runner | None:
        """Return the runner of ours that GitHub says runs it.

        Its name, which is nobody else's of ours, is said with its number, so one row is read. A number alone is unique
        within one repository or organization only, and GitHub's own runners have some, too; and anybody may call a
        runner of their own as one of ours is called elsewhere.
        """
        if told.runner_name is not None:
            named = self._store.runner_named(told.runner_name)
            return named if named is not None and may_be_given(job, named) else None
        if told.github_id is None:
            return None
        numbered = (one for one in self._store.runners.open() if one.github_id == told.github_id)
        found = [one for one in numbered if may_be_given(job, one)]
        # A number may be a repository's and its organization's: then nobody knows whose it is.
        return found[0] if len(found) == 1 else None

    def _bind(self, job: Job, runner: Runner) -> tuple[Runner, JobId] | None:
        """Write into the runner's row which job it runs; return it and for whom it was. None: it said so already."""
        if runner.job_id == job.id and RUNNER.heard(runner.state, RunnerState.BUSY) is runner.state:
            return None
        with self._store.runners.lease(runner.id) as lease:
            state, instead_of = RUNNER.heard(lease.row.state, RunnerState.BUSY), lease.row.job_id
            bound = replace(made_for(lease.row, job), state=state)
            lease.write(bound, *([] if instead_of == job.id else [self._taken(job, bound, instead_of)]))
        self._breakers.note_served(bound)
        return bound, instead_of

    def _taken(self, job: Job, runner: Runner, instead_of: JobId) -> Event:
        pool = job.terms.pool if job.terms is not None else None
        detail = {"instead_of": instead_of, "pool": pool, "runner_pool": runner.pool}
        return Event(Happening.RUNNER_TAKEN, self._clock.now(), job.id, runner.id, runner.host_id, detail=detail)

    def _went_with_host(self, job: Job) -> bool:
        runner = self._store.runners.get(job.runner_id) if job.runner_id else None
        if runner is None:
            return False
        seen = self._seen(runner)
        return is_lost_with_its_host(seen, self._is_silent(seen))

    def _is_forgotten(self, job: Job, told: planning.Told) -> bool:
        """Say whether a runner of ours had it that no row speaks of: the store was put back to before that runner.

        Nothing carries such a guest's packets any more, so it is we who have lost its job.
        """
        name, mark = told.runner_name, self._policy.mark
        return (
            bool(name and mark)
            and job.runner_id is None
            and str(name).startswith(mark)
            and (self._store.runner_named(str(name)) is None)
        )

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

    def _settle(self, lease: Lease[Job], judgement: _Judgement | str | None, answer: JobFact | None) -> None:
        self._ask_anew(lease, answer)
        match lease.row.state:
            case JobState.QUEUED if judgement is not None:
                self._serve(lease, judgement)
            case JobState.RUNNING:
                if isinstance(judgement, _Judgement):  # it has its runner, whichever group that is in
                    self._judged(lease, judgement.decided, judgement.origin)
                self._watch(lease)
            case JobState.LOST:
                self._reruns.advance(lease)
            case _:
                pass

    def _serve(self, lease: Lease[Job], judgement: _Judgement | str) -> None:
        if isinstance(judgement, str):
            self._placing.defer(lease, judgement)
            return
        if isinstance(judgement.settled, str):
            self._placing.defer(lease, judgement.settled)
            return
        terms = self._judged(lease, judgement.settled, judgement.origin)
        if terms is not None:
            self._placing.serve(lease, terms)

    def _ask_anew(self, lease: Lease[Job], answer: JobFact | None) -> None:
        """Queue a placed job again whose runner ended, or was given to another job."""
        job, runner = lease.row, self._runner(lease.row)
        if job.state is not JobState.PLACED:
            return
        if not counts_on(job, runner):
            because = "its runner has ended, or was given to another job"
        elif is_in_doubt(job, runner) and answer is not None and answer.action is JobAction.QUEUED:
            because = "GitHub says that it still waits, while its runner has been given a job"
        else:
            return
        queued = replace(job, state=JOB.move(job.state, JobState.QUEUED), runner_id=None)
        lease.write(queued, self._event(Happening.JOB_REQUEUED, job, because=because))
        if runner is not None and runner.job_id != job.id:
            self._placing.lost(job)

    def _runner(self, job: Job) -> Runner | None:
        return self._store.runners.get(job.runner_id) if job.runner_id else None

    def _judged(self, lease: Lease[Job], decided: Terms | Unserved, origin: Origin) -> Terms | None:
        """Write down what a job gets, or why it gets nothing.

        GitHub may give a runner of ours to a job that was not judged yet, or was refused: its labels are all it knows.
        """
        job = lease.row
        if not isinstance(decided, Unserved) and strays(job, self._runner(job)):
            decided = self._tolerated(job, decided, origin)
        if not isinstance(decided, Unserved):
            if (job.terms, job.unserved) != (decided, None):
                if job.unserved is not None:
                    self.answers.served(job)
                lease.write(replace(job, terms=decided, unserved=None))
            return decided
        if job.unserved != decided.sentence:
            self.answers.unserved(job, decided)
            job = replace(job, unserved=decided.sentence, terms=None, deferred=None)
            lease.write(job, self._event(Happening.JOB_UNSERVED, job, because=decided.sentence))
            if job.runner_id is not None:
                self._hints.look_at("runner", job.runner_id)
        return None

    def _tolerated(self, job: Job, terms: Terms, origin: Origin) -> Terms | Unserved:
        """Let a job run on the runner of another pool, unless that pool takes none of its kind."""
        runner = self._runner(job)
        pool = self._policy.pools().pool(runner.pool) if runner is not None else None
        if pool is None or pool.takes(origin):
            return terms
        return Unserved(
            f"GitHub gave it a runner of pool {pool.name}, which takes no such job; run it again, and add "
            "/run=${{ github.run_id }} to the label in runs-on, so that no other runner fits it"
        )

    def _watch(self, lease: Lease[Job]) -> None:
        """Notice that the machine under a running job is no more, or was stopped so that it is run again."""
        runner = self._runner(lease.row)
        if runner is None:
            return
        seen = self._seen(runner)
        if is_taken_away(seen):
            job = planning.lost(lease.row)
            lease.write(job, self._event(Happening.JOB_LOST, job, host=runner.host_id))
            self._reruns.advance(lease)

    def _event(self, happening: Happening, job: Job, host: HostId | None = None, **detail: str | bool) -> Event:
        return Event(happening, self._clock.now(), job_id=job.id, runner_id=job.runner_id, host_id=host, detail=detail)
