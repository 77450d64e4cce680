"""The GitHub App that this deployment is: what it must be allowed, and what one that exists lacks.

The permissions are those that some call of ours needs, and nothing more; GitHub shows them to whoever installs it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from workers.domain.errors import BadInput
from workers.domain.installation import EVERYBODY, Guests

PERMISSIONS: Final[Mapping[str, str]] = {
    "actions": "write",  # to see jobs and runs, and to run again what was lost
    "administration": "write",  # to register runners of a repository
    "checks": "write",  # to say beside a commit why its job does not start
    "deployments": "read",  # to tell whether a job waits for an approval or has had it
    "metadata": "read",  # GitHub gives it to every App
    "organization_self_hosted_runners": "write",  # to register runners of an organization
}
# Installation events come to every App by themselves, and may not be asked for.
EVENTS: Final = ("workflow_job",)
HOOK_PATH: Final = "/github"
# GitHub's own bounds.
NAME_MAX: Final = 34
ORGANIZATION: Final = re.compile(r"[A-Za-z0-9](-?[A-Za-z0-9]){0,38}")
_LEVELS: Final = ("", "read", "write", "admin")
_OF_ORGANIZATIONS: Final = "organization_"

Json = dict[str, object]


@dataclass(frozen=True)
class GitHubApp:
    """Who we are to GitHub."""

    id: int
    key_pem: str = field(repr=False)
    webhook_secrets: tuple[str, ...] = field(repr=False)
    """What signs deliveries: one, or two while it is changed."""


@dataclass(frozen=True)
class InstallationSeen:
    """What GitHub says of one installation."""

    account: str
    is_organization: bool
    permissions: Mapping[str, str]
    events: tuple[str, ...]
    is_suspended: bool
    page: str
    """Where its owner changes it."""


@dataclass(frozen=True)
class AppSeen:
    """What GitHub says of the App that we are."""

    name: str
    page: str
    """Where anybody sees it; below it is where it is installed."""
    owner: str
    is_of_organization: bool
    permissions: Mapping[str, str]
    events: tuple[str, ...]
    hook_url: str | None
    hook_content_type: str | None
    is_hook_insecure: bool
    """GitHub does not look at the certificate of who gets its deliveries."""
    installations: tuple[InstallationSeen, ...]
    is_public: bool | None = None
    """Anybody can install it in an account of theirs; None: GitHub does not say so to everybody."""

    @property
    def install_page(self) -> str:
        """Where the App is installed in one more account."""
        return f"{self.page}/installations/new"


@dataclass(frozen=True)
class Wish:
    """What a person chose for the App that is to be made."""

    name: str
    organization: str | None
    """None: it is to belong to whoever makes it."""
    is_public: bool
    """Other accounts than its owner's may install it."""


def wish_of(name: str, organization: str, *, is_public: bool) -> Wish:
    """Return the wish that was typed. Raises `BadInput`."""
    name, organization = name.strip(), organization.strip()
    if not name or len(name) > NAME_MAX or not name.isprintable():
        raise BadInput(f"name: it has {len(name)} characters; give the App a name of 1 to {NAME_MAX} printable ones")
    if organization and not ORGANIZATION.fullmatch(organization):
        raise BadInput("organization: that is no name of one; write it as in its address on GitHub, or leave it empty")
    return Wish(name, organization or None, is_public)


def manifest(wish: Wish, public_url: str) -> Json:
    """Return GitHub's App manifest; `public_url` is how GitHub and people reach the public listener."""
    return {
        "name": wish.name,
        "url": public_url,
        "public": wish.is_public,
        "hook_attributes": {"url": public_url + HOOK_PATH, "active": True},
        "redirect_url": f"{public_url}/setup/created",
        "setup_url": f"{public_url}/setup/check",
        "setup_on_update": True,
        "default_permissions": dict(PERMISSIONS),
        "default_events": list(EVENTS),
    }


def lacks(app: AppSeen, hook_url: str, web: str, served: Guests = EVERYBODY) -> tuple[str, ...]:
    """Return what is missing, each as one sentence that says what to do; nothing if all is well.

    `web` is where people open this GitHub; `served` says whose jobs are served.
    """
    settings = _settings_page(app, web)
    return (
        *_of_app(app, hook_url, settings),
        *_of_strangers(app, settings, served),
        *(sentence for installation in app.installations for sentence in _of_installation(installation)),
    )


def _settings_page(app: AppSeen, web: str) -> str:
    owner = f"organizations/{app.owner}/" if app.is_of_organization else ""
    return f"{web}/{owner}settings/apps/{app.page.rpartition('/')[2]}"


def _of_app(app: AppSeen, hook_url: str, settings: str) -> Iterator[str]:
    for name, level in _missing(app.permissions, PERMISSIONS):
        yield f"The App lacks the permission {name}: {level}; give it at {settings}/permissions."
    for name, level in _missing(PERMISSIONS, app.permissions):
        yield f"The App may do more than it needs, {name}: {level}; take that away at {settings}/permissions."
    for event in EVENTS:
        if event not in app.events:
            yield f"The App does not hear of {event}; subscribe it to that event at {settings}/permissions."
    if app.hook_url != hook_url:
        was = f"go to {app.hook_url}" if app.hook_url else "go nowhere"
        yield f"The App's deliveries {was}; set its webhook URL to {hook_url} at {settings}."
    elif app.hook_content_type != "json":
        yield f"The App's deliveries are not JSON but {app.hook_content_type}; set application/json at {settings}."
    if app.is_hook_insecure:
        yield f"GitHub does not verify the certificate of {hook_url}; enable SSL verification at {settings}."
    if not app.installations:
        yield f"The App is installed nowhere; install it at {app.install_page}."


def _of_strangers(app: AppSeen, settings: str, served: Guests) -> Iterator[str]:
    if app.is_public and not served.allowed:
        yield (
            f"The App is public: anybody on this GitHub may install it, and whose App is installed is served; say in "
            f"SPOT_RUNNER_INSTALLATIONS_ALLOWED who is to be, or make the App private at {settings}/advanced."
        )


def _of_installation(seen: InstallationSeen) -> Iterator[str]:
    if seen.is_suspended:
        yield f"The installation in {seen.account} is suspended; an owner ends that at {seen.page}."
    needed = {name: level for name, level in PERMISSIONS.items() if seen.is_organization or not _is_theirs(name)}
    missing = ", ".join(f"{name}: {level}" for name, level in _missing(seen.permissions, needed))
    if missing:
        yield f"{seen.account} has not accepted {missing}; an owner accepts it at {seen.page}."
    for event in EVENTS:
        if event not in seen.events:
            yield f"{seen.account} does not send {event}; an owner accepts the App's events at {seen.page}."


def _is_theirs(permission: str) -> bool:
    """A person's account has nothing that such a permission is about, and is never asked for it."""
    return permission.startswith(_OF_ORGANIZATIONS)


def _missing(given: Mapping[str, str], needed: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield what `needed` has and `given` has not, or at a lower level."""
    for name, level in sorted(needed.items()):
        if _rank(given.get(name, "")) < _rank(level):
            yield name, level


def _rank(level: str) -> int:
    return _LEVELS.index(level) if level in _LEVELS else len(_LEVELS)
