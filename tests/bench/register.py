"""`./dev bench register`: registering a just-in-time runner, beside the same request made by hand.

All sides ask one simulated GitHub, a process of its own without limits, in turn: httpx with the token in its hand,
PyGithub's requester, and ours, which takes each call from the budget that all workers share in Redis. What a call takes
is mostly the simulator's own work, so the processor time of this process stands beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

from github import Auth, Github
from rich.table import Table

from tests.bench.figures import OURS, console
from tests.contract.github.places import APP_ID, Place, app_key, simulated_github
from tests.integration.control_plane import eventually
from workers.domain.pace import Limits
from workers.github.app import AppGitHub
from workers.github.pace import shared_pace

HTTPX, PYGITHUB = "httpx", "pygithub"
SIDES: Final = (HTTPX, PYGITHUB, OURS)
LABELS: Final = ["self-hosted", "spot-runner", "cpu=4"]
LIMIT_S: Final = 20.0
# Ours is to be measured, not its waiting: so much is never asked for.
NO_LIMITS: Final = Limits(points=10**9, app_points=10**9, requests=10**9, registrations=10**9)

Register = Callable[[str, str], object]
"""Registers one runner, by repository and name."""


@dataclass(frozen=True)
class Call:
    """One registration."""

    wall_ms: float
    cpu_us: float
    """Of this process."""


def by_httpx(place: Place) -> Register:
    """Return the least that is correct: one request on one kept connection, with a token that is there already."""
    token = place.token()

    def register(repository: str, name: str) -> object:
        answer = place.ask("POST", path_of(repository), token, wish_of(name))
        answer.raise_for_status()
        return answer.json()["runner"]["id"], answer.json()["encoded_jit_config"]

    return register


def by_pygithub(place: Place) -> Register:
    """Return the same by the library that ours uses, with its own pauses off."""
    client = Github(
        auth=Auth.Token(place.token()),
        base_url=place.url,
        retry=None,
        seconds_between_requests=0,
        seconds_between_writes=0,
    )

    def register(repository: str, name: str) -> object:
        _, answer = client.requester.requestJsonAndCheck("POST", path_of(repository), input=wish_of(name))
        return answer["runner"]["id"], answer["encoded_jit_config"]

    return register


def by_ours(place: Place, redis: Path) -> Register:
    """Return what a worker does."""
    pace = shared_pace(f"redis+socket://{redis}", "bench", NO_LIMITS, time.time)
    github = AppGitHub(place.url, {APP_ID: app_key()[0]}, pace, "spot-runner-")
    return lambda repository, name: github.register(place.installation, repository, name, LABELS)


def path_of(repository: str) -> str:
    """Return where runners of a repository are registered."""
    return f"/repos/{repository}/actions/runners/generate-jitconfig"


def wish_of(name: str) -> dict[str, Any]:
    """Return what is asked for, the same on every side."""
    return {"name": name, "runner_group_id": 1, "labels": LABELS, "work_folder": "_work"}


def measured(register: Register, repository: str, name: str) -> Call:
    """Register one runner."""
    wall, cpu = time.perf_counter(), time.process_time()
    register(repository, name)
    return Call((time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e6)


def run(rounds: int, calls: int) -> dict[str, Any]:
    """Let every side register in turn, each round in a repository of its own, and return the report."""
    load = os.getloadavg()[0]
    found: defaultdict[str, list[Call]] = defaultdict(list)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="register.", dir="/var/tmp")))
        place = stack.enter_context(simulated_github(directory, checked_every=10**9))
        redis = directory / "redis.sock"
        command = ("redis-server", "--port", "0", "--unixsocket", str(redis), "--save", "")
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stack.callback(server.wait, LIMIT_S)
        stack.callback(server.terminate)
        eventually(redis.exists)
        sides = {HTTPX: by_httpx(place), PYGITHUB: by_pygithub(place), OURS: by_ours(place, redis)}
        for number in range(rounds + 1):
            repository = f"{place.owner}/round-{number}"
            for call in range(calls):
                for side, register in sides.items():
                    one = measured(register, repository, f"spot-runner-{side}-{call}")
                    if number:  # what is only slow the first time is not counted
                        found[side].append(one)
    return {"load": load, "rounds": rounds, "calls": calls} | {side: figures(found, side) for side in SIDES}


def figures(found: Mapping[str, Sequence[Call]], side: str) -> dict[str, float]:
    """Return the medians of one side, and what it is of the floor's."""
    walls = [one.wall_ms for one in found[side]]
    wall, cpu = median(walls), median(one.cpu_us for one in found[side])
    floor = median(one.wall_ms for one in found[HTTPX])
    return {
        "p50_ms": round(wall, 2),
        "p99_ms": round(quantiles(walls, n=100)[98], 2),
        "cpu_us": round(cpu),
        "ratio": round(wall / floor, 2),
    }


def table(report: Mapping[str, Any]) -> Table:
    """Return the medians side by side."""
    shown = Table(
        title=f"one registration; {report['rounds']} rounds of {report['calls']}, load {report['load']:.1f} at first"
    )
    shown.add_column("side")
    for name in report[OURS]:
        shown.add_column(name, justify="right")
    for side in SIDES:
        shown.add_row(side, *map(str, report[side].values()))
    return shown


def main(arguments: Sequence[str]) -> int:
    """Run it, print it, and write the report."""
    wanted = argparse.ArgumentParser(
        prog="./dev bench register", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    wanted.add_argument("--json", type=Path, metavar="FILE", help="where to write the report")
    wanted.add_argument("--rounds", type=int, default=5, help="how often every side is measured")
    wanted.add_argument("--calls", type=int, default=100, help="how many runners each side registers in a round")
    options = wanted.parse_args(arguments)
    report = run(options.rounds, options.calls)
    console.print(table(report))
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1))
    return 0
