"""The file that holds the webhook's secret: one line, or two while GitHub is given the next one."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.bootstrap.serve import webhook_secrets
from workers.domain.errors import Unfit
from workers.settings import ControlSettings


def written(tmp_path: Path, content: bytes) -> ControlSettings:
    (tmp_path / "secret").write_bytes(content)
    return ControlSettings(webhook_secret_file=tmp_path / "secret")


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


def test_no_file_is_refused() -> None:
    with pytest.raises(Unfit, match="webhook_secret_file is not set"):
        webhook_secrets(ControlSettings(webhook_secret_file=None))
