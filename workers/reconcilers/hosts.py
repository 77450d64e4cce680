"""Hosts: rented, watched, emptied when the cloud takes them back, and ended for certain."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, assert_never

import structlog

from workers.domain.errors import NoCapacity, Refused, Throttled, Unreachable
from workers.domain.events import Event, Happening
from workers.domain.host import HOST, Host, HostState
from workers.domain.migration import Migration
from workers.domain.names import HostId, RunnerId, migration_id
from workers.domain.registration import awaits_address
from workers.domain.runner import RUNNER, Runner, RunnerEnd, RunnerState
from workers.planning.capacity import is_surplus
from workers.planning.emptying import empty_by, to_empty
from workers.planning.evacuation import (
    Decision,
    LetFinish,
    Move,
    Park,
    Requeue,
    moves_now,
    parks_now,
    plan,
    requeues_now,
)
from workers.planning.fleet import Fleet, binds
from workers.planning.hosting import HostSeen, HostStep, is_past_deadline, next_step
from workers.planning.leaving import Known, needs_move, planned, situation
from workers.planning.parking import planned_park
from workers.ports import Clock, Cloud, Hints, InstanceState, Lease, Store
from workers.reconcilers.capacity import Buyer
from workers.reconcilers.clouds import PATIENCE, Clouds
from workers.reconcilers.patience import patience

log = structlog.get_logger()

# As long as a machine may take until it registers.
TOKEN_LIMIT: Final = timedelta(minutes=10)
STEPS_MAX: Final = 4
KEY_BYTES: Final = 32
"""Of AES-256."""


@dataclass(frozen=True)
class HostPolicy:
    """What every host is told."""

    user_data: Mapping[str, str]
    """`control_url` and `control_ca_sha256`; the token is each host's own and says whose it is."""


class Hosts:
    """Advances one host at a time."""

    def __init__(
        self,
        store: Store,
        clouds: Clouds,
        hints: Hints,
        clock: Clock,
        buyer: Buyer,
        policy: HostPolicy,
        token: Callable[[], str] = lambda: secrets.token_hex(5),
    ) -> None:
        self._store, self._clouds, self._hints, self._clock = store, clouds, hints, clock
        self._buyer, self._policy, self._token = buyer, policy, token
        self._listens_since = clock.now()
        self._tried: dict[
            RunnerId, tuple[HostId, ...]
        ] = {}  # forgotten at a restart, which may cost one more failed attempt
        self._told: dict[RunnerId, tuple[int, type[Decision]]] = {}  # forgotten too, and then told once more

    def due(self) -> Sequence[HostId]:
        """Return every host that is not TERMINATED."""
        return [host.id for host in self._store.hosts.open()]

    def due_now(self) -> Sequence[HostId]:
        """Return the hosts that the cloud takes back."""
        return [host.id for host in self._store.hosts.open() if host.deadline_at is not None]

    def advance(self, host_id: HostId) -> None:
        """Take this host as far as it goes now. Raises `TryLater`, mostly because another has the lease."""
        for _ in range(STEPS_MAX):
            if not self._step(host_id):
                return

    def end_leaked(self) -> None:
        """End every instance that carries our name and that no open host stands for."""
        for cloud in self._clouds:
            with patience("cloud", cloud.name):
                try:
                    self._end_leaked_at(cloud)
                except Refused as error:  # the others are looked at all the same
                    log.error("cloud_refuses", cloud=cloud.name, because=str(error))  # noqa: TRY400 the sentence says it all

    def _end_leaked_at(self, cloud: Cloud) -> None:
        wanted = {host.id for host in self._store.hosts.open() if host.cloud == cloud.name}
        for instance in cloud.owned():
            if instance.host_id not in wanted and not self._is_open(instance.host_id, cloud.name):
                cloud.terminate(instance.host_id)

    def _is_open(self, host_id: HostId, cloud: str) -> bool:
        """Look once more: it may have been asked for after the list was made."""
        host = self._store.hosts.get(host_id)
        return host is not None and host.state in HOST.open and host.cloud == cloud

    def _step(self, host_id: HostId) -> bool:
        if self._store.hosts.get(host_id) is None:
            return False
        with self._store.hosts.lease(host_id) as lease:
            seen = self._gather(lease.row)
            step = next_step(seen, self._clock.now())
            if step not in {HostStep.EVACUATE, HostStep.WAIT}:
                return self._act(lease, step)
            if seen.host.state is HostState.LAUNCHING:
                self._look_where(lease)
                return False
        # Moves are written under the runners' leases, and the host's daemon may want its row meanwhile.
        return self._evacuate(seen.host) if step is HostStep.EVACUATE else self._offer(seen.host)

    def _gather(self, host: Host) -> HostSeen:
        fleet = self._buyer.fleet()
        moves = [move for move in fleet.migrations if binds(move, host.id)]
        now = self._clock.now()
        return HostSeen(
            host=host,
            is_used=bool(fleet.runners_of(host.id) or moves),
            is_surplus=is_surplus(host, fleet, self._buyer.policy, now) and not self._buyer.waiting(),
            is_told_dead=(is_past_deadline(host, now) or host.id in fleet.silent) and self._is_dead(host),
            silent_for=now - max(host.heartbeat_at or now, self._listens_since),
            others_are_heard=any(one.heartbeat_at and one.id not in fleet.silent for one in fleet.hosts),
        )

    def _is_dead(self, host: Host) -> bool:
        try:
            instance = self._clouds.of(host).describe(host.id)
        except (Throttled, Unreachable, Refused):
            return False
        return instance is None or instance.state in {InstanceState.STOPPED, InstanceState.TERMINATED}

    def _act(self, lease: Lease[Host], step: HostStep) -> bool:
        match step:
            case HostStep.LAUNCH:
                return self._launch(lease)
            case HostStep.GIVE_UP:
                return self._enter(lease, HostState.TERMINATING)
            case HostStep.LOSE:
                return self._enter(lease, HostState.LOST, Happening.HOST_LOST)
            case HostStep.DRAIN:
                return self._enter(lease, HostState.DRAINING, Happening.HOST_DRAINING)
            case HostStep.REOPEN:
                return self._enter(lease, HostState.READY)
            case HostStep.TERMINATE:
                return self._terminate(lease)
            case HostStep.WAIT | HostStep.EVACUATE:
                return False
            case _:
                assert_never(step)

    def _enter(self, lease: Lease[Host], state: HostState, *happenings: Happening) -> bool:
        host = replace(lease.row, state=HOST.move(lease.row.state, state))
        lease.write(host, *(self._event(happening, host) for happening in happenings))
        return True

    # ------------------------------------------------------------ rented and given back

    def _launch(self, lease: Lease[Host]) -> bool:
        host, now = lease.row, self._clock.now()
        token = self._store.issue_token(host.id, now + TOKEN_LIMIT)
        told = {**self._policy.user_data, "token": token}
        try:
            instance = self._clouds.launch(host, told)
        except Refused as error:
            self._give_up(lease, str(error))
            return False  # whoever still wants a host asks for another one at the sweep's pace
        except NoCapacity as error:
            after = self._clouds.sold_out(host)
            if after != host:
                lease.write(after, self._event(Happening.LAUNCH_REFUSED, after, because=str(error)))
            if self._clouds.is_further(host, after):
                return True  # guests may be waiting for it with a deadline
            raise
        except (Throttled, Unreachable) as error:
            if now - host.requested_at <= PATIENCE or self._clouds.another(host) is None:
                raise
            self._give_up(lease, str(error))  # if it was made all the same, its end waits until the cloud answers
            self._buyer.buy()
            return False
        state = HOST.move(host.state, HostState.LAUNCHING)
        launched = replace(host, state=state, instance_id=instance.id, machine=instance.machine)
        lease.write(launched, self._event(Happening.HOST_LAUNCHED, launched, cloud=host.cloud, instance=instance.id))
        return False

    def _look_where(self, lease: Lease[Host]) -> None:
        """Note where its machine is by now, for the listener: some clouds tell the public address later."""
        told = lease.row.machine
        if told is None or not awaits_address(lease.row):
            return
        instance = self._clouds.of(lease.row).describe(lease.row.id)
        found = instance.machine.addresses if instance is not None and instance.machine is not None else None
        if found and found != told.addresses:
            lease.write(replace(lease.row, machine=replace(told, addresses=found)))

    def _give_up(self, lease: Lease[Host], because: str) -> None:
        host = lease.row
        log.error("launch_refused", host=host.id, because=because)
        given_up = replace(host, state=HOST.move(host.state, HostState.TERMINATING))
        lease.write(given_up, self._event(Happening.LAUNCH_REFUSED, given_up, because=because))

    def _terminate(self, lease: Lease[Host]) -> bool:
        """End the machine and wait for the cloud's word that it is no more: only then nothing runs there."""
        if lease.row.state is HostState.LOST:
            self._enter(lease, HostState.TERMINATING)
        host = lease.row
        cloud = self._clouds.of(host)
        cloud.terminate(host.id)
        instance = cloud.describe(host.id)
        if instance is not None and instance.state is not InstanceState.TERMINATED:
            return False
        ended = replace(host, state=HOST.move(host.state, HostState.TERMINATED), ended_at=self._clock.now())
        lease.write(ended, self._event(Happening.HOST_TERMINATED, ended))
        self._tell_everybody_on(ended)
        self._buyer.buy()
        return False

    def _tell_everybody_on(self, host: Host) -> None:
        runners = self._store.runners_on(host.id)
        moves = [move.id for move in self._store.migrations.open() if move.role_of(host.id)]
        self._hints.look_at("migration", *moves)
        self._hints.look_at("runner", *(runner.id for runner in runners))
        self._hints.look_at("job", *(str(runner.job_id) for runner in runners))

    # ------------------------------------------------------------ in use

    def _offer(self, host: Host) -> bool:
        """Let those who wait know that there is room."""
        if host.state is HostState.READY:
            self._hints.look_at("job", *(str(job.id) for job in self._buyer.invited(host)))
            leaving = [one.id for one in self._store.hosts.open() if one.deadline_at is not None]
            self._hints.look_at("host", *leaving)
            self._empty(host)
        return False

    def _empty(self, host: Host) -> None:
        """Move the last guests of a host whose paid period ends, so that it can be given back."""
        policy, now = self._buyer.policy, self._clock.now()
        if not policy.empties_hosts or self._buyer.waiting():
            return
        fleet = self._buyer.fleet()
        chosen = to_empty(fleet, policy, now)
        if chosen is None or chosen.id != host.id:
            return
        # As if the cloud took it back then; but nothing is lost if a guest stays, so none is parked or run again.
        source, known = replace(host, deadline_at=empty_by(host, policy, now)), self._known(host, fleet)
        seen = replace(situation(source, empty_by(host, policy, now), fleet, known, now), can_park=False)
        decisions = plan(seen, now)
        if not all(isinstance(decision, Move | LetFinish) for decision in decisions):
            return
        for move in moves_now(decisions, seen, now):
            with patience("runner", move.runner_id):
                self._plan(replace(move, reason=f"its host can be given back then; {move.reason}"), source)

    def _evacuate(self, source: Host) -> bool:
        """Plan for every guest that must leave; let those without a job retire; buy room for whoever has none."""
        fleet, now = self._buyer.fleet(), self._clock.now()
        runners = fleet.runners_of(source.id)
        self._hints.look_at("runner", *(one.id for one in runners if one.state is not RunnerState.BUSY))
        if source.deadline_at is None:
            return False
        seen = situation(source, source.deadline_at, fleet, self._known(source, fleet), now)
        decisions = plan(seen, now)
        self._tell(decisions, fleet)
        for move in moves_now(decisions, seen, now):
            with patience("runner", move.runner_id):
                self._plan(move, source)
        for park in parks_now(decisions, now):
            with patience("runner", park.runner_id):
                self._park(park, source)
        for again in requeues_now(decisions):
            with patience("runner", again.runner_id):
                self._requeue(again, source)
        if not all(isinstance(decision, Move) for decision in decisions):
            self._buyer.buy()
        return False

    def _known(self, source: Host, fleet: Fleet) -> Known:
        self._tried = {one.id: self._tried[one.id] for one in fleet.runners if one.id in self._tried}
        runners = fleet.runners_of(source.id)
        reports = (self._store.report_of(one.id) for one in runners)
        jobs = {one.id: job for one in runners if (job := self._store.jobs.get(one.job_id)) and job.runner_id == one.id}
        loads = {report.runner_id: report.load for report in reports if report and report.load}
        return Known(loads, self._store.lines_seen(), self._tried, jobs)

    def _tell(self, decisions: Sequence[Decision], fleet: Fleet) -> None:
        """Tell the timeline what was decided for each runner, and again only if it becomes something else."""
        self._told = {one.id: self._told[one.id] for one in fleet.runners if one.id in self._told}
        for decision in decisions:
            runner = next((one for one in fleet.runners if one.id == decision.runner_id), None)
            if runner is not None and self._told.get(runner.id) != (runner.epoch, type(decision)):
                self._told[runner.id] = (runner.epoch, type(decision))
                detail = {"decision": type(decision).__name__, "because": decision.reason}
                self._store.record(
                    Event(
                        Happening.EVACUATION_DECIDED,
                        self._clock.now(),
                        job_id=runner.job_id,
                        runner_id=runner.id,
                        host_id=runner.host_id,
                        detail=detail,
                    )
                )

    def _plan(self, move: Move, source: Host) -> None:
        name = migration_id(self._token())
        with self._store.runners.lease(move.runner_id) as lease:
            runner = lease.row
            if not needs_move(runner) or runner.host_id != source.id:
                return
            row = planned(move, runner, source, name, self._clock.now())
            lease.write(replace(runner, migration_id=name), row, *_planned_events(move, row, runner))
        before = [target for target in self._tried.get(move.runner_id, ()) if target != move.target_id]
        self._tried[move.runner_id] = (*before, move.target_id)
        self._hints.look_at("migration", name)

    def _park(self, park: Park, source: Host) -> None:
        """Send a guest to the store, sealed with a key that is drawn for this alone."""
        name = migration_id(self._token())
        with self._store.runners.lease(park.runner_id) as lease:
            runner = lease.row
            if not needs_move(runner) or runner.host_id != source.id:
                return
            row = planned_park(runner, source, name, secrets.token_hex(KEY_BYTES), self._clock.now())
            event = planned_event(row, runner, source=source.id, target="the object store", because=park.reason)
            lease.write(replace(runner, migration_id=name), row, event)
        self._hints.look_at("migration", name)

    def _requeue(self, again: Requeue, source: Host) -> None:
        """Give up a guest whose job is cheaper to run again: its own steps end it, and its job's steps run it again."""
        with self._store.runners.lease(again.runner_id) as lease:
            runner = lease.row
            if not needs_move(runner) or runner.host_id != source.id:
                return
            stopped = replace(runner, state=RUNNER.move(runner.state, RunnerState.STOPPING), end=RunnerEnd.REQUEUED)
            lease.write(stopped, _stopped_event(stopped, again.reason, self._clock.now()))
        self._hints.look_at("runner", runner.id)
        self._hints.look_at("job", str(runner.job_id))

    def _event(self, happening: Happening, host: Host, **detail: str | None) -> Event:
        return Event(happening, self._clock.now(), host_id=host.id, detail=detail)


def _stopped_event(runner: Runner, because: str, now: datetime) -> Event:
    return Event(
        Happening.RUNNER_STOPPED,
        now,
        job_id=runner.job_id,
        runner_id=runner.id,
        host_id=runner.host_id,
        detail={"end": RunnerEnd.REQUEUED.value, "because": because},
    )


def planned_event(row: Migration, runner: Runner, **detail: str | None) -> Event:
    return Event(
        Happening.MIGRATION_PLANNED,
        row.planned_at,
        job_id=runner.job_id,
        runner_id=runner.id,
        host_id=row.source_id,
        migration_id=row.id,
        detail=detail,
    )


def _planned_events(move: Move, row: Migration, runner: Runner) -> Iterator[Event]:
    whole = planned_event(row, runner, source=row.source_id, target=row.target_id, because=move.reason)
    if move.breaks_hold_until is not None:
        until = {"held_until": move.breaks_hold_until.isoformat(timespec="seconds")}
        yield replace(whole, happening=Happening.HOLD_BROKEN, detail=until)
    yield whole
