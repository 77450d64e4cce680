"""The runner program: started once per guest, as an unprivileged user, with its secret in its environment alone.

    waiting ──StartRunner──▶ running ──the program ends──▶ ended

If the agent itself was restarted in between, its service group took the
program with it: `ended`, and nobody knows with which status.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
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
# Beside it: where actions/runner writes what its configuration holds (links in its own folder lead here), since the
# guest's disk is a file of its host.
CONFIGURATION: Final = "configuration"
WARM_UP_LIMIT_S: Final = 120


@dataclass(frozen=True)
class Program:
    """How the runner program is started."""

    command: tuple[str, ...]
    home: Path = HOME
    user: str | None = USER
    """None: as whoever runs the agent."""
    warm_up: tuple[str, ...] = ()
    """Run once before the snapshot, as the same user."""
    environment: tuple[tuple[str, str], ...] = ()
    """Of the image that the guest was made of."""


def installed_program() -> Program:
    """Return the program that the package brought along."""
    told = json.loads(COMMAND_FILE.read_text())
    environment = tuple(told.get("environment", {}).items())
    return Program(tuple(told["command"]), warm_up=tuple(told.get("warm_up", ())), environment=environment)


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
        self._make_configuration()
        self._started_file.touch()
        self._running = subprocess.Popen(
            self._program.command,
            cwd=self._program.home,
            env=self._environment() | {SECRET: jit_config},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            **self._person(),
        )

    def warm_up(self) -> None:
        """Run what the program offers for it; a program that cannot is as good as before."""
        if not self._program.warm_up:
            return
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(
                self._program.warm_up,
                cwd=self._program.home,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                check=False,
                timeout=WARM_UP_LIMIT_S,
                **self._person(),
            )

    def status(self) -> dict[str, Any]:
        """Return the state and, once it has ended and is known, the exit code."""
        if self._running is None:
            return {"state": "ended" if self._started_file.exists() else "waiting", "exit_code": None}
        code = self._running.poll()
        return {"state": "running" if code is None else "ended", "exit_code": code}

    def _make_configuration(self) -> None:
        folder = self._started_file.parent / CONFIGURATION
        folder.mkdir(mode=0o700, exist_ok=True)
        if self._program.user is not None:
            shutil.chown(folder, self._program.user, self._program.user)

    def _person(self) -> dict[str, Any]:
        """As whom it runs: with the groups that its user has in the guest, for example Docker's."""
        user = self._program.user
        if user is None:
            return {}
        return {"user": user, "group": user, "extra_groups": os.getgrouplist(user, pwd.getpwnam(user).pw_gid)}

    def _environment(self) -> dict[str, str]:
        home = str(self._program.home)
        usual = {"PATH": PATH, "LANG": "C.UTF-8"}
        return {**usual, **dict(self._program.environment), "HOME": home, "USER": USER, "LOGNAME": USER}
