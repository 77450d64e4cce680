"""`./dev bench webhook`: deliveries per second of the receiver, beside a bare Flask view that only answers 202.

Both stand behind the same gunicorn with the same settings and are asked by the same client (wrk, with recorded payloads
that were signed beforehand), in turn, on this machine, which also runs Redis and the store. The bare view writes
nothing; ours answers after a commit that outlives a power cut: SQLite with `synchronous=FULL`, PostgreSQL with
`synchronous_commit=on`.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import hmac
import json
import os
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import httpx
from rich.table import Table
from sqlalchemy import create_engine, func, select

from tests.bench.figures import console
from tests.contract.postgresql import running_server
from tests.integration.control_plane import children_of, eventually, free_port
from workers.bootstrap.serve import public_command
from workers.rehearsal.github.contract import published
from workers.settings import ControlSettings
from workers.store.schema import deliveries

BARE: Final = "bare"
SIDES: Final = (BARE, "sqlite", "postgresql")
# What is wanted of each: at least this part of the bare view's pace, while 99 of 100 answers come within this time.
RATIO_MIN: Final = {"sqlite": 0.45, "postgresql": 0.4}
P99_MAX_MS: Final = 100.0
# The client's answer to a whole round must come in this time.
LIMIT_S: Final = 60.0
SECRET: Final = b"bench"
# Each is another job, so that hints and facts are not about one row alone.
BODIES: Final = 256
TICKS: Final = os.sysconf("SC_CLK_TCK")
WRK: Final = Path(__file__).with_name("deliveries.lua")


@dataclass(frozen=True)
class Round:
    """What came of one round of one side."""

    per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    """Of the receiver's processes, for each delivery."""
    refused: int
    """Answers that were no 202, and connections that broke."""


def signed_bodies() -> str:
    """Return recorded deliveries of many jobs, each with its signature, as a table that wrk's Lua reads."""
    recorded = [one for one in published("deliveries")["workflow_job"] if "installation" in one]
    rows = []
    for number in range(BODIES):
        payload = json.loads(json.dumps(recorded[number % len(recorded)]))
        payload["workflow_job"] |= {"id": 10_000_000 + number, "run_id": 5_000_000 + number}
        body = json.dumps(payload)
        signature = hmac.digest(SECRET, body.encode(), hashlib.sha256).hex()
        rows.append(f'{{[=====[{body}]=====], "sha256={signature}"}},\n')
    return "return {\n" + "".join(rows) + "}\n"


class Bench:
    """Three listeners that stand beside each other, of which one at a time has something to do."""

    def __init__(self, directory: Path, stack: ExitStack, connections: int, seconds: int) -> None:
        self._directory, self._connections, self._seconds = directory, connections, seconds
        self._rounds = 0
        (directory / "secret").write_bytes(SECRET)
        (directory / "deliveries.lua").write_text(signed_bodies())
        self._redis = directory / "redis.sock"
        redis = ("redis-server", "--port", "0", "--unixsocket", str(self._redis), "--save", "")
        stack.enter_context(self._running("redis", redis, {}))
        eventually(self._redis.exists)
        self.databases = {
            "sqlite": f"sqlite:///{directory / 'spot-runner.sqlite'}",
            "postgresql": "postgresql+psycopg://postgres@/postgres?host="
            + stack.enter_context(running_server(is_durable=True)),
        }
        self._listeners = {side: stack.enter_context(self._listening(side)) for side in SIDES}

    @contextmanager
    def _running(
        self, name: str, command: Sequence[str], environment: Mapping[str, str]
    ) -> Iterator[subprocess.Popen[bytes]]:
        with (self._directory / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(LIMIT_S)

    @contextmanager
    def _listening(self, side: str) -> Iterator[tuple[int, int]]:
        """Run one side; yields its port and its process."""
        port = free_port()
        environment = {
            "SPOT_RUNNER_HOME": str(self._directory),
            "SPOT_RUNNER_PUBLIC_LISTEN": f"127.0.0.1:{port}",
            "SPOT_RUNNER_WEBHOOK_SECRET_FILE": str(self._directory / "secret"),
            "SPOT_RUNNER_REDIS_URL": f"redis+socket://{self._redis}",
            "SPOT_RUNNER_DATABASE_URL": self.databases.get(side, ""),
        }
        command = public_command(ControlSettings(public_listen=f"127.0.0.1:{port}"))
        if side == BARE:
            command = (*command[:-1], "tests.bench.bare:app()")
        with self._running(side, command, environment) as process:
            eventually(lambda: answers(port))
            yield port, process.pid

    def measure(self, side: str) -> Round:
        """Ask one side for a while."""
        port, pid = self._listeners[side]
        before = cpu_s(pid)
        told = self._asked(port, self._seconds)
        return Round(
            per_s=told["answers"] / told["seconds"],
            p50_ms=told["p50_ms"],
            p99_ms=told["p99_ms"],
            cpu_us=(cpu_s(pid) - before) / max(1, told["answers"]) * 1e6,
            refused=told["refused"] + told["broken"],
        )

    def _asked(self, port: int, seconds: int) -> dict[str, Any]:
        """Let the client loose and return what it tells; every time its GUIDs are others."""
        self._rounds += 1
        command = ("wrk", "-t1", f"-c{self._connections}", f"-d{seconds}s", "-s", str(WRK), f"http://127.0.0.1:{port}")
        words = {"DELIVERIES": str(self._directory / "deliveries.lua"), "RUN": f"r{self._rounds}"}
        ended = subprocess.run(command, env={**os.environ, **words}, capture_output=True, timeout=LIMIT_S, check=True)
        told: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
        return told

    def kept(self, side: str) -> int:
        """Return how many deliveries are in a side's store."""
        engine = create_engine(self.databases[side])
        with engine.connect() as connection:
            number = connection.scalar(select(func.count()).select_from(deliveries))
        engine.dispose()
        return number or 0


def answers(port: int) -> bool:
    """Say whether somebody answers there, whatever it is."""
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"http://127.0.0.1:{port}/", trust_env=False).status_code > 0
    return False


def cpu_s(pid: int) -> float:
    """Return the processor time of a process and its children, seconds."""
    return sum(map(_own_cpu_s, {pid} | children_of(pid)))


def _own_cpu_s(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / TICKS


def ratio(rounds: Mapping[str, Sequence[Round]], side: str) -> float:
    """Return how much of the bare view's pace is left, at the median of what was measured one after the other."""
    return median(ours.per_s / bare.per_s for ours, bare in zip(rounds[side], rounds[BARE], strict=True))


def figures(rounds: Sequence[Round]) -> dict[str, float]:
    """Return the medians of one side."""
    return {
        "per_s": round(median(one.per_s for one in rounds)),
        "p50_ms": round(median(one.p50_ms for one in rounds), 1),
        "p99_ms": round(median(one.p99_ms for one in rounds), 1),
        "cpu_us": round(median(one.cpu_us for one in rounds)),
        "refused": sum(one.refused for one in rounds),
    }


def run(rounds: int, connections: int, seconds: int) -> dict[str, Any]:
    """Measure every side in turn, round by round, and return the report."""
    load = os.getloadavg()[0]
    found: defaultdict[str, list[Round]] = defaultdict(list)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="webhook.", dir="/var/tmp")))
        bench = Bench(directory, stack, connections, seconds)
        for side in SIDES:
            bench.measure(side)  # what is only slow the first time
        for number in range(rounds):
            console.print(f"round {number + 1} of {rounds}, load {os.getloadavg()[0]:.1f}")
            for side in SIDES:
                found[side].append(bench.measure(side))
        kept = {side: bench.kept(side) for side in SIDES if side != BARE}
    report: dict[str, Any] = {side: figures(found[side]) for side in SIDES}
    for side, number in kept.items():
        report[side] |= {"ratio": round(ratio(found, side), 3), "kept": number}
    samples = {side: [asdict(one) for one in found[side]] for side in SIDES}
    return report | {"load": load, "connections": connections, "seconds": seconds, "samples": samples}


def table(report: Mapping[str, Any]) -> Table:
    """Return the medians side by side."""
    shown = Table(title=f"medians; {report['connections']} connections, load {report['load']:.1f} when it began")
    names = ("per_s", "p50_ms", "p99_ms", "cpu_us", "ratio", "refused")
    shown.add_column("side")
    for name in names:
        shown.add_column(name, justify="right")
    for side in SIDES:
        shown.add_row(side, *(str(report[side].get(name, "")) for name in names))
    return shown


def misses(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield in words what is not as it is wanted."""
    for side in SIDES:
        if report[side]["refused"]:
            yield f"{side}: {report[side]['refused']} answers were no 202"
    for side, wanted in RATIO_MIN.items():
        if report[side]["ratio"] < wanted:
            yield f"{side}: {report[side]['ratio']} of the bare view's pace, wanted {wanted}"
        if report[side]["p99_ms"] >= P99_MAX_MS:
            yield f"{side}: p99 {report[side]['p99_ms']} ms, wanted less than {P99_MAX_MS:g}"


def main(arguments: Sequence[str]) -> int:
    """Run it, print it, and write the report; 1 if something is not as it is wanted."""
    wanted = argparse.ArgumentParser(
        prog="./dev bench webhook", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    wanted.add_argument("--json", type=Path, metavar="FILE", help="where to write the report")
    wanted.add_argument("--rounds", type=int, default=5, help="how often every side is measured, in turn")
    wanted.add_argument("--connections", type=int, default=64, help="how many deliveries are on their way at once")
    wanted.add_argument("--seconds", type=int, default=5, help="how long each side is asked in a round")
    options = wanted.parse_args(arguments)
    report = run(options.rounds, options.connections, options.seconds)
    console.print(table(report))
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1))
    missed = tuple(misses(report))
    for sentence in missed:
        console.print(f"missed: {sentence}")
    return 1 if missed else 0
