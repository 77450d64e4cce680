"""`./dev bench plan`: what `spot-runner plan` costs with a long queue and many offers, in seconds of processor time.

The whole command is a process of its own over a store on disk, as an administrator runs it; the decision alone is made
here, from rows that are there already. The smallest command of this program stands beside it: what starting costs.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any, Final

from rich.table import Table

from tests.bench.figures import console
from tests.contract.store_rows import TERMS, a_job
from workers.bootstrap.capacity import capacity_of, offers_of
from workers.bootstrap.plan import NoHints
from workers.bootstrap.policies import Policies
from workers.clock import SystemClock
from workers.domain.job import JobState
from workers.domain.names import JobId
from workers.domain.offer import Assortment
from workers.domain.runner import Shape
from workers.reconcilers.capacity import Buyer
from workers.settings import ControlSettings
from workers.store.connection import Database
from workers.store.repository import SqlStore, open_store
from workers.store.rows import JOBS

JOBS_WAITING: Final = 10_000
OFFERS: Final = 300
SHAPES: Final = (Shape(1, 1024, 4096), Shape(2, 4096, 8192), Shape(4, 8192, 16384))
POOLS: Final = 4
HOSTS_MAX: Final = 10_000
LIMIT_S: Final = 120.0


def main(arguments: list[str]) -> int:
    """Measure, print, and write the report."""
    wanted = argparse.ArgumentParser(prog="./dev bench plan", description=__doc__)
    wanted.add_argument("--json", type=Path, metavar="FILE", help="where to write the report")
    wanted.add_argument("--rounds", type=int, default=5)
    options = wanted.parse_args(arguments)
    with tempfile.TemporaryDirectory() as home:
        report = run(Path(home), options.rounds)
    show(report)
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1))
    return 0


def run(home: Path, rounds: int, jobs: int = JOBS_WAITING, offers: int = OFFERS) -> dict[str, Any]:
    """Return the report: medians, and every round."""
    environment = prepare(home, jobs, offers)
    command = [command_s(["plan", "--json"], environment) for _ in range(rounds)]
    start = [command_s(["--help"], environment) for _ in range(rounds)]
    decision = decisions_s(home, rounds)
    figures = {"command": command, "start": start, "decision": decision}
    return {
        "jobs": jobs,
        "offers": offers,
        "orders": orders(environment),
        "median_cpu_s": {name: round(median(found), 3) for name, found in figures.items()},
        "cpu_s": {name: [round(one, 3) for one in found] for name, found in figures.items()},
    }


def prepare(home: Path, jobs: int, offers: int) -> dict[str, str]:
    """Fill a store and write a file of offers and one of pools; return the environment that names them."""
    (home / "offers.json").write_text(json.dumps([an_offer(number) for number in range(offers)]))
    (home / "pools.toml").write_text("".join(f'[[pools]]\nname = "p{number}"\n' for number in range(POOLS)))
    fill(f"sqlite:///{home / 'spot-runner.sqlite'}", jobs)
    return {
        **os.environ,
        "SPOT_RUNNER_HOME": str(home),
        "SPOT_RUNNER_POOLS_FILE": str(home / "pools.toml"),
        "SPOT_RUNNER_OFFERS_FILE": str(home / "offers.json"),
        "SPOT_RUNNER_MARKET_URL": "http://127.0.0.1:1",
        "SPOT_RUNNER_CURRENCY": "USD",
        "SPOT_RUNNER_HOSTS_MAX": str(HOSTS_MAX),
    }


def an_offer(number: int) -> dict[str, object]:
    """Return one of a few types in a few zones, as spot or on demand, each at a price of its own."""
    return {
        "cloud": "local",
        "region": "here",
        "zone": f"z-{number % 6}",
        "instance_type": f"type-{number // 6}",
        "market": "spot" if number % 5 else "on-demand",
        "usd_per_hour": 0.1 + (number * 37 % 101) / 1000,
        "vcpus": 8,
        "memory_mib": 16384,
        "disk_mib": 65536,
        "interruptions_per_hour": number % 7 / 100,
    }


def fill(url: str, jobs: int) -> None:
    """Write the queue down in one transaction."""
    with closing(open_store(url, SystemClock())):
        pass
    queued = replace(a_job(), state=JobState.QUEUED, unserved=None, runner_id=None)
    rows = (
        replace(
            queued,
            id=JobId(number),
            run_id=number // 10,
            repository=f"octo/r{number % 50}",
            queued_at=queued.queued_at + timedelta(milliseconds=number),
            terms=replace(TERMS, pool=f"p{number % POOLS}", shape=SHAPES[number % len(SHAPES)]),
        )
        for number in range(1, jobs + 1)
    )
    database = Database(url)
    with database.writing() as connection:
        connection.execute(JOBS.table.insert(), [JOBS.columns(row) for row in rows])
    database.close()


def command_s(arguments: list[str], environment: dict[str, str]) -> float:
    """Return the processor time of one command, user's and system's, in seconds."""
    process = subprocess.Popen(
        [sys.executable, "-m", "workers.cli", *arguments], env=environment, stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"{arguments}: status {process.returncode}"
    return used.ru_utime + used.ru_stime


def orders(environment: dict[str, str]) -> int:
    """Return how many hosts the plan asks for."""
    told = subprocess.run(
        [sys.executable, "-m", "workers.cli", "plan", "--json"],
        env=environment,
        check=True,
        capture_output=True,
        timeout=LIMIT_S,
    )
    return len(json.loads(told.stdout)["orders"])


def decisions_s(home: Path, rounds: int) -> list[float]:
    """Return what the decision alone takes, in seconds of processor time."""
    settings = ControlSettings(
        home=home,
        pools_file=home / "pools.toml",
        offers_file=home / "offers.json",
        market_url="http://127.0.0.1:1",
        currency="USD",
        hosts_max=HOSTS_MAX,
    )
    clock = SystemClock()
    with closing(open_store(settings.database, clock)) as store:
        return [_decision_s(settings, store, clock) for _ in range(rounds)]


def _decision_s(settings: ControlSettings, store: SqlStore, clock: SystemClock) -> float:
    buyer = Buyer(store, NoHints(), clock, capacity_of(settings), Policies(settings), offers_of(settings, Assortment))
    fleet = buyer.fleet()
    found = buyer.balance(fleet)
    gc.collect()
    begun = time.process_time()
    buyer.plan(fleet, found)
    return time.process_time() - begun


def show(report: dict[str, Any]) -> None:
    """Print it."""
    table = Table(title=f"{report['jobs']} jobs, {report['offers']} offers, {report['orders']} hosts to be asked for")
    for name in ("what", "median, CPU s", "each round"):
        table.add_column(name)
    for name, found in report["cpu_s"].items():
        table.add_row(name, f"{report['median_cpu_s'][name]:.3f}", ", ".join(f"{one:.2f}" for one in found))
    console.print(table)
