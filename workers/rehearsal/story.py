"""The story: a job is queued, runs in a microVM, its host is taken away in the middle, and the job does not notice.

prepared ──▶ jobs queued ──▶ every job in its tests ──▶ a host is taken away ──▶ all jobs over ──▶ settled
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from workers.domain.errors import Unreachable
from workers.domain.events import Happening
from workers.domain.labels import SERVED
from workers.domain.names import HostId
from workers.rehearsal import places as at
from workers.rehearsal.follow import Follower, StepWatch, sentence, steps_over, told
from workers.rehearsal.internet import CLONE_URL
from workers.rehearsal.report import Seen, webhook_at
from workers.rehearsal.screen import Bar, Screen
from workers.rehearsal.stage import ACCOUNT, JOB_LOCK_S, Stage

Json = dict[str, Any]

REPOSITORY: Final = f"{ACCOUNT}/rehearsal"
TESTS: Final = "test_itertools test_hashlib test_queue test_shutil test_gzip"
TEST_STEP: Final = "Run part of CPython's tests"
BEGIN: Final = f"python3 job/begin.py {at.INTERNET_SERVERS} {at.ECHO_PORT} figures"
STEPS: Final = (
    ("Clone and connect", f"git clone --quiet {CLONE_URL} job && {BEGIN}"),
    ("Write 128 MiB", "python3 job/disk.py write figures"),
    (TEST_STEP, f"PYTHONDONTWRITEBYTECODE=1 python3 -m test {TESTS}"),
    ("Read them again", "python3 job/disk.py verify figures"),
    ("Say what was seen", "python3 job/end.py figures"),
)
LOOK_INTERVAL_S: Final = 0.2
# A fresh host has to be made, has to register and to verify and unpack its package.
HOSTS_READY_LIMIT_S: Final = 180.0
DELIVERY_LIMIT_S: Final = 15.0
# One job takes two minutes at most where there is no hardware virtualization; several share the processors.
JOB_LIMIT_S: Final = 420.0
# After the lock has expired GitHub must still be told, and the rerun be asked for and delivered.
RERUN_LIMIT_S: Final = 60.0
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
    cold_boot: bool = True
    """Boot the same guest without its snapshot too, to have something to compare with."""


class Story:
    """One play."""

    def __init__(self, stage: Stage, options: Options, screen: Screen) -> None:
        self.stage = stage
        self.options = options
        self.screen = screen
        self.random = random.Random(options.seed)  # noqa: S311 it chooses a moment and a host, nothing secret
        self.steps = StepWatch()
        self.slots: list[int] = []
        """The first attempt of each job."""
        self.victim: HostId | None = None
        self.interrupt_at: float | None = None
        self.pause = threading.Event()
        """Never set: what is waited for is seen by looking."""

    def play(self) -> Seen:
        """Play from the beginning to the end. Raises `Unreachable` if something does not come in time."""
        cold_boot_s = self._prepare()
        self._queue_jobs()
        self._follow()
        self._settle()
        return self._seen(cold_boot_s)

    # ------------------------------------------------------------ before the webhook

    def _prepare(self) -> float | None:
        stage, screen, kit = self.stage, self.screen, self.stage.kit
        screen.line(sentence("guests run on {accel}: " + kit.reason, accel=kit.acceleration))
        with screen.waiting("booting the guest without its snapshot, to compare"):
            stage.places.state.mkdir(parents=True)
            cold_boot_s = kit.measure_cold_boot(stage.places.state) if self.options.cold_boot else None
        if cold_boot_s is not None:
            screen.line(f"a cold boot of the guest takes {cold_boot_s:.1f} s")
        with screen.waiting("laying the network") as bar:
            stage.lay_network(with_window=self.options.keep)
            bar.show("opening the internet: GitHub, git, echo, the spot market")
            stage.open_internet()
            bar.show("starting redis, relay, serve, worker")
            stage.start_service()
            screen.line("control plane, relay, spot market and GitHub simulator are up")
            self.follower = Follower(stage.store)
            self._wait_hosts(bar)
        return cold_boot_s

    def _wait_hosts(self, bar: Bar) -> None:
        wanted = self.options.hosts
        end = time.monotonic() + HOSTS_READY_LIMIT_S
        while (ready := self.follower.count(Happening.HOST_READY)) < wanted:
            bar.show(f"waiting for hosts: {ready} of {wanted} ready", ready, wanted)
            self._look_once(end, f"{ready} of {wanted} hosts are ready")

    def _look_once(self, end: float, so_far: str) -> None:
        """Show what is new, and give up if it takes too long or a program has died."""
        self.stage.processes.check()
        self._show_events()
        if time.monotonic() > end:
            raise Unreachable(f"no end in sight, {so_far}; see the logs in {self.stage.places.logs}")
        self.pause.wait(LOOK_INTERVAL_S)

    def _show_events(self) -> None:
        for event in self.follower.fresh():
            self.screen.line(told(event), event.at.timestamp())

    # ------------------------------------------------------------ the jobs

    def _queue_jobs(self) -> None:
        github = self.stage.github
        self.slots = self.stage.in_internet(
            lambda: github.start_jobs(REPOSITORY, [SERVED], STEPS, count=self.options.jobs)
        )
        end = time.monotonic() + DELIVERY_LIMIT_S
        while (sent := webhook_at(self.stage.in_internet(github.deliveries), self.slots[0])) is None:
            self._look_once(end, "GitHub has delivered no webhook")
        self.screen.webhook_at = sent[0]
        self.screen.line(sentence("GitHub delivers the webhook of {job}", job=f"job {self.slots[0]}"), sent[0])

    def _attempts(self, first: int, after: int = 0) -> list[Json]:
        """Return all attempts at a job, oldest first, without their logs."""
        attempts: list[Json] = self.stage.in_internet(lambda: self.stage.github.job(first, after))["attempts"]
        return attempts

    def _follow(self) -> None:
        end = time.monotonic() + JOB_LIMIT_S * (1 + self.options.jobs)
        total = len(STEPS) * self.options.jobs
        with self.screen.waiting("the job runs", total) as bar:
            while True:
                jobs = [self._attempts(first) for first in self.slots]
                self._show_steps(jobs)
                if all(self._is_over(attempts) for attempts in jobs):
                    return
                done = sum(steps_over(attempts[-1]) for attempts in jobs)
                bar.show(self._doing(), done, total)
                self._interrupt_if_due([attempts[-1] for attempts in jobs])
                self._look_once(end, f"{done} of {total} steps are over")

    def _show_steps(self, jobs: list[list[Json]]) -> None:
        for attempt in (attempt for attempts in jobs for attempt in attempts):
            for line in self.steps.fresh(attempt):
                self.screen.line(line)

    def _doing(self) -> str:
        if self.victim is None:
            return "the job runs"
        return f"the job runs, {self.victim} is being taken away"

    def _is_over(self, attempts: list[Json]) -> bool:
        """Say whether nothing more can come of a job: a lost one is run again a little later."""
        last = attempts[-1]
        if last["conclusion"] is None:
            return False
        was_lost = self.follower.has(Happening.JOB_LOST, job_id=last["id"])
        if last["conclusion"] == "success" or not (was_lost or self._may_be_lost(last)):
            return True
        return bool(time.time() - last["completed_at"] > RERUN_LIMIT_S)

    def _may_be_lost(self, attempt: Json) -> bool:
        """GitHub may fail a job before the control plane has noticed that its host is gone."""
        return self.victim is not None and any(step["conclusion"] == "failure" for step in attempt["steps"])

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
        hosts = sorted({runner.host_id for runner in runners if runner is not None})
        if not hosts:
            return
        self.victim = self.random.choice(hosts)
        seconds = self.options.notice_seconds
        self.stage.take_away(self.victim, seconds)
        how = f"takes {{host}} back in {seconds:.0f} s" if seconds else "takes {host} away at once, without a notice"
        self.screen.line(sentence(f"the spot market {how}", host=self.victim))

    # ------------------------------------------------------------ the end

    def _settle(self) -> None:
        """Wait until the moves are over and the host that was taken is gone, so that the report is whole."""
        end = time.monotonic() + self.options.notice_seconds + SETTLE_LIMIT_S
        with self.screen.waiting("waiting until everything has settled"):
            while time.monotonic() < end and not self._is_settled():
                self._look_once(end + 1, "something is still moving")
        self._show_events()

    def _is_settled(self) -> bool:
        store = self.stage.store
        if self.victim is not None and not self.follower.has(Happening.HOST_TERMINATED, host_id=self.victim):
            return False
        return not store.migrations.open() and not store.jobs.open()

    def _seen(self, cold_boot_s: float | None) -> Seen:
        stage, kit = self.stage, self.stage.kit
        ids = dict.fromkeys(event.migration_id for event in self.follower.seen if event.migration_id is not None)
        rows = (stage.store.migrations.get(one) for one in ids)
        return Seen(
            acceleration=kit.acceleration,
            cold_boot_s=cold_boot_s,
            job_lock_s=JOB_LOCK_S,
            jobs=[[self._whole(attempt["id"]) for attempt in self._attempts(first)] for first in self.slots],
            deliveries=stage.in_internet(stage.github.deliveries),
            events=self.follower.seen,
            migrations=[row for row in rows if row is not None],
            interrupted=self.victim is not None,
        )

    def _whole(self, job_id: int) -> Json:
        whole: Json = self.stage.in_internet(lambda: self.stage.github.job(job_id))
        return whole


def _is_in_tests(attempt: Json) -> bool:
    return any(step["name"] == TEST_STEP and step["starts"] for step in attempt["steps"])
