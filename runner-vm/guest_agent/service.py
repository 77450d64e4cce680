"""Answers the host, one call after the other, for as long as the guest lives.

The port has no connections: the host end opens and closes, a restored guest
finds another host at the other end, and a call that was under way is simply
answered into the void. So an answer is matched by its call's id and everything
else is dropped, here and there. When `BeforeSuspend` has been answered nothing
is on its way any more, because calls are answered in order.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from guest_agent import wire
from guest_agent.hold import Hold
from guest_agent.init import power_off
from guest_agent.placement import Placement, placement_server
from guest_agent.resume import after_resume
from guest_agent.runner import Runner, installed_program
from guest_agent.sockets import reset_connections
from guest_agent.suspend import before_suspend

PORT: Final = Path("/dev/virtio-ports/agent")
PORT_LIMIT_S: Final = 120.0
# While no host listens a read returns at once with nothing.
UNHEARD_INTERVAL_S: Final = 0.01
# Without systemd, which takes its time, the answer must be on its way first.
POWER_OFF_AFTER_S: Final = 0.2

Functions = Mapping[str, Callable[..., Any]]


def functions(runner: Runner, placement: Placement, hold: Hold) -> Functions:
    """Return all that a host may ask for."""

    def status() -> dict[str, Any]:
        return runner.status() | hold.wish()

    def placed(told: dict[str, Any]) -> None:
        placement.placed(told)
        hold.allow(told.get("hold_limit_s", 0))

    def suspend() -> None:
        runner.warm_up()
        before_suspend()

    return {
        "BeforeSuspend": suspend,
        "AfterResume": after_resume,
        "StartRunner": runner.start,
        "RunnerStatus": status,
        "Placed": placed,
        "ResetConnections": reset_connections,
        "Shutdown": shut_down,
    }


def shut_down() -> None:
    """Power off, after the answer has gone out."""
    try:
        subprocess.Popen(["systemctl", "--no-block", "poweroff"])
    except FileNotFoundError:
        threading.Timer(POWER_OFF_AFTER_S, power_off).start()


def answer(line: bytes, served: Functions) -> wire.Response | None:
    """Carry out what a line asks for; None if it is no request. An error's text never holds an argument."""
    try:
        request = wire.decode(line)
    except wire.Malformed:
        return None
    if not isinstance(request, wire.Request):
        return None
    function = served.get(request.function)
    if function is None:
        return wire.Response(request.call, err=f"no function {request.function}")
    try:
        return wire.Response(request.call, function(*request.args))
    except Exception as error:  # noqa: BLE001 - whatever went wrong, the host is told and the agent lives on
        return wire.Response(request.call, err=f"{request.function}: {_without_arguments(error, request)}")


def _without_arguments(error: Exception, request: wire.Request) -> str:
    text = f"{type(error).__name__}: {error}"
    return type(error).__name__ if any(str(arg) in text for arg in request.args) else text


def serve(port: int, served: Functions) -> None:
    """Answer until the port goes away, which raises `OSError`."""
    frames = wire.Frames()
    while True:
        chunk = os.read(port, 65536)
        if not chunk:
            time.sleep(UNHEARD_INTERVAL_S)
        for line in frames.feed(chunk):
            if said := answer(line, served):
                _write(port, wire.encode(said))


def _write(port: int, frame: bytes) -> None:
    while frame:
        frame = frame[os.write(port, frame) :]


def open_port(path: Path = PORT, limit_s: float = PORT_LIMIT_S) -> int:
    """Open the port as soon as the kernel has it. Raises `TimeoutError`."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        try:
            return os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            time.sleep(UNHEARD_INTERVAL_S)
    raise TimeoutError(f"{path} did not appear within {limit_s} s")


def main() -> None:
    """Serve the host on the port, and the job on loopback."""
    placement, hold = Placement(), Hold()
    threading.Thread(target=placement_server(placement, hold).serve_forever, daemon=True).start()
    port = open_port()
    print("spot-runner agent: ready", flush=True)  # noqa: T201 - the journal and the serial line are its log
    serve(port, functions(Runner(installed_program()), placement, hold))
