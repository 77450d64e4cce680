"""GitHub as settings describe it: which Apps, and how fast they may be asked."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from workers.bootstrap.github_app import app_login
from workers.domain.errors import Unfit
from workers.domain.pace import Limits
from workers.github.app import AppGitHub
from workers.github.pace import NoPace, Pace, shared_pace
from workers.ports import Clock
from workers.settings import ControlSettings

LEDGER: Final = "spot-runner:pace"


def open_github(settings: ControlSettings, clock: Clock, mark: str) -> AppGitHub:
    """Return GitHub for our App and for those that are set beside it. Raises `Unfit` if there is none.

    `mark` is how the names of our runners begin.
    """
    app_id, key = app_login(settings)
    more = {app_id: _read(path) for app_id, path in settings.github_more_apps.items()}
    return AppGitHub(settings.github_site.api, {app_id: key} | more, _pace(settings, clock), mark)


def _pace(settings: ControlSettings, clock: Clock) -> Pace:
    points = settings.github_points_per_minute
    if points == 0:
        return NoPace()
    limits = Limits(points=points, app_points=points)
    return shared_pace(settings.redis_url, LEDGER, limits, lambda: clock.now().timestamp())


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise Unfit(f"SPOT_RUNNER_GITHUB_MORE_APPS names a key that cannot be read: {error}") from error
