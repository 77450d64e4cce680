"""What happens to an installation at GitHub: suspended, removed, in more or fewer repositories; and what is told of it.

The payloads are recorded ones. Where GitHub recorded them long ago, the installation's own part is that of the newest
recording, so that they are what GitHub describes today.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from http import HTTPStatus
from typing import Final

from workers.rehearsal.github.contract import published
from workers.rehearsal.github.deliveries import Sender
from workers.rehearsal.github.records import ApiError, Installation, Json
from workers.rehearsal.github.views import stamp
from workers.rehearsal.github.world import World

INSTALLATION: Final = "installation"
REPOSITORIES: Final = "installation_repositories"


class Installing:
    """Changes installations and announces it. Each raises `ApiError` for an account without one."""

    def __init__(self, world: World, sender: Sender) -> None:
        self._world, self._sender = world, sender

    def announce_created(self, installation: Installation) -> None:
        """Tell of a new installation."""
        self._announce(INSTALLATION, "created", installation)

    def suspend(self, account: str) -> None:
        """Let its tokens be refused and nothing be told any more, until that is lifted."""
        now = self._world.clock.now()
        self._change(account, "suspend", suspended_at=now, updated_at=now)

    def unsuspend(self, account: str) -> None:
        """Lift it; GitHub's own date of the last change stays, as in the recording."""
        self._change(account, "unsuspend", suspended_at=None)

    def remove(self, account: str) -> None:
        """Remove the App from an account, for good."""
        with self._world.changed:
            installation = self._found(account)
            del self._world.installations[installation.id]
            self._announce(INSTALLATION, "deleted", installation)

    def change_repositories(self, account: str, action: str, names: Sequence[str]) -> None:
        """Take these repositories (`owner/name`) out of an installation (`removed`), or put them into it (`added`)."""
        with self._world.changed:
            installation = self._found(account)
            out = {name.lower() for name in names}
            left = installation.left | out if action == "removed" else installation.left - out
            installation = replace(installation, left=frozenset(left))
            self._world.installations[installation.id] = installation
            self._announce(REPOSITORIES, action, installation, names)

    def _change(self, account: str, action: str, **changed: datetime | None) -> None:
        with self._world.changed:
            installation = replace(self._found(account), **changed)  # type: ignore[arg-type]  # mypy sees one type for all
            self._world.installations[installation.id] = installation
            self._announce(INSTALLATION, action, installation)

    def _found(self, account: str) -> Installation:
        found = self._world.installation_of(account)
        if found is None:
            raise ApiError(HTTPStatus.NOT_FOUND, f"the App is not installed in {account}")
        return found

    def _announce(self, event: str, action: str, installation: Installation, names: Sequence[str] = ()) -> None:
        self._sender.send(event, action, installation, payload_of(event, action, installation, names))


def payload_of(event: str, action: str, installation: Installation, names: Sequence[str] = ()) -> Json:
    """Return what GitHub would say of this change."""
    payload: Json = {**_recorded(event, action), INSTALLATION: _described(installation)}
    for key in ("repositories_added", "repositories_removed"):
        if key in payload:
            sample = [*payload["repositories_added"], *payload["repositories_removed"]][0]
            told = names if key.endswith(action) else ()
            payload[key] = [sample | {"name": name.split("/")[1], "full_name": name} for name in told]
    if "repository_selection" in payload:
        payload["repository_selection"] = "selected"
    return payload


def _recorded(event: str, action: str) -> Json:
    samples = [sample for sample in published("deliveries")[event] if sample["action"] == action]
    chosen: Json = next((one for one in samples if "requester" in one), samples[0])
    return chosen | ({"requester": None} if "requester" in chosen else {})


def _described(installation: Installation) -> Json:
    sample = _recorded(INSTALLATION, "unsuspend")[INSTALLATION]
    suspended_at = installation.suspended_at
    return {
        **sample,
        "id": installation.id,
        "account": sample["account"] | {"login": installation.account},
        "app_id": installation.app.id,
        "app_slug": installation.app.slug,
        "repository_selection": "selected" if installation.left else "all",
        "created_at": stamp(installation.created_at),
        "updated_at": stamp(installation.updated_at or installation.created_at),
        "suspended_at": stamp(suspended_at) if suspended_at else None,
        "suspended_by": sample["account"] if suspended_at else None,
    }
