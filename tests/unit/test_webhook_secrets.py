"""The file that holds the webhooks' secrets: of each App one line, or two while GitHub is given the next one."""

from __future__ import annotations

from pathlib import Path

import pytest

from webhook.signature import is_signed, signature
from workers.bootstrap.github_app import keep_app, open_vault, webhook_secrets
from workers.domain.errors import Unfit
from workers.domain.github_app import GitHubApp
from workers.settings import ControlSettings


def written(tmp_path: Path, content: bytes, more_apps: int = 0) -> ControlSettings:
    (tmp_path / "secret").write_bytes(content)
    more = dict.fromkeys(range(2, 2 + more_apps), tmp_path / "key")
    return ControlSettings(
        home=tmp_path,
        webhook_secret_file=tmp_path / "secret",
        github_key_file=tmp_path / "key",
        github_more_apps=more,
    )


@pytest.mark.parametrize(
    ("content", "secrets"),
    [
        (b"one", (b"one",)),
        (b" one \n", (b"one",)),
        (b"one\ntwo\n", (b"one", b"two")),
        (b"\r\none\r\n\r\ntwo", (b"one", b"two")),
        ("grün".encode(), ("grün".encode(),)),
    ],
)
def test_each_line_that_is_not_empty_is_a_secret(tmp_path: Path, content: bytes, secrets: tuple[bytes, ...]) -> None:
    assert webhook_secrets(written(tmp_path, content)) == secrets


@pytest.mark.parametrize(
    ("content", "because"), [(b"", "empty"), (b" \n\n", "empty"), (b"1\n2\n3\n", "3 lines"), (b"\xff\xfe", "read")]
)
def test_none_or_too_many_are_refused_and_none_is_shown(tmp_path: Path, content: bytes, because: str) -> None:
    with pytest.raises(Unfit, match=because):
        webhook_secrets(written(tmp_path, content))


@pytest.mark.parametrize("guess", [b"", b"None", b"()"])
def test_without_a_file_and_an_app_nobody_can_sign(tmp_path: Path, guess: bytes) -> None:
    secrets = webhook_secrets(ControlSettings(home=tmp_path, webhook_secret_file=None))
    assert not is_signed(b"{}", signature(b"{}", guess).decode(), secrets)


def test_each_app_may_have_two(tmp_path: Path) -> None:
    four = b"1\n1 next\n2\n2 next\n"
    assert list(webhook_secrets(written(tmp_path, four, more_apps=1))) == [b"1", b"1 next", b"2", b"2 next"]
    with pytest.raises(Unfit, match="5 lines, and it is for 2 Apps; keep the secret of each"):
        webhook_secrets(written(tmp_path, four + b"3", more_apps=1))


def test_the_file_holds_what_other_apps_sign_with_if_the_first_one_is_kept(tmp_path: Path) -> None:
    settings = written(tmp_path, b"2\n2 next\n", more_apps=1).model_copy(update={"github_key_file": None})
    secrets = webhook_secrets(settings)
    assert list(secrets) == [b"2", b"2 next"]
    keep_app(open_vault(settings), GitHubApp(1, "no key", ("1", "1 next")))
    assert list(secrets) == [b"1", b"1 next", b"2", b"2 next"], "heard of without a restart"
    (tmp_path / "secret").write_bytes(b"1\n2\n3\n")
    with pytest.raises(Unfit, match="3 lines, and it is for 1 App; keep"):
        webhook_secrets(settings)
