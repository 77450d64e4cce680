"""GitHub as settings describe it: which Apps, and how fast they may be asked."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from workers.bootstrap.github_app import KEY_REMEDY, NAME, app_login
from workers.domain.pace import Limits
from workers.github.app import AppGitHub
from workers.github.login import require_key
from workers.github.pace import NoPace, Pace, shared_pace
from workers.ports import Clock
from workers.secret_files import secret_text
from workers.settings import ControlSettings

LEDGER: Final = "spot-runner:pace"


def open_github(settings: ControlSettings, clock: Clock, mark: str) -> AppGitHub:
    """Return GitHub for our App and for those that are set beside it. Raises `Unfit` if there is none.

    `mark` is how the names of our runners begin. Raises `BadInput` for a key that cannot sign, naming its file.
    """
    app_id, key = app_login(settings)
    require_key(key, _place(settings))
    more = {app_id: _read(path) for app_id, path in settings.github_more_apps.items()}
    return AppGitHub(settings.github_site.api, {app_id: key} | more, _pace(settings, clock), mark)


def _pace(settings: ControlSettings, clock: Clock) -> Pace:
    points = settings.github_points_per_minute
    if points == 0:
        return NoPace()
    limits = Limits(points=points, app_points=points)
    return shared_pace(settings.redis_url, LEDGER, limits, lambda: clock.now().timestamp())


def _read(path: Path) -> str:
    key = secret_text(path, "SPOT_RUNNER_GITHUB_MORE_APPS:", KEY_REMEDY)
    require_key(key, f"SPOT_RUNNER_GITHUB_MORE_APPS: {path}")
    return key


def _place(settings: ControlSettings) -> str:
    if settings.github_key_file is None:
        return f"what is sealed as {NAME}"
    return f"SPOT_RUNNER_GITHUB_KEY_FILE: {settings.github_key_file}"
