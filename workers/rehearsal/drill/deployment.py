"""The drill of a deployment: its own hosts are taken back under its own jobs, and its store tells what comes of that.

a host with jobs ──▶ taken back by its cloud ──▶ gone, and each job stands somewhere ──▶ … ──▶ counted

Nothing is started and no job is queued: the deployment must be at work. What only a rehearsal's jobs can say of
themselves (gaps of their beat, connections, steps) is null in the report.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from workers.domain.errors import BadInput, Unreachable
from workers.domain.events import Happening
from workers.domain.host import Host, HostState
from workers.domain.job import Job, JobState
from workers.domain.migration import Migration
from workers.domain.names import HostId, JobId
from workers.domain.runner import RunnerState
from workers.ports import Clock, Interrupter, Store
from workers.rehearsal.drill.interruption import Interruption, Outcome, Plan, planned, worst
from workers.rehearsal.drill.standing import Standing, at_the_end, outcome_of
from workers.rehearsal.drill.tally import percentiles
from workers.rehearsal.follow import Follower

Json = dict[str, Any]

LOOK_INTERVAL_S: Final = 1.0
# A quiet deployment has no job for a while; a drill that waits longer is not wanted.
AT_WORK_LIMIT: Final = timedelta(minutes=30)
# After its notice a host is gone; what it had is moved, or lost, noticed as such, failed by GitHub and run again.
SETTLE_LIMIT: Final = timedelta(minutes=30)


@dataclass(frozen=True)
class Order:
    """What the user has asked for."""

    count: int
    notice_s: tuple[float, float]
    seed: int = 0
    json: Path | None = None


@dataclass
class DeploymentDrill:
    """One drill, or what is left of one. Raises `SpotError` if a host cannot be taken back, or nothing is at work."""

    store: Store
    interrupters: Mapping[str, Interrupter]
    """By the name of the cloud."""
    clock: Clock
    pause: Callable[[float], None]
    say: Callable[[str], None]
    interruptions: list[Json] = field(default_factory=list)
    moves: list[Json] = field(default_factory=list)

    def play(self, order: Order) -> Json:
        """Interrupt as often as is left to do and return the report; it is written after each interruption."""
        self._follower = Follower(self.store)
        self._follower.fresh()
        over = {one["number"] for one in self.interruptions}
        for number in (one for one in range(order.count) if one not in over):
            self._interrupt(planned(order.seed, number, order.notice_s, ()), order)
            if order.json is not None:
                order.json.write_text(json.dumps(self.report(order.seed), indent=2) + "\n")
        return self.report(order.seed)

    def _interrupt(self, plan: Plan, order: Order) -> None:
        host = self._chosen(plan)
        self.pause(plan.delay_s)
        jobs = self._jobs_on(host.id)
        interrupter = self.interrupters.get(host.cloud)
        if interrupter is None:
            raise BadInput(f"drill: {host.id} is of the cloud {host.cloud!r}, and nothing here takes its hosts back")
        interrupter.take_back(host, timedelta(seconds=plan.notice_s))
        done = Interruption(plan, host.id, self.clock.now().timestamp(), jobs)
        told = f"{plan.number + 1} of {order.count}: {host.id} is taken back in {plan.notice_s:.0f} s, {len(jobs)} jobs"
        self.say(told)
        outcome = self._settled(done)
        self.interruptions.append(done.told(outcome))
        self.moves += [self._told(move) for move in self._moves() if move.source_id == host.id]
        self.say(f"{plan.number + 1} of {order.count}: {outcome.value}")

    def _chosen(self, plan: Plan) -> Host:
        """Wait until a host has a job in flight, and choose one."""
        end = self.clock.now() + AT_WORK_LIMIT
        while not (hosts := [host for host in self.store.hosts.open() if self._is_at_work(host)]):
            if self.clock.now() > end:
                raise Unreachable(f"no host had a job for {AT_WORK_LIMIT}; drill a deployment that is at work")
            self.pause(LOOK_INTERVAL_S)
        name = plan.chosen(sorted(host.id for host in hosts))
        return next(host for host in hosts if host.id == name)

    def _is_at_work(self, host: Host) -> bool:
        return host.state is HostState.READY and bool(self._jobs_on(host.id))

    def _jobs_on(self, host: HostId) -> tuple[int, ...]:
        busy = [runner.job_id for runner in self.store.runners_on(host) if runner.state is RunnerState.BUSY]
        jobs = [self.store.jobs.get(key) for key in busy]
        return tuple(job.id for job in jobs if job is not None and job.state is JobState.RUNNING)

    # ------------------------------------------------------------ what becomes of them

    def _settled(self, done: Interruption) -> Outcome:
        """Wait until the host is gone and each of its jobs stands somewhere, or the time is over."""
        end = self.clock.now() + timedelta(seconds=done.plan.notice_s) + SETTLE_LIMIT
        while True:
            self._follower.fresh()
            outcomes = [self._outcome(JobId(job), HostId(done.host)) for job in done.jobs]
            is_gone = self._is_gone(HostId(done.host))
            if (is_gone and None not in outcomes) or self.clock.now() > end:
                return worst([at_the_end(one) for one in outcomes])
            self.pause(LOOK_INTERVAL_S)

    def _is_gone(self, host_id: HostId) -> bool:
        host = self.store.hosts.get(host_id)
        return host is None or host.state is HostState.TERMINATED

    def _outcome(self, job_id: JobId, host: HostId) -> Outcome | None:
        job = self.store.jobs.get(job_id)
        if job is None:
            return None
        runner = self.store.runners.get(job.runner_id) if job.runner_id else None
        moves = [move for move in self._moves() if runner is not None and move.runner_id == runner.id]
        return outcome_of(Standing(job, runner, moves, self._later(job)), host)

    def _later(self, job: Job) -> Sequence[Job]:
        keys = dict.fromkeys(event.job_id for event in self._follower.seen if event.job_id is not None)
        known = [other for key in keys if (other := self.store.jobs.get(key)) is not None]
        same = [one for one in known if (one.run_id, one.name) == (job.run_id, job.name)]
        return sorted((one for one in same if one.run_attempt > job.run_attempt), key=lambda one: one.run_attempt)

    def _moves(self) -> Sequence[Migration]:
        keys = dict.fromkeys(event.migration_id for event in self._follower.seen if event.migration_id is not None)
        return [row for key in keys if (row := self.store.migrations.get(key)) is not None]

    def _told(self, move: Migration) -> Json:
        at = {event.happening: event.at for event in self._follower.seen if event.migration_id == move.id}
        notices = [
            event.at
            for event in self._follower.seen
            if event.happening is Happening.HOST_NOTICE and event.host_id == move.source_id
        ]
        committed = at.get(Happening.MIGRATION_COMMITTED)
        stopped, resumed = move.figures.get("stopped_at"), move.figures.get("resumed_at")
        return {
            "move": move.id,
            "source": move.source_id,
            "target": move.target_id,
            "phase": move.phase.value,
            "reason": move.reason,
            "notice_to_commit_s": (committed - notices[0]).total_seconds() if committed and notices else None,
            "stopped_ms": round((resumed - stopped) * 1000, 1) if stopped and resumed else None,
            "mib_sent": round(sum(move.figures.get(f"{kind}_mib_sent", 0.0) for kind in ("memory", "disk"))),
        }

    def report(self, seed: int) -> Json:
        """Return the survival report; what a deployment cannot know is null."""
        unknown = percentiles([])
        live = [move for move in self.moves if move["target"] is not None]
        counts = {one.value: sum(told["outcome"] == one.value for told in self.interruptions) for one in Outcome}
        taken = {told["host"] for told in self.interruptions}
        return {
            "count": len(self.interruptions),
            **counts,
            "double_runs": None,
            "steps_rerun": None,
            "leftovers": sorted(host for host in taken if not self._is_gone(HostId(host))),
            "guest_gap_ms": unknown,
            "guest_gap_baseline_ms": unknown,
            "stopped_ms": percentiles([move["stopped_ms"] for move in live]),
            "notice_to_commit_s": percentiles([move["notice_to_commit_s"] for move in self.moves]),
            "mib_sent": sum(move["mib_sent"] for move in self.moves),
            "connection": {"longest_gap_ms": None, "lost_messages": None},
            "faults": {},
            "seed": seed,
            "shortened": {},
            "parts": {"interruptions": self.interruptions, "moves": self.moves},
        }


def earlier(file: Path | None, seed: int) -> tuple[list[Json], list[Json]]:
    """Return what an earlier drill with the same report has counted. Raises `BadInput` if that was another one."""
    if file is None or not file.exists():
        return [], []
    told = json.loads(file.read_text())
    if told.get("seed") != seed or "moves" not in told.get("parts", {}):
        raise BadInput(f"--json {file}: it is another drill's report (seed {told.get('seed')}); choose another file")
    return told["parts"]["interruptions"], told["parts"]["moves"]
