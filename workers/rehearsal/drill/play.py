"""The drill: jobs are kept running, and one host after the other is taken away from them.

jobs kept at work ──▶ a host chosen ──▶ notice (and a fault) ──▶ settled ──▶ … ──▶ jobs ended ──▶ counted
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from workers.domain.errors import Unreachable
from workers.domain.events import Happening
from workers.domain.host import HostState
from workers.domain.labels import SERVED
from workers.domain.migration import Migration, MigrationPhase
from workers.domain.names import HostId
from workers.domain.runner import RunnerState
from workers.rehearsal.drill.faults import TAKES_ALL, WITH_NOTICE, phase_of, planter_at_phase
from workers.rehearsal.drill.interruption import Interruption, Outcome, Plan, blamed, planned, worst
from workers.rehearsal.drill.saboteur import Escaped, Saboteur
from workers.rehearsal.drill.tally import Tally
from workers.rehearsal.drill.why import Case, needs_words, why
from workers.rehearsal.follow import has_ended
from workers.rehearsal.pulse import Pulse
from workers.rehearsal.report import Seen, report
from workers.rehearsal.screen import Screen
from workers.rehearsal.stage import Stage
from workers.rehearsal.story import BEGIN, CLONE, REPOSITORY
from workers.rehearsal.watch import Watch

Json = dict[str, Any]

WORK_STEP: Final = "Work"
# Nobody but the drill itself cancels, and it may choose a job that is being run again.
GOOD_ENDS: Final = frozenset({"success", "cancelled"})
DISK_MIB: Final = 16
WORK_SHARES: Final = (0.5, 1.5)
# How much longer than a notice a job works that must not end by itself before its host does.
WORK_SPARE_S: Final = 30.0
# The shortest phases last some tens of milliseconds.
PHASE_INTERVAL_S: Final = 0.005
# Both a warm spare and room for all guests of the one that is taken.
READY_HOSTS: Final = 2
AT_WORK_LIMIT_S: Final = 240.0
# After its notice a host is gone; what it had is moved, or lost, noticed as such, and asked for again.
SETTLE_LIMIT_S: Final = 120.0
JOBS_LIMIT_S: Final = 300.0


@dataclass(frozen=True)
class DrillOptions:
    """What the user has asked for."""

    count: int
    name: str = "drill"
    notice_s: tuple[float, float] = (20.0, 60.0)
    faults: tuple[str, ...] = ()
    jobs: int = 2
    work_s: float = 60.0
    """How long a job works on average between its first and its last steps; the drill's end is its end too."""
    seed: int = 0
    json: Path | None = None


class Drill:
    """One drill, or what is left of one."""

    def __init__(self, stage: Stage, options: DrillOptions, screen: Screen, tally: Tally, pulse: Pulse) -> None:
        self.stage = stage
        self.options = options
        self.screen = screen
        self.tally = tally
        self.pulse = pulse
        self.watch = Watch(stage, screen, tells_events=False)
        self.saboteur = Saboteur(stage)
        self.planted: set[int] = set()
        """Numbers of the interruptions whose fault was planted; a phase may be over before anybody has seen it."""
        self.chance = random.Random(f"{options.seed}/jobs")  # noqa: S311 it chooses how long jobs work, nothing secret
        self.needs_jobs = True
        self.least_work_s = 0.0
        """How long every job works that is queued now."""
        self.jobs: list[int] = []
        """The first attempt of each job that has not been counted yet."""
        self.pending: list[Interruption] = []
        """Those whose jobs have not all been counted yet."""
        self.outcomes: dict[int, list[Outcome]] = {}
        """Number of an interruption -> what it came to for each of its jobs that were counted."""
        self.words: dict[int, list[str]] = {}
        """Number of an interruption -> why it did not come out well, of its jobs that were counted."""

    def play(self) -> None:
        """Interrupt as often as is left to do. Raises `Unreachable` if something does not come in time."""
        self.watch.open(self.stage.terms.ready_hosts)
        self.screen.webhook_at = time.time()
        over = {one["number"] for one in self.tally.interruptions}
        try:
            numbers = sorted(set(range(self.options.count)) - over)
            for number in numbers:
                plan = planned(self.options.seed, number, self.options.notice_s, self.options.faults)
                self._interrupt(plan, is_last=number == numbers[-1])
            self._end_jobs()
        except Unreachable:
            self._say_what_stands()
            raise

    def _say_what_stands(self) -> None:
        """Say of every job what happened to it so far, before nobody can ask any more."""
        for first in self.jobs:
            self._say(f"job {first} was not over", self._why(first, self._whole_attempts(first)))

    # ------------------------------------------------------------ one interruption

    def _interrupt(self, plan: Plan, *, is_last: bool) -> None:
        takes_all = plan.fault in TAKES_ALL
        if takes_all:
            self._end_jobs()
            self.least_work_s = plan.notice_s + WORK_SPARE_S
        hosts = self._wait_work()
        self._look_until(time.monotonic() + plan.delay_s)
        self.needs_jobs = not is_last
        host = HostId(plan.chosen(sorted(set(hosts) & set(self._hosts_at_work())) or sorted(hosts)))
        done = Interruption(plan, host, time.time(), self._jobs_on(None if takes_all else host), takes_all=takes_all)
        self.pending.append(done)
        and_more = f", and {plan.fault}" if plan.fault else ""
        told = f"{plan.number + 1} of {self.options.count}: {host} is taken back in {plan.notice_s:.0f} s{and_more}"
        self.screen.line(told)
        phase = phase_of(plan.fault) if plan.fault else None
        if plan.fault and phase is None:
            WITH_NOTICE[plan.fault](self.saboteur, host, plan.notice_s)
            self.planted.add(plan.number)
        self.stage.take_away(host, plan.notice_s)
        if plan.fault and phase is not None:
            self._plant(done, plan.fault, phase)
        self._settle(done)
        self.least_work_s = 0.0

    def _plant(self, done: Interruption, fault: str, phase: MigrationPhase) -> None:
        """Wait until a move off the host is in the fault's phase, and plant it; no other phase will do."""
        end = time.monotonic() + done.plan.notice_s
        while time.monotonic() < end and not self._is_over(done):
            rows = self.stage.store.migrations.open()
            row = next((row for row in rows if row.source_id == done.host and row.phase is phase), None)
            if row is not None:
                with suppress(Escaped):
                    planter_at_phase(fault)(self.saboteur, row)
                    self.planted.add(done.plan.number)
                return
            self.watch.pause(PHASE_INTERVAL_S)

    def _is_over(self, done: Interruption) -> bool:
        """Say whether nothing can leave the host any more."""
        host = self.stage.store.hosts.get(HostId(done.host))
        return host is None or host.state in {HostState.TERMINATING, HostState.TERMINATED}

    def _wait_work(self) -> list[str]:
        end = time.monotonic() + AT_WORK_LIMIT_S
        with self.screen.waiting("waiting until a job is at work"):
            while not (hosts := self._hosts_at_work()):
                self._keep_jobs()
                self.watch.look_once(end, "no job is at work")
        return hosts

    def _look_until(self, moment: float) -> None:
        while time.monotonic() < moment:
            self._keep_jobs()
            self.watch.look_once(moment + SETTLE_LIMIT_S, "time does not pass")

    def _settle(self, done: Interruption) -> None:
        """Wait until the host is gone and what it had is somewhere else, or known to be lost."""
        end = time.monotonic() + done.plan.notice_s + SETTLE_LIMIT_S
        with self.screen.waiting(f"{done.host} is being taken away"):
            while not self._is_settled(done):
                self.saboteur.mend_due()
                self._keep_jobs()
                self.watch.look_once(end, f"interruption {done.plan.number + 1} does not settle")
        self.saboteur.mend_due(everything=True)

    def _is_settled(self, done: Interruption) -> bool:
        is_gone = self.watch.follower.has(Happening.HOST_TERMINATED, host_id=done.host)
        is_gone = is_gone and not any(row.source_id == done.host for row in self.stage.store.migrations.open())
        return done.is_over(time.time(), is_gone=is_gone)

    # ------------------------------------------------------------ who is at work

    def _hosts_at_work(self) -> list[str]:
        """Return the hosts that nobody has taken back yet and that have a job in the middle of its work."""
        store = self.stage.store
        names = {attempt["runner_name"] for first in self.jobs if _is_at_work(attempt := self._attempts(first)[-1])}
        busy = [runner for runner in store.runners.open() if runner.state is RunnerState.BUSY and runner.id in names]
        ready = {host.id for host in store.hosts.open() if host.state is HostState.READY}
        return sorted({str(runner.host_id) for runner in busy if runner.host_id in ready})

    def _jobs_on(self, host: HostId | None) -> tuple[int, ...]:
        """Return the jobs on a host; None: on any."""
        runners = self.stage.store.runners.open() if host is None else self.stage.store.runners_on(host)
        names = {runner.id for runner in runners if runner.state is RunnerState.BUSY}
        return tuple(first for first in self.jobs if self._attempts(first)[-1]["runner_name"] in names)

    def _attempts(self, first: int) -> list[Json]:
        attempts: list[Json] = self.stage.in_internet(lambda: self.stage.github.job(first))["attempts"]
        return attempts

    def _whole(self, attempt: int) -> Json:
        whole: Json = self.stage.in_internet(lambda: self.stage.github.job(attempt))
        return whole

    # ------------------------------------------------------------ the jobs

    def _keep_jobs(self) -> None:
        """Count the jobs that have ended, and queue others in their place."""
        self._count_ended()
        for _ in range(self.options.jobs - len(self.jobs) if self.needs_jobs else 0):
            # They do not end together, so that there always is one at work.
            work_s = max(self.least_work_s, self.options.work_s * self.chance.uniform(*WORK_SHARES))
            steps = steps_of(work_s)
            self.jobs += self.stage.in_internet(partial(self.stage.github.start_jobs, REPOSITORY, [SERVED], steps))

    def _end_jobs(self) -> None:
        """Let every job come to its end, and wait until all are counted."""
        end = time.monotonic() + JOBS_LIMIT_S
        with self.screen.waiting("waiting until the jobs have ended"):
            while self.pending or self.jobs:
                self.stage.end_work()
                self._count_ended()
                self.watch.look_once(end, f"{len(self.jobs)} jobs have not ended")

    def _count_ended(self) -> None:
        for first in list(self.jobs):
            if has_ended(self._attempts(first), self.watch.follower, was_interrupted=self._was_interrupted(first)):
                self._count(first)
                self.jobs.remove(first)

    def _was_interrupted(self, first: int) -> bool:
        return bool(self._met(first))

    def _count(self, first: int) -> None:
        attempts = self._whole_attempts(first)
        job = self._reported(attempts)
        words = self._words(first, attempts, is_connected=job["connection"]["survived"])
        self.tally.jobs.append(job | {"job": first, "why": words})
        of_job = self._met(first)
        for done in of_job:
            is_blamed = blamed(done, of_job, first, attempts)
            outcome = outcome_of(job, done.judged_by, is_blamed=is_blamed)
            self.outcomes.setdefault(done.plan.number, []).append(outcome)
            self.words.setdefault(done.plan.number, []).extend(words if is_blamed else ())
            if len(self.outcomes[done.plan.number]) == len(done.jobs):
                self._close(done)

    def _close(self, done: Interruption) -> None:
        number = done.plan.number
        outcome, words = worst(self.outcomes.pop(number)), self.words.pop(number)
        self.pending.remove(done)
        self.tally.interruptions.append(done.told(outcome) | {"is_planted": number in self.planted, "why": words})
        self.screen.line(f"{number + 1} of {self.options.count}: {outcome.value}")

    def _whole_attempts(self, first: int) -> list[Json]:
        return [self._whole(attempt["id"]) for attempt in self._attempts(first)]

    def _met(self, first: int) -> list[Interruption]:
        return [one for one in self.pending if first in one.jobs]

    def _words(self, first: int, attempts: Sequence[Json], *, is_connected: bool) -> list[str]:
        """Say, on the screen too, what happened to a job that somebody will ask about."""
        if not needs_words(attempts, is_connected=is_connected):
            return []
        words = self._why(first, attempts)
        self._say(f"job {first} did not go straight to its success", words)
        return words

    def _say(self, headline: str, words: Sequence[str]) -> None:
        self.screen.line(headline)
        for sentence in words:
            self.screen.line(f"    {sentence}")

    def _why(self, first: int, attempts: Sequence[Json]) -> list[str]:
        self.watch.show_events()
        registrations = self.stage.in_internet(self.stage.github.runners)
        return why(Case(attempts, registrations, self._rows(), self.watch.follower.seen, self._met(first)))

    def _rows(self) -> list[Migration]:
        """Return every move that there was."""
        keys = dict.fromkeys(event.migration_id for event in self.watch.follower.seen if event.migration_id is not None)
        return [row for key in keys if (row := self.stage.store.migrations.get(key)) is not None]

    def _reported(self, attempts: Sequence[Json]) -> Json:
        """Return what the demo would report of this job."""
        events, rows = self.watch.follower.seen, self._rows()
        whole = report(
            Seen(
                acceleration=self.stage.kit.acceleration,
                cold_boot_s=None,
                job_lock_s=self.stage.terms.job_lock_s,
                jobs=[attempts],
                deliveries=self.stage.in_internet(self.stage.github.deliveries),
                events=events,
                migrations=rows,
                interrupted=False,
                stalls=tuple(self.pulse.stalls),
            )
        )
        job: Json = whole["jobs"][0]
        return job


def steps_of(work_s: float) -> tuple[tuple[str, str], ...]:
    """Return the steps of a drill's job: light enough for several at once where there is no hardware virtualization."""
    return (
        ("Clone and connect", f"{CLONE} && {BEGIN}"),
        (f"Write {DISK_MIB} MiB", f"python3 job/disk.py write figures {DISK_MIB}"),
        (WORK_STEP, f"python3 job/work.py {work_s:.1f} figures/bell"),
        ("Read them again", f"python3 job/disk.py verify figures {DISK_MIB}"),
        ("Say what was seen", "python3 job/end.py figures"),
    )


def outcome_of(job: Json, host: str | None, *, is_blamed: bool) -> Outcome:
    """Judge one interruption, by the loss of this host (None: of any), of a job that has ended."""
    if not is_blamed:
        was_parked = any(move["target"] is None and host in {None, move["source"]} for move in job["migrations"])
        return Outcome.PARKED if was_parked else Outcome.SURVIVED
    return Outcome.RERUN if job["conclusion"] in GOOD_ENDS else Outcome.LOST


def _is_at_work(attempt: Json) -> bool:
    return any(step["name"] == WORK_STEP and step["starts"] and not step["conclusion"] for step in attempt["steps"])
