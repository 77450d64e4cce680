"""The story: a job is queued, runs in a microVM, its host is taken away in the middle, and the job does not notice.

prepared ──▶ jobs queued ──▶ every job in its tests ──▶ a host is taken away ──▶ all jobs over ──▶ settled
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from workers.domain.events import Happening
from workers.domain.host import HostState
from workers.domain.labels import SERVED
from workers.domain.names import HostId
from workers.rehearsal import places as at
from workers.rehearsal.follow import StepWatch, has_ended, sentence, steps_over
from workers.rehearsal.internet import CLONE_URL
from workers.rehearsal.report import Seen, webhook_at
from workers.rehearsal.screen import Screen
from workers.rehearsal.stage import ACCOUNT, Stage
from workers.rehearsal.watch import Watch, measured_cold_boot

Json = dict[str, Any]

REPOSITORY: Final = f"{ACCOUNT}/rehearsal"
TESTS: Final = "test_itertools test_hashlib test_queue test_shutil test_gzip"
TEST_STEP: Final = "Run part of CPython's tests"
CLONE: Final = f"git clone --quiet {CLONE_URL} job"
BEGIN: Final = f"python3 job/begin.py {at.INTERNET_SERVERS} {at.ECHO_PORT} figures"
DELIVERY_LIMIT_S: Final = 15.0
# One job takes two minutes at most where there is no hardware virtualization; several share the processors.
JOB_LIMIT_S: Final = 420.0
SETTLE_LIMIT_S: Final = 40.0
# The tests take about 50 s, so this is well inside.
INTERRUPT_AFTER_S: Final = (4.0, 9.0)


@dataclass(frozen=True)
class Options:
    """What the user has asked for."""

    name: str = "spot"
    json: Path | None = None
    interruption: bool = True
    notice_seconds: float = 60.0
    hosts: int = 1
    jobs: int = 1
    keep: bool = False
    seed: int = 0
    tests: str = TESTS
    """Which of CPython's tests the job runs, as `python3 -m test` takes them; ten seconds or more of them."""
    cold_boot: bool = True
    """Boot the same guest without its snapshot too, to have something to compare with."""
    overlay: bool = False
    """Every second host is in another cloud, behind a NAT, and reached through WireGuard."""


def steps_of(tests: str) -> tuple[tuple[str, str], ...]:
    """Return the steps of a job that runs these of CPython's tests: name and script."""
    return (
        ("Clone and connect", f"{CLONE} && {BEGIN}"),
        ("Write 128 MiB", "python3 job/disk.py write figures 128"),
        (TEST_STEP, f"PYTHONDONTWRITEBYTECODE=1 python3 -m test {tests}"),
        ("Read them again", "python3 job/disk.py verify figures 128"),
        ("Say what was seen", "python3 job/end.py figures"),
    )


class Story:
    """One play."""

    owner = "the spot market"
    """Whose the machines are, in words."""

    def __init__(self, stage: Stage, options: Options, screen: Screen) -> None:
        self.stage = stage
        self.options = options
        self.screen = screen
        self.watch = Watch(stage, screen)
        self.random = random.Random(options.seed)  # noqa: S311 it chooses a moment and a host, nothing secret
        self.steps = StepWatch()
        self.job = steps_of(options.tests)
        self.slots: list[int] = []
        """The first attempt of each job."""
        self.victim: HostId | None = None
        self.interrupt_at: float | None = None

    def play(self) -> Seen:
        """Play from the beginning to the end. Raises `Unreachable` if something does not come in time."""
        cold_boot_s = measured_cold_boot(self.stage, self.screen) if self.options.cold_boot else None
        self.watch.open(self.options.hosts, with_window=self.options.keep)
        self._queue_jobs()
        self._follow()
        self._settle()
        return self._seen(cold_boot_s)

    # ------------------------------------------------------------ the jobs

    def _queue_jobs(self) -> None:
        github = self.stage.github
        self.slots = self.stage.in_internet(
            lambda: github.start_jobs(REPOSITORY, [SERVED], self.job, count=self.options.jobs)
        )
        end = time.monotonic() + DELIVERY_LIMIT_S
        while (sent := webhook_at(self.stage.in_internet(github.deliveries), self.slots[0])) is None:
            self.watch.look_once(end, "GitHub has delivered no webhook")
        self.screen.webhook_at = sent[0]
        self.screen.line(sentence("GitHub delivers the webhook of {job}", job=f"job {self.slots[0]}"), sent[0])

    def _attempts(self, first: int, after: int = 0) -> list[Json]:
        """Return all attempts at a job, oldest first, without their logs."""
        attempts: list[Json] = self.stage.in_internet(lambda: self.stage.github.job(first, after))["attempts"]
        return attempts

    def _follow(self) -> None:
        end = time.monotonic() + JOB_LIMIT_S * (1 + self.options.jobs)
        total = len(self.job) * self.options.jobs
        with self.screen.waiting("the job runs", total) as bar:
            while True:
                jobs = [self._attempts(first) for first in self.slots]
                self._show_steps(jobs)
                if all(self._is_over(attempts) for attempts in jobs):
                    return
                done = sum(steps_over(attempts[-1]) for attempts in jobs)
                bar.show(self._doing(), done, total)
                self._interrupt_if_due([attempts[-1] for attempts in jobs])
                self.watch.look_once(end, f"{done} of {total} steps are over")

    def _show_steps(self, jobs: list[list[Json]]) -> None:
        for attempt in (attempt for attempts in jobs for attempt in attempts):
            for line in self.steps.fresh(attempt):
                self.screen.line(line)

    def _is_over(self, attempts: list[Json]) -> bool:
        return has_ended(attempts, self.watch.follower, was_interrupted=self.victim is not None)

    def _doing(self) -> str:
        if self.victim is None:
            return "the job runs"
        return f"the job runs, {self.victim} is being taken away"

    # ------------------------------------------------------------ the interruption

    def _interrupt_if_due(self, attempts: list[Json]) -> None:
        if not self.options.interruption or self.victim is not None:
            return
        if self.interrupt_at is None and all(_is_in_tests(attempt) for attempt in attempts):
            self.interrupt_at = time.monotonic() + self.random.uniform(*INTERRUPT_AFTER_S)
        if self.interrupt_at is not None and time.monotonic() >= self.interrupt_at:
            self._interrupt(attempts)

    def _interrupt(self, attempts: list[Json]) -> None:
        runners = [self.stage.store.runner_named(attempt["runner_name"]) for attempt in attempts]
        hosts = sorted({runner.host_id for runner in runners if runner is not None and runner.host_id is not None})
        if not hosts:
            return
        self.victim = self.random.choice(hosts)
        seconds = self.options.notice_seconds
        self.stage.take_away(self.victim, seconds)
        how = f"takes {{host}} back in {seconds:.0f} s" if seconds else "takes {host} away at once, without a notice"
        self.screen.line(sentence(f"{self.owner} {how}", host=self.victim))

    # ------------------------------------------------------------ the end

    def _settle(self) -> None:
        """Wait until the moves are over and the host that was taken is gone, so that the report is whole."""
        end = time.monotonic() + self.options.notice_seconds + SETTLE_LIMIT_S
        with self.screen.waiting("waiting until everything has settled"):
            while time.monotonic() < end and not self._is_settled():
                self.watch.look_once(end + 1, "something is still moving")
        self.watch.show_events()

    def _is_settled(self) -> bool:
        store = self.stage.store
        if self.victim is not None and not self.watch.follower.has(Happening.HOST_TERMINATED, host_id=self.victim):
            return False
        return not store.migrations.open() and not store.jobs.open()

    def _seen(self, cold_boot_s: float | None) -> Seen:
        stage, kit = self.stage, self.stage.kit
        ids = dict.fromkeys(event.migration_id for event in self.watch.follower.seen if event.migration_id is not None)
        rows = (stage.store.migrations.get(one) for one in ids)
        return Seen(
            acceleration=kit.acceleration,
            cold_boot_s=cold_boot_s,
            job_lock_s=stage.terms.job_lock_s,
            jobs=[[self._whole(attempt["id"]) for attempt in self._attempts(first)] for first in self.slots],
            deliveries=stage.in_internet(stage.github.deliveries),
            events=self.watch.follower.seen,
            migrations=[row for row in rows if row is not None],
            interrupted=self.victim is not None,
            tunnelled_mib=self._tunnelled_mib() if self.options.overlay else None,
        )

    def _tunnelled_mib(self) -> dict[str, float]:
        """Return how much has come through its tunnels to every host that is still there."""
        ready = (host for host in self.stage.store.hosts.open() if host.state is HostState.READY)
        return {host.id: self.stage.tunnelled_mib(host.id) for host in ready}

    def _whole(self, job_id: int) -> Json:
        whole: Json = self.stage.in_internet(lambda: self.stage.github.job(job_id))
        return whole


def _is_in_tests(attempt: Json) -> bool:
    return any(step["name"] == TEST_STEP and step["starts"] for step in attempt["steps"])
