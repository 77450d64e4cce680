"""The control plane's real processes: redis-server, `spot-runner serve` and `spot-runner worker`, in a directory."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.integration.listeners import PACKAGE, SECRET
from workers.clock import SystemClock
from workers.store.repository import SqlStore, open_store

# The machine may be busy with other tests; nothing is timed, this only ends what will never come.
PATIENCE_S = 110.0
SPOT_RUNNER = (sys.executable, "-m", "workers.cli")


def eventually(is_so: Callable[[], bool], limit_s: float = PATIENCE_S) -> None:
    """Wait until it is so; fail if that takes too long."""
    end = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < end, "it did not come to be in time"
        time.sleep(0.02)


def free_port() -> int:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        return int(server.getsockname()[1])


def children_of(pid: int) -> set[int]:
    """Return every living descendant."""
    found = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, task.read_text().split()):
                found |= {child} | children_of(child)
    return found


def is_alive(pid: int) -> bool:
    """Say whether this process runs; one that only waits to be reaped does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@contextlib.contextmanager
def ended_at_last(pids: set[int]) -> Iterator[None]:
    """End these processes after the block, in case what is tried in it did not."""
    try:
        yield
    finally:
        for pid in filter(is_alive, pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@dataclass(frozen=True)
class ControlPlane:
    """Where everything of one control plane is."""

    directory: Path
    public_port: int
    host_port: int

    @property
    def home(self) -> Path:
        return self.directory / "home"

    @property
    def redis_socket(self) -> Path:
        return self.directory / "redis.sock"

    @property
    def redis_url(self) -> str:
        return f"redis+socket://{self.redis_socket}"

    @property
    def public_url(self) -> str:
        return f"http://127.0.0.1:{self.public_port}"

    @property
    def host_url(self) -> str:
        return f"https://127.0.0.1:{self.host_port}"

    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "SPOT_RUNNER_HOME": str(self.home),
            "SPOT_RUNNER_REDIS_URL": self.redis_url,
            "SPOT_RUNNER_PUBLIC_LISTEN": f"127.0.0.1:{self.public_port}",
            "SPOT_RUNNER_HOST_LISTEN": f"127.0.0.1:{self.host_port}",
            "SPOT_RUNNER_WEBHOOK_SECRET_FILE": str(self.directory / "secret"),
            "SPOT_RUNNER_GITHUB_KEY_FILE": str(self.directory / "app.pem"),
            "SPOT_RUNNER_GITHUB_URL": f"http://127.0.0.1:{free_port()}",
            "SPOT_RUNNER_GITHUB_APP_ID": "1",
            "SPOT_RUNNER_MARKET_URL": f"http://127.0.0.1:{free_port()}",
            "SPOT_RUNNER_PACKAGE": PACKAGE,
        }

    def store(self) -> SqlStore:
        return open_store(f"sqlite:///{self.home / 'spot-runner.sqlite'}", SystemClock())

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text()

    @contextlib.contextmanager
    def running(self, name: str, *command: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run one program; at the end it and whatever it has started are gone, whatever the test did."""
        with (self.directory / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(command, env=self.environment(), stdout=log, stderr=log)
        try:
            yield process
        finally:
            with ended_at_last(children_of(process.pid)):
                process.kill()
                process.wait(PATIENCE_S)

    @contextlib.contextmanager
    def redis(self) -> Iterator[subprocess.Popen[bytes]]:
        command = ("redis-server", "--port", "0", "--unixsocket", str(self.redis_socket), "--save", "")
        with self.running("redis", *command, "--dir", str(self.directory)) as process:
            eventually(self.redis_socket.exists)
            yield process

    @contextlib.contextmanager
    def serve(self) -> Iterator[subprocess.Popen[bytes]]:
        with self.running("serve", *SPOT_RUNNER, "serve") as process:
            eventually(self.is_serving)
            yield process

    def is_serving(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            well = httpx.get(f"{self.public_url}/healthz", trust_env=False).status_code
            # Only the listener's own life is asked for, so whoever it is may answer.
            ca = httpx.get(f"{self.host_url}/v1/ca", verify=False, trust_env=False).status_code  # noqa: S501 - said above
            return (well, ca) == (200, 200)
        return False


def a_control_plane(directory: Path) -> ControlPlane:
    """Write down what its processes read."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (directory / "app.pem").write_bytes(pem)
    (directory / "secret").write_bytes(SECRET)
    (directory / "home").mkdir()
    return ControlPlane(directory, free_port(), free_port())
