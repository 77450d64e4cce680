"""The real agent as a process on this machine: its port is a socket, its runner program a script."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SERVE = """
import socket, sys
from pathlib import Path
from guest_agent.hold import Hold
from guest_agent.placement import Placement
from guest_agent.runner import Program, Runner
from guest_agent.service import functions, serve
listener, home, *command = sys.argv[1:]
host, _ = socket.socket(fileno=int(listener)).accept()
runner = Runner(Program(tuple(command), Path(home), user=None), Path(home) / "run/started")
serve(host.fileno(), functions(runner, Placement(), Hold()))
"""
RUNNER_VM = Path(__file__).parents[2] / "runner-vm"


@contextmanager
def running_agent(path: Path, *command: str) -> Iterator[None]:
    """Let an agent answer whoever connects to this unix socket first; its home is the socket's folder."""
    with socket.socket(socket.AF_UNIX) as listener, (path.parent / "agent.log").open("wb") as log:
        listener.bind(str(path))
        listener.listen(1)
        arguments = [sys.executable, "-c", SERVE, str(listener.fileno()), os.fspath(path.parent), *command]
        agent = subprocess.Popen(
            arguments,
            env={"PYTHONPATH": os.fspath(RUNNER_VM)},
            stdout=log,
            stderr=log,
            pass_fds=[listener.fileno()],
        )
    try:
        yield
    finally:
        agent.kill()
        agent.wait()
