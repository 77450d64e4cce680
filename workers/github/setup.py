"""GitHub, as it is asked while the App is set up: makes the App of a manifest, and looks at what became of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final, TypeVar
from urllib.parse import quote

from github import Github, GithubException
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from requests import RequestException

from workers.domain.errors import Refused, Unreachable
from workers.domain.github_app import AppSeen, GitHubApp, InstallationSeen
from workers.domain.pace import Seat
from workers.github.answers import raise_ours
from workers.github.calls import Calls, as_app
from workers.github.login import TIMEOUT_S, Login, require_key

PER_PAGE: Final = 100
# An App of ours has some hundred installations at the very most; an endless list is not GitHub's.
PAGES_MAX: Final = 100

T = TypeVar("T")


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Made(_Answer):
    id: int
    pem: str
    webhook_secret: str


class _Account(_Answer):
    login: str | None = None
    slug: str | None = None
    """An enterprise has no login."""
    type: str | None = None

    @property
    def name(self) -> str:
        return self.login or self.slug or "?"


class _App(_Answer):
    name: str
    html_url: str
    owner: _Account
    permissions: dict[str, str]
    events: tuple[str, ...]


class _Hook(_Answer):
    url: str | None = None
    content_type: str | None = None
    insecure_ssl: str | float | None = None


class _Installation(_Answer):
    account: _Account | None
    target_type: str
    permissions: dict[str, str]
    events: tuple[str, ...]
    suspended_at: str | None
    html_url: str


_MADE: Final = TypeAdapter(_Made)
_APP: Final = TypeAdapter(_App)
_HOOK: Final = TypeAdapter(_Hook)
_INSTALLATIONS: Final = TypeAdapter(tuple[_Installation, ...])


class SetupGitHub:
    """Raises `Unreachable`, `Throttled`, and `Refused` for what GitHub will never answer otherwise."""

    def __init__(self, url: str) -> None:
        """`url` is the API's root, without a slash at its end."""
        self._url = url

    def convert(self, code: str) -> GitHubApp:
        """Return the App that was made with the manifest of this code, which is good for one time and one hour."""
        doing = "making the App of the manifest"
        client = Github(base_url=self._url, retry=None, timeout=TIMEOUT_S, seconds_between_requests=0)
        try:
            _, answer = client.requester.requestJsonAndCheck("POST", f"/app-manifests/{code}/conversions")
        except RequestException as error:
            raise Unreachable(f"{doing}: GitHub did not answer within {TIMEOUT_S} s") from error
        except GithubException as error:
            raise_ours(error, doing, time.time())
        finally:
            client.close()
        made = _read(_MADE, answer, doing)
        require_key(made.pem)
        return GitHubApp(made.id, made.pem, (made.webhook_secret,))

    def look(self, app: GitHubApp) -> AppSeen:
        """Return what GitHub says of this App. Raises `Refused` if it does not know it by this number and key."""
        calls = Calls([Login(self._url, app.id, app.key_pem)])
        doing = f"asking about the App {app.id}"
        with calls.translated(itself := as_app(app.id), doing):
            told = _read(_APP, calls.ask(itself, "GET", "/app").body, doing)
            hook = _hook(calls, itself, doing)
            installations = tuple(_seen(one) for one in _installations(calls, itself, doing))
            is_public = self._is_public(told.html_url.rpartition("/")[2])
        return AppSeen(
            name=told.name,
            page=told.html_url,
            owner=told.owner.name,
            is_of_organization=told.owner.type == "Organization",
            permissions=told.permissions,
            events=told.events,
            hook_url=hook.url or None,
            hook_content_type=hook.content_type,
            is_hook_insecure=str(hook.insecure_ssl or 0).removesuffix(".0") == "1",
            installations=installations,
            is_public=is_public,
        )

    def _is_public(self, slug: str) -> bool | None:
        """Ask as nobody: GitHub shows everybody the Apps that are public, and no others.

        https://docs.github.com/en/rest/apps/apps#get-an-app; where nobody is told anything, that says nothing.
        """
        client = Github(base_url=self._url, retry=None, timeout=TIMEOUT_S, seconds_between_requests=0)
        try:
            status, _, _ = client.requester.requestJson("GET", f"/apps/{quote(slug, safe='')}")
        except RequestException:
            return None
        finally:
            client.close()
        return {HTTPStatus.OK.value: True, HTTPStatus.NOT_FOUND.value: False}.get(status)


def _hook(calls: Calls, itself: Seat, doing: str) -> _Hook:
    try:
        return _read(_HOOK, calls.ask(itself, "GET", "/app/hook/config").body, doing)
    except GithubException as error:
        if error.status == HTTPStatus.NOT_FOUND:
            return _Hook()  # it has no webhook at all
        raise


def _installations(calls: Calls, itself: Seat, doing: str) -> Iterator[_Installation]:
    for page in range(1, PAGES_MAX + 1):
        wanted = {"per_page": PER_PAGE, "page": page}
        found = _read(_INSTALLATIONS, calls.ask(itself, "GET", "/app/installations", parameters=wanted).body, doing)
        yield from found
        if len(found) < PER_PAGE:
            return


def _read(adapter: TypeAdapter[T], answer: Any, doing: str) -> T:  # noqa: ANN401 - whatever GitHub answered
    try:
        return adapter.validate_python(answer)
    except ValidationError as error:
        # Not its cause: that would hold the answer, and with it the App's secrets.
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        said = f"{doing}: GitHub's answer lacks sense at {place}: {first['msg']}"
    raise Refused(f"{said}; look whether github_url names a GitHub")


def _seen(told: _Installation) -> InstallationSeen:
    return InstallationSeen(
        account=told.account.name if told.account else "?",
        is_organization=told.target_type != "User",
        permissions=told.permissions,
        events=told.events,
        is_suspended=told.suspended_at is not None,
        page=told.html_url,
    )
