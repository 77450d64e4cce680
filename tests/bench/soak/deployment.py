"""The processes of one soak: the simulated GitHub, which is the truth and stays, and ours, which are taken away.

simulator     github ◀──▶ serve, worker ◀──▶ estate (market, hosts, guests)      redis: hints      store: SQLite or
(stays)                                                                                            PostgreSQL (stays)
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.bench.soak.estate import ESTATE, EstateFile
from tests.bench.soak.guests import Pace
from tests.bench.soak.hosts import HostPace
from tests.integration.control_plane import PATIENCE_S, SPOT_RUNNER, children_of, ended_at_last, eventually, free_port
from tests.integration.listeners import PACKAGE, SECRET
from workers.clock import SystemClock
from workers.rehearsal.github import SimulatorClient
from workers.store.repository import SqlStore, open_store

APP_ID: Final = 7
# A busy machine takes long to start a dozen processes.
START_LIMIT_S: Final = 300.0
# What is taken away and comes back; the order in which they are started.
OURS: Final = ("redis", "serve", "worker", "estate")


@dataclass(frozen=True)
class Size:
    """How large the fleet is and how fast everything goes."""

    hosts: int = 8
    guests_per_host: int = 64
    shortest_s: float = 1.0
    longest_s: float = 8.0
    heartbeat_s: float = 2.0
    idle_s: float = 20.0
    lock_s: float = 300.0
    checked_every: int = 50
    senders: int = 4
    recovery_pace: float = 0.1
    """What the intervals at which GitHub is asked are multiplied by."""
    points_per_minute: int = 0
    """GitHub's secondary limit; 0: none, since it would let 180 jobs begin in a minute."""
    requests_per_hour: int = 1_000_000
    """GitHub's primary limit, told with each answer; far more than it gives, since an hour of it has 5,000 jobs."""


@dataclass
class Deployment:
    """Where everything of one soak is, and what of it runs."""

    directory: Path
    size: Size
    database_url: str | None = None
    github_port: int = field(default_factory=free_port)
    public_port: int = field(default_factory=free_port)
    host_port: int = field(default_factory=free_port)
    market_port: int = field(default_factory=free_port)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)
    """Seconds of processor time of the processes that have been ended, by name."""

    def prepare(self) -> None:
        """Write down what the processes read."""
        (self.directory / "home").mkdir(parents=True)
        (self.directory / "redis").mkdir()
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (self.directory / "app.pem").write_bytes(private)
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (self.directory / "app.pub").write_bytes(public)
        (self.directory / "secret").write_bytes(SECRET)
        pace = HostPace(Pace(self.size.shortest_s, self.size.longest_s), self.size.heartbeat_s)
        network = f"127.{random.randint(64, 250)}.{random.randint(0, 250)}"
        told = EstateFile(self.directory / "estate", self.market_port, network, pace)
        (self.directory / "estate.json").write_bytes(ESTATE.dump_json(told))

    @property
    def github(self) -> SimulatorClient:
        """Return a client of the simulator."""
        return SimulatorClient(f"http://127.0.0.1:{self.github_port}")

    @property
    def store(self) -> SqlStore:
        """Return the store, opened once more."""
        return open_store(self.database, SystemClock())

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite:///{self.directory / 'home' / 'spot-runner.sqlite'}"

    def microvms(self) -> list[str]:
        """Name every microVM that is left on any host."""
        found: list[str] = httpx.get(f"http://127.0.0.1:{self.market_port}/microvms", trust_env=False).json()
        return found

    def environment(self) -> Mapping[str, str]:
        """Return what our processes are told."""
        size = self.size
        socket = self.directory / "redis" / "socket"
        told = {
            "HOME": self.directory / "home",
            "DATABASE_URL": self.database,
            "REDIS_URL": f"redis+socket://{socket}",
            "PUBLIC_LISTEN": f"127.0.0.1:{self.public_port}",
            "HOST_LISTEN": f"127.0.0.1:{self.host_port}",
            "HOST_URL": f"https://127.0.0.1:{self.host_port}",
            "WEBHOOK_SECRET_FILE": self.directory / "secret",
            "GITHUB_KEY_FILE": self.directory / "app.pem",
            "GITHUB_URL": f"http://127.0.0.1:{self.github_port}",
            "GITHUB_POINTS_PER_MINUTE": size.points_per_minute,
            "GITHUB_APP_ID": APP_ID,
            "MARKET_URL": f"http://127.0.0.1:{self.market_port}",
            "PACKAGE": PACKAGE,
            "HOST_VCPUS": size.guests_per_host,
            "HOST_MEMORY_MIB": size.guests_per_host * 1024,
            "HOST_DISK_MIB": size.guests_per_host * 4096,
            "READY_HOSTS": size.hosts,
            "HOSTS_MAX": size.hosts,
            "HEARTBEAT_LIMIT_S": 60,
            "RECOVERY_PACE": size.recovery_pace,
        }
        return {"PATH": os.environ["PATH"]} | {f"SPOT_RUNNER_{name}": str(value) for name, value in told.items()}

    def command(self, name: str) -> list[str]:
        """Return the command line of one process."""
        python = [sys.executable, "-m"]
        match name:
            case "redis":
                socket = str(self.directory / "redis" / "socket")
                place = ["--dir", str(self.directory / "redis")]
                return ["redis-server", "--port", "0", "--unixsocket", socket, "--save", "", *place]
            case "estate":
                return [*python, "tests.bench.soak.estate", str(self.directory / "estate.json")]
            case "github":
                return [*python, "workers.rehearsal.github", *self._github_options()]
            case _:
                return [*SPOT_RUNNER, name]

    def _github_options(self) -> list[str]:
        size = self.size
        told = {
            "listen": f"127.0.0.1:{self.github_port}",
            "webhook-url": f"http://127.0.0.1:{self.public_port}/github",
            "webhook-secret-file": self.directory / "secret",
            "app-key-file": self.directory / "app.pub",
            "app-id": APP_ID,
            "lock-seconds": size.lock_s,
            "idle-seconds": size.idle_s,
            "senders": size.senders,
            "checked-every": size.checked_every,
            "requests-per-hour": size.requests_per_hour,
            "points-per-minute": size.points_per_minute,
        }
        return [part for name, value in told.items() for part in (f"--{name}", str(value))]

    # ------------------------------------------------------------ started, ended, started again

    def start(self, name: str) -> None:
        """Start one process; its words are appended to its log."""
        with (self.directory / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(self.command(name), env=self.environment(), stdout=log, stderr=log)

    def end(self, name: str, number: signal.Signals) -> None:
        """End one process with everything that it has started."""
        process = self.running.pop(name)
        self.spent = added(self.spent, cpu_of(name, process.pid))
        with ended_at_last(children_of(process.pid)):
            process.send_signal(number)
            process.wait(PATIENCE_S)

    def restart(self, hard: set[str]) -> None:
        """Take everything of ours away, some of it without a warning, and bring it back."""
        for name in reversed(OURS):
            self.end(name, signal.SIGKILL if name in hard else signal.SIGTERM)
        (self.directory / "redis" / "socket").unlink(missing_ok=True)
        for name in OURS:
            self.start(name)
        eventually(self.is_up, START_LIMIT_S)

    def is_up(self) -> bool:
        """Say whether the receiver answers."""
        with contextlib.suppress(httpx.HTTPError):
            answer = httpx.get(f"http://127.0.0.1:{self.public_port}/healthz", trust_env=False, timeout=5)
            return answer.status_code == httpx.codes.OK
        return False

    def cpu_s(self) -> dict[str, float]:
        """Return the processor time that everything has used so far, by name and, of children, by what they are."""
        total = self.spent
        for name, process in self.running.items():
            total = added(total, cpu_of(name, process.pid))
        return {name: round(seconds, 1) for name, seconds in sorted(total.items())}

    def dead(self) -> list[str]:
        """Name the processes that should run and do not."""
        return [name for name, process in self.running.items() if process.poll() is not None]


def added(some: Mapping[str, float], more: Mapping[str, float]) -> dict[str, float]:
    """Add up by name."""
    return {name: some.get(name, 0.0) + more.get(name, 0.0) for name in {*some, *more}}


def cpu_of(name: str, pid: int) -> dict[str, float]:
    """Return the processor time of a process and of its living descendants, by what they are."""
    found: dict[str, float] = {}
    for one in (pid, *children_of(pid)):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{one}/cmdline").read_bytes().decode().strip("\0").split("\0")
            times = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()[11:13]
            kind = words[-1].rpartition(".")[2] if one != pid else "itself"
            found = added(found, {f"{name} {kind}": sum(map(int, times)) / os.sysconf("SC_CLK_TCK")})
    return found


@contextlib.contextmanager
def deployed(deployment: Deployment) -> Iterator[Deployment]:
    """Run everything; at the end nothing of it is left."""
    deployment.prepare()
    try:
        deployment.start("github")
        with deployment.github as github:
            eventually(github.is_up, START_LIMIT_S)
        for name in OURS:
            deployment.start(name)
        eventually(deployment.is_up, START_LIMIT_S)
        yield deployment
    finally:
        for name in list(deployment.running):
            deployment.end(name, signal.SIGKILL)
