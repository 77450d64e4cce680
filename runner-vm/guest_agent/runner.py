"""The runner program: started once per guest, as an unprivileged user, with its secret in its environment alone.

    waiting ──StartRunner──▶ running ──the program ends──▶ ended

If the agent itself was restarted in between, its service group took the
program with it: `ended`, and nobody knows with which status.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

# The name under which actions/runner takes its just-in-time configuration.
SECRET: Final = "ACTIONS_RUNNER_INPUT_JITCONFIG"  # noqa: S105 - the variable's name, not a secret
USER: Final = "runner"
HOME: Final = Path("/home/runner")
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
COMMAND_FILE: Final = Path("/opt/spot-runner/runner.json")
# In a file system that is gone with the guest, so that only this guest remembers.
STARTED_FILE: Final = Path("/run/spot-runner/started")


@dataclass(frozen=True)
class Program:
    """How the runner program is started."""

    command: tuple[str, ...]
    home: Path = HOME
    user: str | None = USER
    """None: as whoever runs the agent."""


def installed_program() -> Program:
    """Return the program that the package brought along."""
    return Program(tuple(json.loads(COMMAND_FILE.read_text())["command"]))


class Runner:
    """The one runner of this guest."""

    def __init__(self, program: Program, started_file: Path = STARTED_FILE) -> None:
        self._program = program
        self._started_file = started_file
        self._running: subprocess.Popen[bytes] | None = None

    def start(self, jit_config: str) -> None:
        """Start the program; starting it twice starts it once. Its output goes where the agent's own goes."""
        if self._started_file.exists():
            return
        self._started_file.parent.mkdir(parents=True, exist_ok=True)
        self._started_file.touch()
        user = self._program.user
        self._running = subprocess.Popen(
            self._program.command,
            cwd=self._program.home,
            env=self._environment(jit_config),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )

    def status(self) -> dict[str, Any]:
        """Return the state and, once it has ended and is known, the exit code."""
        if self._running is None:
            return {"state": "ended" if self._started_file.exists() else "waiting", "exit_code": None}
        code = self._running.poll()
        return {"state": "running" if code is None else "ended", "exit_code": code}

    def _environment(self, jit_config: str) -> dict[str, str]:
        home = str(self._program.home)
        return {"HOME": home, "USER": USER, "LOGNAME": USER, "PATH": PATH, "LANG": "C.UTF-8", SECRET: jit_config}
