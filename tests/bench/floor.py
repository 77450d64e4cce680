"""The floor: the same QEMU with the same machine, driven by hand over its monitor socket, and nothing else.

It runs where ours do: the source in one host's network namespace, the target in the other's, through the same packet
filters. What it lacks: confinement (user, other namespaces, control group), a tap, the journal, identities for the
guest, the row and its commit; with `keys=None` also TLS. It looks at QEMU's state every millisecond, as a script would.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from guest_agent import wire
from tests.e2e.engine_rig import EngineHost
from workers.domain.errors import Bug, Unreachable
from workers.host.disks import Stock
from workers.host.machine import FreshMemory, Overlay, PackageMemory, Wiring, machine_arguments
from workers.host.qemu import PROGRAM

LIMIT_S: Final = 120.0
MEMORY_PORT, DISK_PORT = 49152, 49153


@dataclass(frozen=True)
class Keys:
    """TLS for both ends: where QEMU's files lie, and the name that the server's certificate must have."""

    source: Path
    target: Path
    target_name: str
    source_subject: str


@dataclass(frozen=True)
class Seat:
    """Where a QEMU by hand runs, and what it starts from."""

    host: EngineHost
    stock: Stock
    directory: Path


class ByHand:
    """One QEMU and the connection to its monitor."""

    def __init__(self, seat: Seat, *, fresh: bool) -> None:
        stock, directory = seat.stock, seat.directory
        directory.mkdir(parents=True, exist_ok=True)
        overlay = stock.open_overlay(directory)
        memory = FreshMemory() if fresh else PackageMemory(stock.memory)
        wiring = Wiring(memory, Overlay(overlay, stock.base), stock.boot, incoming=True)
        self.began = time.monotonic()
        self._directory = directory
        monitor, agent = directory / "monitor", directory / "agent"
        for path in (monitor, agent):
            path.unlink(missing_ok=True)
        arguments = [
            *(PROGRAM, "-qmp", f"unix:{monitor},server=on,wait=off"),
            *("-chardev", f"socket,id=agent,path={agent},server=on,wait=off"),
            *machine_arguments(stock.machine, wiring),
        ]
        with (directory / "qemu.log").open("ab") as log:
            start = partial(subprocess.Popen, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=wiring.fds)
            self._process = seat.host.place.call(start, arguments)
        os.close(overlay)
        self._monitor = _connected(monitor)
        self._lines = self._monitor.makefile("rb")
        self.events: list[dict[str, Any]] = []
        self._lines.readline()
        self.execute("qmp_capabilities")

    def execute(self, command: str, fd: int | None = None, /, **arguments: object) -> Any:  # noqa: ANN401 - JSON
        names = {name.replace("_", "-"): value for name, value in arguments.items()}
        message = json.dumps({"execute": command, "arguments": names}).encode()
        if fd is None:
            self._monitor.sendall(message)
        else:
            socket.send_fds(self._monitor, [message], [fd])
        while line := self._lines.readline():
            answer = json.loads(line)
            if "event" in answer:
                self.events.append(answer)
            elif "error" in answer:
                raise Bug(f"{command}: {answer['error']['desc']}")
            else:
                return answer["return"]
        raise Unreachable(f"QEMU ended during {command}")

    def wait(self, command: str, is_so: Callable[[Any], bool]) -> None:
        until(lambda: is_so(self.execute(command)), command)

    def capabilities(self, **wanted: bool) -> None:
        wishes = [{"capability": name.replace("_", "-"), "state": state} for name, state in wanted.items()]
        self.execute("migrate-set-capabilities", capabilities=wishes)

    def moment(self, event: str) -> float:
        """When QEMU said this last, as Unix time."""
        self.execute("query-status")
        at = [said["timestamp"] for said in self.events if said["event"] == event][-1]
        return float(at["seconds"] + at["microseconds"] / 1e6)

    def restore(self, state: Path) -> None:
        self.capabilities(x_ignore_shared=True)
        fd = os.open(state, os.O_RDONLY)
        self.execute("getfd", fd, fdname="state")
        os.close(fd)
        self.execute("migrate-incoming", uri="fd:state")
        self.wait("query-status", lambda answer: answer["status"] != "inmigrate")
        self.capabilities(x_ignore_shared=False)
        self.execute("cont")

    def call_agent(self, function: str, *args: object) -> None:
        """Call the guest's agent and wait for its answer."""
        call_agent(self._directory / "agent", function, *args)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._lines.close()
        self._monitor.close()


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > end:
            raise Unreachable(f"not within {LIMIT_S} s: {what}")
        time.sleep(0.001)


def call_agent(path: Path, function: str, *args: object) -> bytes:
    """Call the agent behind this socket, wait for its answer and return it as it came."""
    with _connected(path) as agent:
        agent.sendall(wire.encode(wire.Request("bench", function, args)))
        frames = wire.Frames()
        while chunk := agent.recv(65536):
            if answers := [line for line in frames.feed(chunk) if b'"call":"bench"' in line]:
                return answers[0]
    raise Unreachable("the agent did not answer")


def _connected(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(LIMIT_S)

    def is_open() -> bool:
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True

    until(is_open, f"{path} is open")
    return connection


@contextmanager
def restored(seat: Seat, function: str, *args: object) -> Iterator[tuple[ByHand, float]]:
    """Restore a guest; yields it with the milliseconds from the command to the agent's answer to this call."""
    guest = ByHand(seat, fresh=False)
    try:
        guest.restore(seat.stock.state)
        guest.call_agent(function, *args)
        yield guest, (time.monotonic() - guest.began) * 1000
    finally:
        guest.end()


@dataclass(frozen=True)
class Way:
    """From the source's host to the target's, with TLS or without."""

    source: EngineHost
    target: EngineHost
    keys: Keys | None

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Let the source's address through the target's packet filter, as for a move of ours."""
        place, network = self.target.place, self.target.parts.network
        for port in (MEMORY_PORT, DISK_PORT):
            place.call(network.admit, port, self.source.address)
        try:
            yield
        finally:
            for port in (MEMORY_PORT, DISK_PORT):
                place.call(network.dismiss, port)


def migrate(source: ByHand, stock: Stock, directory: Path, way: Way) -> dict[str, float]:
    """Move a running guest with its disk to the other host; return what it took."""
    target = ByHand(Seat(way.target, stock, directory), fresh=True)
    try:
        with way.opened():
            return _moved(source, target, way)
    finally:
        target.end()


def _moved(source: ByHand, target: ByHand, way: Way) -> dict[str, float]:
    _listen(target, way)
    asked = time.monotonic()
    source.call_agent("RunnerStatus")
    began = time.monotonic()
    _mirror(source, way)
    _move_memory(source, way)
    target.wait("query-status", lambda answer: answer["status"] != "inmigrate")
    target.execute("cont")
    total_s = time.monotonic() - began
    target.call_agent("RunnerStatus")
    answered_at = time.time()
    target.execute("nbd-server-stop")
    resumed_at = target.moment("RESUME")
    return {
        "total_s": total_s,
        "stopped_ms": (resumed_at - source.moment("STOP")) * 1000,
        "commit_ms": 0.0,
        "memory_mib_sent": source.execute("query-migrate")["ram"]["transferred"] / (1 << 20),
        "before_ms": (began - asked) * 1000,
        "after_ms": (answered_at - resumed_at) * 1000,
    }


def _secure(end: ByHand, directory: Path, endpoint: str, **parameters: str) -> None:
    creds = {"qom_type": "tls-creds-x509", "id": "tls", "dir": str(directory), "verify_peer": True}
    end.execute("object-add", endpoint=endpoint, **creds)
    end.execute("migrate-set-parameters", tls_creds="tls", **parameters)


def _listen(target: ByHand, way: Way) -> None:
    secured: dict[str, object] = {}
    target.capabilities(return_path=True)
    if way.keys is not None:
        target.execute("object-add", qom_type="authz-simple", id="peer", identity=way.keys.source_subject)
        _secure(target, way.keys.target, "server", tls_authz="peer", tls_hostname="")
        secured = {"tls_creds": "tls", "tls_authz": "peer"}
    address = {"type": "inet", "data": {"host": way.target.address, "port": str(DISK_PORT)}}
    target.execute("nbd-server-start", addr=address, **secured)
    target.execute("block-export-add", id="disk", type="nbd", node_name="disk", name="disk", writable=True)
    target.execute("migrate-incoming", uri=f"tcp:{way.target.address}:{MEMORY_PORT}")


def _mirror(source: ByHand, way: Way) -> None:
    secured: dict[str, object] = {}
    if way.keys is not None:
        _secure(source, way.keys.source, "client", tls_hostname=way.keys.target_name)
        secured = {"tls_creds": "tls", "tls_hostname": way.keys.target_name}
    server = {"type": "inet", "host": way.target.address, "port": str(DISK_PORT)}
    source.execute("blockdev-add", node_name="remote", driver="nbd", server=server, export="disk", **secured)
    job = {"job_id": "mirror", "device": "disk", "target": "remote", "sync": "top", "copy_mode": "write-blocking"}
    source.execute("blockdev-mirror", **job)
    source.wait("query-block-jobs", lambda jobs: bool(jobs) and jobs[0]["ready"])


def _move_memory(source: ByHand, way: Way) -> None:
    source.capabilities(return_path=True, pause_before_switchover=True)
    source.execute("migrate-set-parameters", downtime_limit=30, max_bandwidth=10 << 30)
    source.execute("migrate", uri=f"tcp:{way.target.address}:{MEMORY_PORT}")
    source.wait("query-migrate", lambda answer: answer.get("status") == "pre-switchover")
    source.execute("block-job-cancel", device="mirror")
    source.wait("query-block-jobs", lambda jobs: not jobs)
    source.execute("migrate-continue", state="pre-switchover")
    source.wait("query-migrate", lambda answer: answer.get("status") == "completed")
