"""The soak: jobs are queued, deliveries go astray, processes are taken away, and in the end both sides are compared.

fleet ready ─▶ jobs, with two restarts of everything of ours in the middle ─▶ all jobs over ─▶ settled ─▶ compared
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import httpx

from tests.bench.soak.deployment import OURS, Deployment
from tests.bench.soak.truth import Mismatch, mismatches
from workers.domain.host import HostState
from workers.rehearsal.github import SimulatorClient
from workers.store.repository import SqlStore

Json = dict[str, Any]

SHARES: Final[Mapping[str, float]] = {"lost": 0.05, "doubled": 0.1, "reordered": 0.1, "malformed": 0.02}
# GitHub gives a job to any runner whose labels fit, and these are asked for side by side.
LABELS: Final = (("spot-runner",), ("self-hosted", "spot-runner"))
ACCOUNTS: Final = ("octo-org", "hexa-org")
REPOSITORIES: Final = tuple(f"{account}/{name}" for account in ACCOUNTS for name in ("widgets", "gadgets"))
# Of which not everybody can see the last one.
PRIVATE: Final = REPOSITORIES[-1]
STEPS: Final = [("work", "true")]
# What a person does to a job, by the share of all jobs.
CANCELLED: Final = 0.01
# What the rules of an environment hold back, by the share of all jobs, until so many batches later somebody approves.
HELD: Final = 0.03
APPROVED_AFTER: Final = 2
RERUN: Final = 0.3
LOOK_S: Final = 0.5
TELL_S: Final = 10.0
SHOWN_MAX: Final = 20


@dataclass(frozen=True)
class Wish:
    """What is to be soaked."""

    jobs: int
    outstanding_max: int
    """No more than so many jobs wait or run at once."""
    seed: int = 1
    shares: Mapping[str, float] = field(default_factory=lambda: SHARES)
    """How many deliveries meet what; the simulator's."""
    restarts: int = 2
    batch: int = 20
    over_s: float = 600.0
    """How long the last jobs may take."""
    settle_s: float = 600.0
    """How long both sides may need to agree after the last job is over."""


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    jobs: int
    mismatched: int
    runners_left: int
    microvms_left: int
    seconds: float
    settled_s: float
    """Of these, from the end of the last job until both sides agreed."""
    per_s: float
    met: Mapping[str, int]
    """How many deliveries met what."""
    restarts: int
    cpu_s: Mapping[str, float]
    """Processor time, by process."""
    held: int
    """How many jobs were held back and then approved."""
    violations: int
    """Of GitHub's published contract."""
    examples: tuple[Mapping[str, Any], ...]

    @property
    def is_right(self) -> bool:
        return not (self.mismatched or self.runners_left or self.microvms_left or self.violations)

    def report(self) -> Json:
        return asdict(self)


class Soak:
    """One soak of one deployment that runs."""

    def __init__(self, deployment: Deployment, wish: Wish, store: SqlStore, github: SimulatorClient) -> None:
        self._deployment, self._wish, self._store, self._github = deployment, wish, store, github
        self._random = random.Random(wish.seed)
        self._ids: list[int] = []
        self._touched = 0
        self._held: list[list[int]] = []
        """Those that wait for somebody's approval, batch by batch."""
        self._approved = 0
        self._began = self._told_at = time.monotonic()

    def run(self) -> Outcome:
        """Play it all."""
        hosts = self._deployment.size.hosts
        self._until(lambda: self._ready() >= hosts, "the fleet is ready", 120)
        for account in ACCOUNTS:
            self._github.install(account)
        self._github.make_private(PRIVATE)
        self._github.set_shares(**self._wish.shares, seed=self._wish.seed)
        self._began = time.monotonic()
        self._queue_all()
        over_at = self._began
        with suppress(TimeoutError):  # then what is not as it should be is counted
            self._until(lambda: self._standing()["unfinished"] == 0, "every job is over", self._wish.over_s)
            over_at = time.monotonic()
            self._until(self._agrees, "both sides agree", self._wish.settle_s)
        return self._outcome(over_at)

    def _ready(self) -> int:
        return sum(host.state is HostState.READY for host in self._store.hosts.open())

    # ------------------------------------------------------------ jobs, and what happens meanwhile

    def _queue_all(self) -> None:
        """Queue job after job, never too many at once; in the middle everything of ours is taken away and restored."""
        wish = self._wish
        breaks = [wish.jobs * (number + 1) // (wish.restarts + 1) for number in range(wish.restarts)]
        while len(self._ids) < wish.jobs:
            if breaks and len(self._ids) >= breaks[0]:
                breaks.pop(0)
                # One half without a warning, the other half the next time.
                self._deployment.restart(set(OURS[len(breaks) % 2 :: 2]))
                self._github.expire_tokens()
                self._tell("everything was restarted")
            room = wish.outstanding_max - self._standing()["unfinished"]
            if room < min(wish.batch, wish.outstanding_max):
                time.sleep(LOOK_S)
                continue
            self._queue(min(wish.batch, wish.jobs - len(self._ids)))
            self._meddle()
            self._approve(APPROVED_AFTER)
        self._approve(0)

    def _queue(self, count: int) -> None:
        repository, labels = self._random.choice(REPOSITORIES), self._random.choice(LABELS)
        together, held = self._random.random() < 0.5, sum(self._random.random() < HELD for _ in range(count))
        self._held.append(self._github.start_held(repository, labels, STEPS, held))
        self._ids += self._held[-1]
        if held < count:
            self._ids += self._github.start_jobs(repository, labels, STEPS, count - held, together=together)

    def _approve(self, left: int) -> None:
        """Approve what was held back, but for that of the last batches."""
        while len(self._held) > left:
            for job_id in self._held.pop(0):
                with suppress(httpx.HTTPStatusError):  # it was cancelled
                    self._github.approve(job_id)
                    self._approved += 1

    def _meddle(self) -> None:
        """Cancel a few jobs as people do, at whatever moment of their lives."""
        fresh, self._touched = self._ids[self._touched :], len(self._ids)
        for job_id in fresh:
            if self._random.random() < CANCELLED:
                with suppress(httpx.HTTPStatusError):  # it was over already
                    self._github.cancel(job_id)

    # ------------------------------------------------------------ the end

    def _agrees(self) -> bool:
        """Say whether nothing is left to be done; the quick questions first."""
        if self._standing()["runners"] or self._store.runners.open() or self._store.jobs.open():
            return False
        return not (self._mismatches() or self._microvms())

    def _mismatches(self) -> list[Mismatch]:
        return mismatches(self._github.jobs(), self._store.jobs.where())

    def _microvms(self) -> list[str]:
        return self._deployment.microvms()

    def _outcome(self, over_at: float) -> Outcome:
        now, unequal = time.monotonic(), self._mismatches()
        live = {one["name"] for one in self._github.runners() if one["gone_because"] is None}
        left = live | {runner.id for runner in self._store.runners.open()}
        jobs = self._standing()["jobs"]
        return Outcome(
            jobs=jobs,
            mismatched=len(unequal),
            runners_left=len(left),
            microvms_left=len(self._microvms()),
            seconds=round(now - self._began, 1),
            settled_s=round(now - over_at, 1),
            per_s=round(jobs / max(over_at - self._began, 1), 1),
            met=self._github.shares(),
            restarts=self._wish.restarts,
            cpu_s=self._deployment.cpu_s(),
            held=self._approved,
            violations=len(self._github.violations()),
            examples=tuple(asdict(one) for one in unequal[:SHOWN_MAX]),
        )

    def _standing(self) -> dict[str, int]:
        found = self._github.standing()
        if time.monotonic() - self._told_at > TELL_S:
            self._tell(" ".join(f"{name}={number}" for name, number in found.items()))
        if dead := self._deployment.dead():
            raise RuntimeError(f"{', '.join(dead)} ended by itself; see its log in {self._deployment.directory}")
        return found

    def _until(self, is_so: Callable[[], bool], what: str, limit_s: float) -> None:
        end = time.monotonic() + limit_s
        while not is_so():
            if time.monotonic() > end:
                raise TimeoutError(f"waited {limit_s:.0f} s in vain: {what}")
            time.sleep(LOOK_S)
        self._tell(what)

    def _tell(self, what: str) -> None:
        self._told_at = time.monotonic()
        sys.stderr.write(f"soak {self._told_at - self._began:7.1f} s  {what}\n")
        sys.stderr.flush()


def play(deployment: Deployment, wish: Wish) -> Outcome:
    """Soak a deployment that runs."""
    store = deployment.store
    try:
        with deployment.github as github:
            return Soak(deployment, wish, store, github).run()
    finally:
        store.close()
