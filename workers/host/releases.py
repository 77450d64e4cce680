"""Which release of the runner program is the newest, by GitHub's public list."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import httpx

from workers.domain.errors import Refused, TryLater
from workers.domain.release import Release

ANSWER_LIMIT_S: Final = 30.0


def newest_release(url: str) -> Release:
    """Return the newest release, by the answer of GitHub's `GET /repos/{owner}/{repo}/releases/latest`.

    Raises `TryLater` if there is no answer, and `Refused` if it is none that could be used.
    """
    try:
        answer = httpx.get(url, timeout=ANSWER_LIMIT_S, follow_redirects=True)
    except httpx.HTTPError as error:
        raise TryLater(f"{url}: {error}; name the archive with --runner-archive and --released instead") from error
    if answer.status_code != httpx.codes.OK:
        raise Refused(f"{url}: answered {answer.status_code}; name the archive with --runner-archive and --released")
    try:
        told: dict[str, Any] = answer.json()
        released = datetime.fromisoformat(told["published_at"]).date()
        release = Release(str(told["tag_name"]).removeprefix("v"), released)
        _ = release.is_newer_than(release)  # a version that is no numbers is found out here
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"{url}: its answer names no release ({type(error).__name__}); is it GitHub's?") from error
    return release
