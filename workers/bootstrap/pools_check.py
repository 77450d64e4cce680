"""`spot-runner pools check`: every problem of a policy file, each a sentence with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from rich.console import Console

from workers.bootstrap.pools import Wrong, policy_of, read_file
from workers.domain.errors import BadInput
from workers.domain.market import ANYWHERE
from workers.domain.pools import Pool
from workers.domain.runner import Level
from workers.settings import ControlSettings

RIGHT: Final = 0
WRONG: Final = 1


def run_check(settings: ControlSettings, file: Path | None) -> int:
    """Check a policy file, by default that of the settings, and return the exit status. Raises `BadInput`."""
    path = file or settings.pools_file
    if path is None:
        raise BadInput("pools check: name a policy file, or set SPOT_RUNNER_POOLS_FILE")
    console = Console(highlight=False, markup=False, emoji=False)
    try:
        policy = policy_of(path, read_file(path), settings)
    except Wrong as error:
        for problem in error.problems:
            console.print(problem.told(path), soft_wrap=True)
        return WRONG
    for pool in policy.pools:
        console.print(_line(pool, len(list(policy.offered(pool)))), soft_wrap=True)
    return RIGHT


def _line(pool: Pool, packages: int) -> str:
    """Tell what a pool is, in one line."""
    parts = [f"{packages} of the packages", f"for {', '.join(pool.repositories)}"]
    if pool.runners_max is not None:
        parts.append(f"{pool.runners_max} runners per repository")
    if pool.min_ready or any(one.min_ready for one in pool.schedules):
        parts.append(f"{pool.min_ready} hosts ready")
    if pool.schedules:
        parts.append(f"{len(pool.schedules)} schedules")
    if pool.budget is not None:
        parts.append(f"{pool.budget} a day")
    if pool.sources != ANYWHERE:
        parts.append(f"{pool.sources.market} of {', '.join(pool.sources.providers) or 'any cloud'}")
    if pool.level is Level.ORGANIZATION:
        group = "the default runner group" if pool.runner_group is None else f"runner group {pool.runner_group}"
        parts.append(f"registered with the organization, in {group}")
    return f"{pool.name}: {'; '.join(parts)}"
