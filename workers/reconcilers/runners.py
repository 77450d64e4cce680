"""Runners: a microVM is restored, registered, watched and ended.

Every step has a lease of its own, and repeating a step that was interrupted loses nothing: the just-in-time
configuration is not kept, so a runner that was registered and not started is registered again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Final, assert_never

from workers.domain.errors import LeaseLost, Refused, RunnerBusy, Throttled, TryLater, Unreachable, Unregistrable
from workers.domain.events import Event, Happening
from workers.domain.host import Host
from workers.domain.names import RunnerId
from workers.domain.runner import ENDS_ITS_JOB, RUNNER, Runner, RunnerEnd, RunnerState
from workers.planning.demand import balance
from workers.planning.fleet import Fleet, is_leaving
from workers.planning.moving import MigrationSeen, given_up
from workers.planning.orders import boot_order
from workers.planning.placement import counts_on
from workers.planning.running import Ending, RunnerSeen, RunnerStep, end_of_retired, is_in_vain, is_let_go, next_step
from workers.ports import Clock, Forwarding, GitHub, Hints, HostApi, Lease, Registration, Relay, Store
from workers.reconcilers.breakers import Breakers
from workers.reconcilers.overview import UP, overview
from workers.reconcilers.sight import host_of
from workers.reconcilers.standing import WhereInstalled, refusal

# Boot, start, and something unforeseen: one call goes on for so many steps, then others get their turn.
STEPS_MAX: Final = 4


class Runners:
    """Advances one runner at a time."""

    def __init__(
        self,
        store: Store,
        hosts: HostApi,
        github: GitHub,
        relay: Relay,
        hints: Hints,
        clock: Clock,
        beside: Executor,
        park_limit: timedelta = timedelta.max,
    ) -> None:
        """`beside` does what is done while a host restores.

        `park_limit` is how long a job may lie in the store before it is given up.
        """
        self._store, self._hosts, self._github = store, hosts, WhereInstalled(store, github)
        self._relay, self._hints, self._clock = relay, hints, clock
        self._beside, self._park_limit = beside, park_limit
        self._breakers = Breakers(store, clock)

    def due(self) -> Sequence[RunnerId]:
        """Return every runner that may need something."""
        seen = overview(self._store, self._clock.now())
        return [runner.id for runner in seen.runners.values() if not seen.is_well(runner)]

    def advance(self, runner_id: RunnerId) -> None:
        """Take this runner as far as it goes now. Raises `TryLater`, mostly because another has the lease."""
        for _ in range(STEPS_MAX):
            if not self._step(runner_id):
                return

    def _step(self, runner_id: RunnerId) -> bool:
        """Take one step under a lease of its own; say whether another one may follow at once."""
        runner = self._store.runners.get(runner_id)
        if runner is None or self._goes_on(runner):
            return False
        with self._store.runners.lease(runner_id) as lease:
            seen = self._gather(lease.row)
            return self._act(lease, seen, next_step(seen, self._clock.now()))

    def _goes_on(self, runner: Runner) -> bool:
        """Say whether it needs nothing of us now: most looks find that, and write nothing."""
        return runner.state in UP and next_step(self._gather(runner), self._clock.now()) is RunnerStep.WAIT

    def _gather(self, runner: Runner) -> RunnerSeen:
        return RunnerSeen(
            runner=runner,
            host=host_of(self._store, runner.host_id),
            job=self._store.jobs.get(runner.job_id),
            report=self._store.report_of(runner.id),
            is_spare=runner.state is RunnerState.REQUESTED and self._is_spare(runner),
            park_limit=self._park_limit,
        )

    def _is_spare(self, runner: Runner) -> bool:
        """Say whether nobody needs a runner of which nothing exists yet."""
        job = self._store.jobs.get(runner.job_id)
        if job is not None and job.runner_id == runner.id and counts_on(job, runner):
            return False
        fleet = Fleet(tuple(self._store.hosts.open()), tuple(self._store.runners.open()))
        now, tripped = self._clock.now(), self._store.tripped()
        return runner.id in balance(self._store.jobs.open(), fleet, tripped, now).spare

    def _act(self, lease: Lease[Runner], seen: RunnerSeen, step: RunnerStep | Ending) -> bool:
        if isinstance(step, Ending):
            return self._end(lease, step.end)
        match step:
            case RunnerStep.WAIT:
                return False
            case RunnerStep.BOOT | RunnerStep.START | RunnerStep.NOTE_STARTED:
                return self._go_up(lease, seen, step)
            case RunnerStep.RETIRE:
                lease.write(_moved(lease.row, RunnerState.RETIRING))
                return True
            case RunnerStep.DEREGISTER:
                return self._deregister(lease, seen)
            case RunnerStep.ABORT_MOVE:
                return self._abort_move(lease.row)
            case RunnerStep.TEAR_DOWN:
                return self._tear_down(lease, seen)
            case RunnerStep.BURY:
                return self._bury(lease)
            case _:
                assert_never(step)

    # ------------------------------------------------------------ the way up

    def _go_up(self, lease: Lease[Runner], seen: RunnerSeen, step: RunnerStep) -> bool:
        if step is RunnerStep.BOOT:
            return self._boot(lease, seen)
        return self._start(lease, seen) if step is RunnerStep.START else self._note_started(lease)

    def _boot(self, lease: Lease[Runner], seen: RunnerSeen) -> bool:
        """Restore the microVM and register it meanwhile, so that its job waits for the longer of the two only."""
        host = _known(seen)
        self._forget_number(lease)
        coming = self._beside.submit(self._register, lease.row)
        try:
            self._hosts.boot(host, boot_order(lease.row, host))
            lease.write(_moved(lease.row, RunnerState.BOOTING), self._event(Happening.RUNNER_RESTORED, lease.row))
            self._point(lease.row, host)
        except Refused as error:
            self._note_number(lease, coming)
            return self._end(lease, RunnerEnd.BOOT_FAILED, because=str(error))
        except TryLater:
            self._take_back(lease, coming)
            raise
        return self._hand_over(lease, host, coming.result)

    def _start(self, lease: Lease[Runner], seen: RunnerSeen) -> bool:
        """Register a microVM that is there already: there was no budget, or what an earlier try was given is lost."""
        host = _known(seen)
        self._point(lease.row, host)
        self._forget_number(lease)
        return self._hand_over(lease, host, lambda: self._register(lease.row))

    def _hand_over(self, lease: Lease[Runner], host: Host, coming: Callable[[], Registration]) -> bool:
        try:
            granted = self._granted(lease, coming)
            self._note(lease, granted)
            self._hosts.start_runner(host, lease.row.id, lease.row.epoch, granted.jit_config)
        except RunnerBusy:
            # It was started by somebody who could not write so any more, and has a job already.
            self._breakers.note_served(lease.row)
            return self._keep_as_busy(lease)
        except Refused as error:
            return self._end(lease, RunnerEnd.BOOT_FAILED, because=str(error))
        return self._note_started(lease)

    def _granted(self, lease: Lease[Runner], coming: Callable[[], Registration]) -> Registration:
        """Return what GitHub has granted; who restored a microVM only to be refused is not to do so for ever."""
        try:
            return coming()
        except Refused as error:
            runner = lease.row
            # Where the App is gone another App of ours may serve the account, with runners of the same kind.
            if refusal(self._store, runner.installation_id, runner.place) is None:
                self._breakers.note_refused(runner, str(error), is_for_good=isinstance(error, Unregistrable))
            raise

    def _register(self, runner: Runner) -> Registration:
        where = runner.installation_id, runner.place
        return self._github.register(*where, runner.id, runner.labels, runner.group_id)

    def _point(self, runner: Runner, host: Host) -> None:
        self._relay.point(Forwarding(runner.id, runner.epoch, runner.address, host.address or ""))

    def _forget_number(self, lease: Lease[Runner]) -> None:
        """An earlier try got as far as being registered; that registration ends when its name is taken again."""
        if lease.row.github_id is not None:
            lease.write(replace(lease.row, github_id=None))

    def _note(self, lease: Lease[Runner], granted: Registration) -> None:
        """Write down GitHub's number; whoever has lost the row takes its own registration away again."""
        runner = replace(lease.row, github_id=granted.github_id)
        try:
            lease.write(runner, self._event(Happening.RUNNER_REGISTERED, runner))
        except LeaseLost:
            with suppress(TryLater, Refused):
                self._github.deregister(runner.installation_id, runner.place, granted.github_id)
            raise

    def _note_number(self, lease: Lease[Runner], coming: Future[Registration]) -> None:
        """Write down what was registered beside a restore that failed, so that it is taken away with the rest."""
        with suppress(Throttled, Unreachable, RunnerBusy, Refused):
            self._note(lease, coming.result())

    def _take_back(self, lease: Lease[Runner], coming: Future[Registration]) -> None:
        """Take away what was registered beside a restore that failed and will be tried again."""
        self._note_number(lease, coming)
        with suppress(Throttled, Unreachable, RunnerBusy):
            self._let_go(lease)

    def _note_started(self, lease: Lease[Runner]) -> bool:
        runner = replace(_moved(lease.row, RunnerState.IDLE), idle_at=self._clock.now())
        lease.write(runner, self._event(Happening.RUNNER_STARTED, runner))
        # GitHub's word that it has taken a job may have come while the lease was ours.
        self._hints.look_at("job", str(runner.job_id))
        return False

    def _keep_as_busy(self, lease: Lease[Runner]) -> bool:
        runner = _moved(lease.row, RunnerState.BUSY)
        lease.write(runner)
        self._tell_host(runner)
        self._hints.look_at("job", str(runner.job_id))
        return False

    def _tell_host(self, runner: Runner) -> None:
        if runner.host_id is not None:
            self._hints.look_at("host", runner.host_id)

    # ------------------------------------------------------------ the way down

    def _end(self, lease: Lease[Runner], end: RunnerEnd, because: str | None = None) -> bool:
        if lease.row.state in {RunnerState.REQUESTED, RunnerState.BOOTING} and lease.row.github_id is None:
            self._find_registration(lease)
        runner = replace(_moved(lease.row, RunnerState.STOPPING), end=end)
        detail = {"end": end.value, "because": because}
        lease.write(runner, self._event(Happening.RUNNER_STOPPED, runner, **detail))
        if end is not RunnerEnd.BOOT_FAILED:  # what has just failed is tried again at the sweep's pace
            self._hints.look_at("job", str(runner.job_id))
        return True

    def _find_registration(self, lease: Lease[Runner]) -> None:
        """Whoever registered it may not have lived to write down GitHub's number: ask for it by its name."""
        runner = lease.row
        with suppress(Refused):
            found = self._github.number_of(runner.installation_id, runner.place, runner.id)
            if found is not None:
                lease.write(replace(runner, github_id=found))

    def _deregister(self, lease: Lease[Runner], seen: RunnerSeen) -> bool:
        """Take the registration away, unless GitHub has given it a job: then it is busy."""
        try:
            self._part(lease, seen)
        except RunnerBusy:
            self._breakers.note_served(lease.row)
            return self._keep_as_busy(lease)
        except (Unreachable, Throttled):
            if seen.host is None or not is_leaving(seen.host):
                raise
            # Nobody can tell us whether it has a job, and there is no time to wait: move it as if it had one.
            return self._keep_as_busy(lease)
        end = end_of_retired(seen)
        if end in {RunnerEnd.UNUSED, RunnerEnd.UNTOLD} and is_in_vain(seen):
            self._breakers.note_unused(lease.row)
        return self._end(lease, end)

    def _part(self, lease: Lease[Runner], seen: RunnerSeen) -> None:
        """Take the registration away, unless GitHub does so by itself because its one job is over.

        A deletion costs as much of GitHub's limits as five questions.
        """
        if not is_let_go(seen):
            self._let_go(lease)
        elif lease.row.github_id is not None:
            lease.write(replace(lease.row, github_id=None))

    def _let_go(self, lease: Lease[Runner]) -> None:
        """Take the registration away, or leave it if GitHub refuses us: it drops runners that it hears nothing of."""
        runner = lease.row
        if runner.github_id is None:
            return
        events: list[Event] = []
        try:
            self._github.deregister(runner.installation_id, runner.place, runner.github_id)
        except Refused as error:
            events.append(self._event(Happening.REGISTRATION_LEFT, runner, because=str(error)))
        lease.write(replace(runner, github_id=None), *events)

    def _abort_move(self, runner: Runner) -> bool:
        """A runner is not stopped while it moves: the migration is given up, or waited for if it must go forward."""
        row = self._store.migrations.get(runner.migration_id) if runner.migration_id else None
        if row is None:
            return False
        source, target = host_of(self._store, row.source_id), host_of(self._store, row.target_id)
        after = given_up(MigrationSeen(row, source, target, runner), "the runner is not needed any more")
        if after is row:
            return False
        event = Event(
            Happening.MIGRATION_ABORTED,
            self._clock.now(),
            runner_id=runner.id,
            migration_id=row.id,
            detail={"reason": after.reason},
        )
        self._store.decide(row, after, event)
        self._hints.look_at("migration", row.id)
        return True

    def _tear_down(self, lease: Lease[Runner], seen: RunnerSeen) -> bool:
        runner = lease.row
        if runner.end in ENDS_ITS_JOB:  # GitHub keeps its registration for as long as it runs the job
            self._stop(runner, seen)
        self._part(lease, seen)
        if runner.end not in ENDS_ITS_JOB:
            self._stop(runner, seen)
        return self._gone(lease, lease.row)

    def _stop(self, runner: Runner, seen: RunnerSeen) -> None:
        if not runner.is_parked:
            self._hosts.stop(_known(seen), runner.id, runner.epoch)

    def _bury(self, lease: Lease[Runner]) -> bool:
        """Its machine is no more; GitHub may keep the registration until the job's lock has expired."""
        if lease.row.state is not RunnerState.STOPPING:
            self._end(lease, RunnerEnd.HOST_LOST)
        self._let_go(lease)
        return self._gone(lease, lease.row)

    def _gone(self, lease: Lease[Runner], runner: Runner) -> bool:
        with suppress(TryLater):  # the sweep tells the relay its whole table again
            self._relay.forget(runner.id, runner.epoch)
        lease.write(
            _moved(runner, RunnerState.GONE),
            self._event(Happening.RUNNER_GONE, runner, end=runner.end.value if runner.end else None),
        )
        self._tell_host(runner)
        self._hints.look_at("job", str(runner.job_id))
        return False

    def _event(self, happening: Happening, runner: Runner, **detail: str | None) -> Event:
        return Event(
            happening,
            self._clock.now(),
            job_id=runner.job_id,
            runner_id=runner.id,
            host_id=runner.host_id,
            detail=detail,
        )


def _known(seen: RunnerSeen) -> Host:
    if seen.host is None:
        raise TryLater(f"{seen.runner.id} has no host")
    return seen.host


def _moved(runner: Runner, state: RunnerState) -> Runner:
    return replace(runner, state=RUNNER.move(runner.state, state))
