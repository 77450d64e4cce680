"""Starting the system's own programs and hearing why they failed."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from workers.domain.errors import Unreachable

COMMAND_LIMIT_S: Final = 60.0


def run(*command: str, folder: Path | None = None) -> str:
    """Run a program to its end and return its output. Raises `Unreachable` with its own words if it fails."""
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            cwd=folder,
            timeout=COMMAND_LIMIT_S,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise Unreachable(f"{' '.join(command)}: no end after {COMMAND_LIMIT_S:.0f} s") from error
    if done.returncode:
        raise Unreachable(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()[-400:]}")
    return done.stdout


def run_quietly(*command: str) -> bool:
    """Run a program whose failure changes nothing for us; say whether it succeeded."""
    done = subprocess.run(command, check=False, capture_output=True, timeout=COMMAND_LIMIT_S, stdin=subprocess.DEVNULL)
    return done.returncode == 0
