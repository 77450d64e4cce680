"""Who we are to GitHub: what the settings name, or the App that was set up and is sealed in `home`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, overload

from pydantic import TypeAdapter, ValidationError

from workers.domain.errors import Unfit
from workers.domain.github_app import GitHubApp
from workers.secret_files import secret_text
from workers.settings import ControlSettings
from workers.vault import Stamp, Vault

NAME: Final = "github-app"
# Of one App: its webhook's secret, and the next one while it changes. Each costs every delivery a signature.
SECRETS_MAX: Final = 2
NO_APP: Final = (
    "there is no GitHub App yet; `spot-runner setup` says how one is made, or set SPOT_RUNNER_GITHUB_KEY_FILE and "
    "SPOT_RUNNER_GITHUB_APP_ID to one that exists"
)
KEY_REMEDY: Final = "name the file with the private key that the App's settings have given you"
_APP: Final = TypeAdapter(GitHubApp)


def open_vault(settings: ControlSettings) -> Vault:
    """Return where secrets are sealed."""
    return Vault(settings.home, settings.vault_key_file)


def stored_app(vault: Vault) -> GitHubApp | None:
    """Return the App that was set up, None if none was. Raises `Unfit`."""
    content = vault.read(NAME)
    try:
        return None if content is None else _APP.validate_json(content)
    except ValidationError:
        pass  # not its cause: that would hold the secrets
    raise Unfit(f"what is sealed as {NAME} is no GitHub App; remove that file and set it up again")


def keep_app(vault: Vault, app: GitHubApp, *, may_replace: bool = False) -> bool:
    """Seal the App; False, and nothing is written, if there is one that must not be replaced."""
    with vault.alone():
        if not may_replace and vault.stamp(NAME) is not None:
            return False
        vault.write(NAME, _APP.dump_json(app))
        return True


def app_login(settings: ControlSettings) -> tuple[int, str]:
    """Return the App's number and its private key, PEM. Raises `Unfit` if there is none."""
    if settings.github_key_file is not None:
        file, name = settings.github_key_file, "SPOT_RUNNER_GITHUB_KEY_FILE:"
        return settings.github_app_id, secret_text(file, name, KEY_REMEDY)
    app = stored_app(open_vault(settings))
    if app is None:
        raise Unfit(NO_APP)
    return app.id, app.key_pem


def webhook_secrets(settings: ControlSettings) -> Sequence[bytes]:
    """Return the secrets that deliveries may be signed with: the file's, or those of the App as soon as there is one.

    If there are more Apps beside the one that is kept, the file has theirs, and both count. Raises `Unfit` for a file
    with none and with more than two for each App.
    """
    if settings.webhook_secret_file is None:
        return StoredSecrets(open_vault(settings))
    is_beside = settings.github_key_file is None and bool(settings.github_more_apps)
    secrets = _secrets_in_file(settings.webhook_secret_file, len(settings.github_more_apps) + (0 if is_beside else 1))
    return StoredSecrets(open_vault(settings), secrets) if is_beside else secrets


def _secrets_in_file(file: Path, apps: int) -> tuple[bytes, ...]:
    text = secret_text(file, "webhook_secret_file:", "name the file that holds the webhook's secret")
    secrets = tuple(line.strip().encode() for line in text.splitlines() if line.strip())
    if not secrets:
        raise Unfit("webhook_secret_file is empty; put the webhook's secret there, or anybody could sign")
    if len(secrets) > SECRETS_MAX * apps:
        raise Unfit(
            f"webhook_secret_file has {len(secrets)} lines, and it is for {apps} App{'s' if apps > 1 else ''}; keep "
            "the secret of each, and the next one while it changes"
        )
    return secrets


class StoredSecrets(Sequence[bytes]):
    """The webhook secrets of the App that is sealed now, if there is one, and others; looked at when they are needed.

    So whoever listens hears of an App without being started again. It costs one look at the file's stamp each time.
    """

    def __init__(self, vault: Vault, others: tuple[bytes, ...] = ()) -> None:
        """Raises `Unfit` if something is sealed and cannot be opened."""
        self._vault, self._others = vault, others
        self._kept: tuple[Stamp | None, tuple[bytes, ...]] = (None, ())
        self._now()

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        return self._now()[index]

    def __len__(self) -> int:
        return len(self._now())

    def _now(self) -> tuple[bytes, ...]:
        stamp = self._vault.stamp(NAME)
        kept = self._kept
        if stamp != kept[0]:
            app = stored_app(self._vault)
            kept = self._kept = (stamp, () if app is None else tuple(one.encode() for one in app.webhook_secrets))
        return (*kept[1], *self._others)
