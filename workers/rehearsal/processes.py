"""Starting the service's real programs, each in its namespace with a log of its own, and ending them by number.

A program dies with the one that started it (the kernel sees to it), so a killed
rehearsal takes its programs along; what they themselves have started is found
by `remains`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from workers.domain.errors import Unreachable
from workers.rehearsal.remains import NETNS, Journal, wait_until

# gunicorn and Celery let running work end; more than this and they hang.
STOP_LIMIT_S: Final = 8.0
# A program's own words are at the end of its log.
LOG_TAIL: Final = 600
FOREIGN: Final = ("SPOT_RUNNER_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@dataclass(frozen=True)
class Program:
    """What to start: `name` names its log, `namespace` the network that it stands in (None: this one's)."""

    name: str
    command: Sequence[str]
    namespace: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    signal_at_end: int = signal.SIGTERM


class Running:
    """A started program."""

    def __init__(self, program: Program, child: subprocess.Popen[bytes], log: Path) -> None:
        self.program = program
        self.child = child
        self.log = log

    @property
    def is_alive(self) -> bool:
        return self.child.poll() is None

    def last_words(self) -> str:
        """Return the end of its log."""
        return self.log.read_bytes()[-LOG_TAIL:].decode(errors="replace").strip()

    def check(self) -> None:
        """Raise `Unreachable` with its last words if it has ended."""
        if not self.is_alive:
            words = f"{self.program.name} ended with status {self.child.returncode}"
            raise Unreachable(f"{words}; the end of {self.log}:\n{self.last_words()}")

    def wait_ready(self, condition: Callable[[], bool], limit_s: float) -> None:
        """Wait until the condition holds. Raises `Unreachable` if it does not in time, or if the program ends."""

        def is_ready() -> bool:
            self.check()
            return condition()

        if not wait_until(is_ready, limit_s, interval_s=0.1):
            raise Unreachable(f"{self.program.name} is not ready after {limit_s:.0f} s; see {self.log}")

    def stop(self, limit_s: float = STOP_LIMIT_S) -> None:
        """Ask it to end, and kill it if it has not after the limit; harmless when repeated."""
        with contextlib.suppress(ProcessLookupError):
            self.child.send_signal(self.program.signal_at_end)
        try:
            self.child.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait(limit_s)


class Processes:
    """The programs of one rehearsal, or of one host of the market. Start them from a thread that lives on."""

    def __init__(self, logs: Path, journal: Journal) -> None:
        self.logs = logs
        self.journal = journal
        self.started: list[Running] = []

    def start(self, program: Program) -> Running:
        """Start a program with its output in a log."""
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{program.name}.log"
        with log.open("ab") as output:
            child = subprocess.Popen(
                _wrapped(program),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**_inherited(), "PYTHONUNBUFFERED": "1", **program.environment},
                start_new_session=True,  # Ctrl-C goes to us, and we end them in order
            )
        self.journal.note_program(child.pid)
        running = Running(program, child, log)
        self.started.append(running)
        return running

    def again(self, ended: Running) -> Running:
        """Start a program anew that has ended."""
        if ended in self.started:
            self.started.remove(ended)
        return self.start(ended.program)

    def named(self, name: str) -> Running:
        """Return the program that was started under this name."""
        return next(one for one in self.started if one.program.name == name)

    def end(self, running: Running) -> None:
        """End one program in its own manner; it need not run any more."""
        self.started.remove(running)
        running.stop()

    def kill(self, name: str) -> Running:
        """Kill a program as it is, and forget that it should run; `again` starts it anew."""
        running = self.named(name)
        running.child.kill()
        running.child.wait()
        self.started.remove(running)
        return running

    def check(self) -> None:
        """Raise `Unreachable` if a program that should run has ended."""
        for running in self.started:
            running.check()

    def stop(self) -> None:
        """End all, the last one first; the limit is for all of them together."""
        end = time.monotonic() + STOP_LIMIT_S
        for running in reversed(self.started):
            running.stop(max(0.5, end - time.monotonic()))
        self.started.clear()


def _inherited() -> dict[str, str]:
    """Return our own environment without what would change ours: settings of another deployment, and proxies."""
    return {name: value for name, value in os.environ.items() if not name.upper().startswith(FOREIGN)}


def _wrapped(program: Program) -> list[str]:
    place = [] if program.namespace is None else ["nsenter", f"--net={NETNS / program.namespace}", "--"]
    return ["setpriv", "--pdeathsig", "TERM", "--", *place, *program.command]
