"""`./dev bench burst`: hundreds of jobs queued at once through every real process, with GitHub's real limits enforced.

fleet ready ─▶ all jobs at once, of two organizations in turns ─▶ all registered ─▶ all over ─▶ figures
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from tests.bench.soak.deployment import Deployment, Size, deployed
from workers.domain.host import HostState
from workers.rehearsal.github import SimulatorClient
from workers.store.repository import SqlStore

# GitHub's own: 900 points a minute for an App, of which a registration costs 5; 5,000 requests an hour.
POINTS_PER_MINUTE: Final = 900
POINTS: Final = 5
REQUESTS_PER_HOUR: Final = 5000
MINUTE_S: Final = 60.0
# All at once is what queues first; then it is the turn of one and of the other, and some calls are under way.
SHARE_MIN: Final = 0.9
LEAD_MAX: Final = 24
OWNERS: Final = ("octo-org", "hexa-org")
LABELS: Final = ("spot-runner",)
STEPS: Final = [("work", "true")]
BATCH: Final = 10
LOOK_S: Final = 0.5
OVER_S: Final = 900.0


@dataclass(frozen=True)
class Registered:
    """One registration, as the simulator saw it."""

    at: float
    """Seconds after the first job was queued."""
    owner: str


@dataclass(frozen=True)
class Figures:
    """What came of it."""

    jobs: int
    registered: int
    seconds: float
    """From the first job to the last registration."""
    per_minute: float
    """Over all of that time."""
    after_first_minute_per_minute: float | None
    """The same without what could be registered at once; None: all was."""
    ceiling_per_minute: float
    refused: Mapping[str, int]
    """How often each limit of GitHub's struck."""
    calls: Mapping[str, int]
    """How many calls of each kind there were from the first job on."""
    lead_max: int
    """By how many one organization was ahead of its turn at most, once there was a line and while both were in it."""
    unfinished: int
    runners_left: int
    violations: int

    @property
    def is_right(self) -> bool:
        is_fast = self.per_minute >= SHARE_MIN * self.ceiling_per_minute
        is_done = self.registered >= self.jobs and not (self.unfinished or self.runners_left or self.violations)
        return is_fast and is_done and not any(self.refused.values()) and self.lead_max <= LEAD_MAX


def rate_after(times: Sequence[float], since: float) -> float | None:
    """Return the registrations per minute after a moment, None if there were none."""
    later = [at for at in times if at > since]
    return len(later) / (max(later) - since) * MINUTE_S if later else None


def lead(registered: Sequence[Registered], at_once: int) -> int:
    """Say by how many one owner was ahead, beside what was served at once, as long as each still had some to come."""
    totals, found = Counter(one.owner for one in registered), 0
    had = Counter(one.owner for one in registered[:at_once])
    served = Counter(dict.fromkeys(totals, 0))
    for one in registered[at_once:]:
        served[one.owner] += 1
        if all(served[owner] + had[owner] < totals[owner] for owner in totals):
            found = max(found, max(served.values()) - min(served.values()))
    return found


class Burst:
    """One burst on one deployment that runs."""

    def __init__(self, deployment: Deployment, jobs: int, store: SqlStore, github: SimulatorClient) -> None:
        self._deployment, self._jobs, self._store, self._github = deployment, jobs, store, github
        self._opened = self._began = time.time()
        self._before: Counter[str] = Counter()

    def run(self) -> Figures:
        """Play it."""
        hosts = self._deployment.size.hosts
        self._until(lambda: self._ready() >= hosts, "the fleet is ready", OVER_S)
        for owner in OWNERS:
            self._github.install(owner)
        self._until(self._is_known, "a minute of the budget is known", OVER_S)
        self._before = Counter(self._github.admitted())
        self._began = time.time()
        for number in range(0, self._jobs, BATCH):
            repository = f"{OWNERS[number // BATCH % 2]}/widgets"
            # Each ten are the jobs of one run, such as a matrix makes.
            self._github.start_jobs(repository, LABELS, STEPS, min(BATCH, self._jobs - number), together=True)
        with suppress(TimeoutError):  # then what is missing is told
            self._until(self._is_over, "every job is over and nothing is left", OVER_S)
        return self._figures()

    def _is_known(self) -> bool:
        """Say whether the workers know a whole span of the points, as ever but right after a deployment's start."""
        return time.time() - self._opened > MINUTE_S

    def _ready(self) -> int:
        return sum(host.state is HostState.READY for host in self._store.hosts.open())

    def _is_over(self) -> bool:
        standing = self._github.standing()
        return not (standing["unfinished"] or standing["runners"])

    def _figures(self) -> Figures:
        runners = self._github.runners()
        seen = sorted((one["registered_at"] - self._began, one["scope"].partition("/")[0]) for one in runners)
        registered = [Registered(at, owner) for at, owner in seen]
        times = [one.at for one in registered[: self._jobs]]
        ceiling, standing = POINTS_PER_MINUTE / POINTS, self._github.standing()
        after = rate_after(times, MINUTE_S)
        return Figures(
            jobs=self._jobs,
            registered=len(registered),
            seconds=round(times[-1], 1) if times else 0.0,
            per_minute=round(len(times) / times[-1] * MINUTE_S, 1) if times else 0.0,
            after_first_minute_per_minute=None if after is None else round(after, 1),
            ceiling_per_minute=ceiling,
            refused=self._github.refused(),
            calls=dict((Counter(self._github.admitted()) - self._before).most_common()),
            lead_max=lead(registered, round(ceiling)),
            unfinished=standing["unfinished"],
            runners_left=standing["runners"],
            violations=len(self._github.violations()),
        )

    def _until(self, is_so: Callable[[], bool], what: str, limit_s: float) -> None:
        end = time.monotonic() + limit_s
        while not _answered(is_so):
            if time.monotonic() > end:
                raise TimeoutError(f"waited {limit_s:.0f} s in vain: {what}")
            if dead := self._deployment.dead():
                raise RuntimeError(f"{', '.join(dead)} ended by itself; see its log in {self._deployment.directory}")
            time.sleep(LOOK_S)
        sys.stderr.write(f"burst {time.time() - self._began:7.1f} s  {what}\n")


def _answered(is_so: Callable[[], bool]) -> bool:
    """Say whether it is so; a busy machine may keep the answer for longer than anybody waits."""
    with suppress(httpx.HTTPError):
        return is_so()
    return False


def burst(deployment: Deployment, jobs: int) -> Figures:
    """Queue so many jobs at once in a deployment that runs."""
    store = deployment.store
    try:
        with deployment.github as github:
            return Burst(deployment, jobs, store, github).run()
    finally:
        store.close()


def main(arguments: list[str]) -> int:
    """Play it, print the figures and write them; 1 if they are not as they should be."""
    wanted = argparse.ArgumentParser(prog="./dev bench burst", description=__doc__)
    wanted.add_argument("--jobs", type=int, default=500, metavar="N", help="500 take three minutes")
    wanted.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    options = wanted.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended before it was over"))
    directory = Path(tempfile.mkdtemp(prefix="spot-runner-burst-"))
    size = Size(points_per_minute=POINTS_PER_MINUTE, requests_per_hour=REQUESTS_PER_HOUR, recovery_pace=1.0)
    try:
        with deployed(Deployment(directory / "burst", size)) as deployment:
            figures = burst(deployment, options.jobs)
    finally:
        shutil.rmtree(directory)
    report: dict[str, Any] = asdict(figures)
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1))
    return 0 if figures.is_right else 1
