"""`spot-runner setup`, and the desk behind `/setup`: makes the GitHub App, keeps it sealed, says what it lacks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from webhook.setup import AppForm, Checked
from workers.bootstrap.github_app import (
    SECRETS_MAX,
    app_login,
    keep_app,
    open_vault,
    stored_app,
)
from workers.clock import SystemClock
from workers.domain.errors import BadInput, Refused
from workers.domain.github_app import HOOK_PATH, AppSeen, GitHubApp, lacks, manifest, wish_of
from workers.domain.installation import guests
from workers.door import SetupDoor
from workers.github.login import require_key
from workers.github.setup import SetupGitHub
from workers.ports import Clock
from workers.secret_files import secret_text
from workers.settings import ControlSettings
from workers.vault import Vault

ALL_WELL: Final = 0
SOMETHING_IS_MISSING: Final = 1
IS_DONE: Final = (
    "there is a GitHub App already; `spot-runner setup` says what it lacks, and `--manual --replace` keeps another"
)


class SetupDesk:
    """`webhook.setup.Desk` over the vault and GitHub."""

    def __init__(self, settings: ControlSettings, vault: Vault, clock: Clock) -> None:
        self._settings, self._vault, self._site = settings, vault, settings.github_site
        self._door = SetupDoor(vault, clock)
        self._github = SetupGitHub(self._site.api)

    @property
    def public_url(self) -> str:
        return public_url(self._settings)

    @property
    def github_web(self) -> str:
        return self._site.web

    def is_done(self) -> bool:
        return self._settings.github_key_file is not None or stored_app(self._vault) is not None

    def enter(self, token: str) -> str:
        self._refuse_if_done()
        return self._door.enter(token)

    def is_inside(self, session: str | None) -> bool:
        return self._door.is_inside(session)

    def form(self, session: str, name: str, organization: str, *, is_public: bool) -> AppForm:
        self._refuse_if_done()
        wish = wish_of(name, organization, is_public=is_public)
        state = self._door.leave_for_github(session)
        return AppForm(self._site.app_form(wish.organization), state, manifest(wish, self.public_url))

    def made(self, session: str, state: str, code: str) -> None:
        self._refuse_if_done()
        self._door.come_back(session, state)
        if not keep_app(self._vault, self._github.convert(code)):
            raise Refused(IS_DONE)

    def check(self) -> Checked:
        number, key = app_login(self._settings)
        seen = self._github.look(GitHubApp(number, key, ()))
        accounts = tuple(one.account for one in seen.installations)
        return Checked(seen.name, seen.page, seen.install_page, accounts, self.missing(seen))

    def missing(self, seen: AppSeen) -> tuple[str, ...]:
        """Return one sentence for each thing that the App lacks."""
        served = guests(self._settings.installations_allowed, self._settings.installations_denied)
        return lacks(seen, self.public_url + HOOK_PATH, self._site.web, served)

    def _refuse_if_done(self) -> None:
        if self.is_done():
            raise Refused(IS_DONE)


def public_url(settings: ControlSettings) -> str:
    """Return how we are reached, without a slash at its end. Raises `BadInput`."""
    url = (settings.public_url or "").rstrip("/")
    if not url.startswith(("https://", "http://")) or any(letter in url for letter in " ?#@\"'<>"):
        raise BadInput(
            f"public_url is {url!r}; set SPOT_RUNNER_PUBLIC_URL to the address at which GitHub reaches the public "
            "listener, such as https://runners.example.org"
        )
    return url


def open_desk(settings: ControlSettings) -> SetupDesk:
    """Return the desk of this deployment. Raises `BadInput` for a `github_url` that is none."""
    return SetupDesk(settings, open_vault(settings), SystemClock())


def run_setup(settings: ControlSettings) -> int:
    """Print the way to `/setup`, or once there is an App what it lacks; return 1 if that is anything."""
    desk, url = open_desk(settings), public_url(settings)
    if desk.is_done():
        return _say(desk.check())
    token = SetupDoor(open_vault(settings), SystemClock()).hand_out()
    sys.stdout.write(
        f"Open {url}/setup within an hour and enter this token there; it is good for one time:\n\n{token}\n"
    )
    return ALL_WELL


def run_manual(settings: ControlSettings, app_id: int, key_file: Path, secret_file: Path, *, may_replace: bool) -> int:
    """Keep an App that exists, if GitHub knows it, and say what it lacks; return 1 if that is anything.

    Raises `Refused` if GitHub does not know it or there is one already, `BadInput` and `Unfit` for files of no use.
    """
    desk, vault = open_desk(settings), open_vault(settings)
    if settings.github_key_file is not None:
        raise Refused("SPOT_RUNNER_GITHUB_KEY_FILE names an App already; take that setting away first")
    if not may_replace and stored_app(vault) is not None:
        raise Refused(IS_DONE)
    app = GitHubApp(app_id, _text(key_file, "key"), _secrets(secret_file))
    require_key(app.key_pem, str(key_file))
    seen = SetupGitHub(settings.github_site.api).look(app)
    _ = desk.missing(seen)  # with a public_url that is none nothing is kept
    if not keep_app(vault, app, may_replace=may_replace):
        raise Refused(IS_DONE)
    return _say(desk.check())


def _secrets(file: Path) -> tuple[str, ...]:
    lines = tuple(line.strip() for line in _text(file, "webhook secret").splitlines() if line.strip())
    if not 1 <= len(lines) <= SECRETS_MAX:
        raise BadInput(
            f"{file} has {len(lines)} lines; it must hold the webhook's secret, and the next one while it changes"
        )
    return lines


def _text(file: Path, what: str) -> str:
    return secret_text(file, f"the {what} file", "name the file that holds it")


def _say(checked: Checked) -> int:
    installed = f"installed in {', '.join(checked.accounts)}" if checked.accounts else "installed nowhere"
    sys.stdout.write(f"The GitHub App {checked.name} ({checked.page}) is {installed}.\n")
    for sentence in checked.lacks:
        sys.stdout.write(f"- {sentence}\n")
    if not checked.lacks:
        sys.stdout.write("Nothing is missing.\n")
    return SOMETHING_IS_MISSING if checked.lacks else ALL_WELL
