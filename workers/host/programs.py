"""Foreign programs that are run to their end, for what they make or print."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

from workers.domain.errors import Unfit

STEP_LIMIT_S: Final = 300


def run(command: Sequence[str], limit_s: float = STEP_LIMIT_S, more: Mapping[str, str] | None = None) -> str:
    """Run a program, with `more` in its environment, and return what it printed. Raises `Unfit` with its last words."""
    environment = {**os.environ, **(more or {})}
    try:
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=limit_s, env=environment, errors="replace"
        )
    except FileNotFoundError as error:
        raise Unfit(f"{command[0]} is not installed; `./dev` installs what a build needs") from error
    except subprocess.TimeoutExpired as error:
        raise Unfit(f"{command[0]} did not end within {limit_s:g} s") from error
    except subprocess.CalledProcessError as error:
        raise Unfit(f"{command[0]} failed: {(error.stderr or '').strip()[-400:]}") from error
    return done.stdout
