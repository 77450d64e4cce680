"""GitHub's `installation` and `installation_repositories` events, read into facts; nothing here does I/O.

Of `created` the list of repositories is not read: it may be long, and only what was ever taken out need be known.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from workers.domain.errors import BadInput
from workers.domain.installation import InstallationAction, InstallationFact

EVENTS: Final = frozenset({"installation", "installation_repositories"})
_LAST_MOMENT: Final = datetime.max.replace(tzinfo=UTC)


def _moment(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Turn a Unix time or a text into a moment: recorded deliveries have either, GitHub's description only text."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LAST_MOMENT.timestamp():
        return datetime.fromtimestamp(value, UTC)
    if isinstance(value, str):
        with suppress(ValueError):
            return datetime.fromisoformat(value)
    return value


_Text = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=r"^[^\x00]*$")]
_Moment = Annotated[datetime, BeforeValidator(_moment)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class _Account(_Strict):
    # An enterprise has no login.
    login: Annotated[_Text, Field(validation_alias=AliasChoices("login", "slug"))]


class _Installed(_Strict):
    id: Annotated[int, Field(gt=0, lt=1 << 63)]
    account: _Account
    updated_at: _Moment
    suspended_at: _Moment | None = None
    repository_selection: Literal["all", "selected"]


class _Named(_Strict):
    full_name: Annotated[_Text, StringConstraints(pattern=r"^[^/\s]+/[^/\s]+$")]


class Event(_Strict):
    action: InstallationAction
    installation: _Installed
    repositories_added: tuple[_Named, ...] = ()
    repositories_removed: tuple[_Named, ...] = ()


def fact_of(event: str, guid: str, body: bytes, now: datetime) -> InstallationFact:
    """Return what was said. Raises `BadInput` naming the field if it is not the event's schema."""
    try:
        said = Event.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadInput(f"not an {event} event: {place}: {first['msg']}") from error
    installation = said.installation
    return InstallationFact(
        delivery=guid,
        action=said.action,
        seen_at=now,
        installation_id=installation.id,
        account=installation.account.login,
        said_at=_aware(installation.updated_at),
        is_suspended=said.action is InstallationAction.SUSPEND
        or (said.action is not InstallationAction.UNSUSPEND and installation.suspended_at is not None),
        takes_all=installation.repository_selection == "all",
        added=tuple(one.full_name for one in said.repositories_added),
        removed=tuple(one.full_name for one in said.repositories_removed),
    )


def _aware(moment: datetime) -> datetime:
    return moment.astimezone(UTC) if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def is_used(action: object) -> bool:
    """Say whether this is to be read: an action that GitHub may invent later is kept, a missing one is an error."""
    return not isinstance(action, str) or action in set(InstallationAction)
