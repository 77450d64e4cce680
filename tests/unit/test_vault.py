"""Secrets in files: sealed, ours alone, and of no use with another key or under another name."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from workers.domain.errors import Unfit
from workers.vault import Vault

SECRET = b"-----BEGIN RSA PRIVATE KEY-----"


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_what_was_sealed_is_read_again_and_stands_nowhere(tmp_path: Path) -> None:
    Vault(tmp_path).write("app", SECRET)
    assert Vault(tmp_path).read("app") == SECRET
    assert all(SECRET not in file.read_bytes() for file in tmp_path.iterdir())
    assert {file.name: mode(file) for file in tmp_path.iterdir()} == {"app.sealed": 0o600, "vault.key": 0o600}


def test_a_home_is_made_that_is_ours_alone(tmp_path: Path) -> None:
    Vault(tmp_path / "home").write("app", SECRET)
    assert mode(tmp_path / "home") == 0o700


def test_nothing_is_made_by_looking(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    assert (vault.read("app"), vault.stamp("app")) == (None, None)
    assert list(tmp_path.iterdir()) == []


def test_the_same_secret_never_looks_the_same(tmp_path: Path) -> None:
    vault, seen = Vault(tmp_path), set()
    for _ in range(10):
        vault.write("app", SECRET)
        seen.add((tmp_path / "app.sealed").read_bytes())
    assert len(seen) == 10


def test_the_stamp_differs_whenever_the_secret_was_sealed_anew(tmp_path: Path) -> None:
    vault, seen = Vault(tmp_path), set()
    for _ in range(10):
        vault.write("app", SECRET)
        seen.add(vault.stamp("app"))
        assert vault.stamp("app") == vault.stamp("app")
    assert len(seen) == 10
    vault.remove("app")
    vault.remove("app")
    assert vault.stamp("app") is None


def test_a_damaged_file_another_name_and_another_key_are_refused(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    vault.write("app", SECRET)
    sealed = (tmp_path / "app.sealed").read_bytes()
    (tmp_path / "door.sealed").write_bytes(sealed)
    (tmp_path / "half.sealed").write_bytes(sealed[:20])
    (tmp_path / "bent.sealed").write_bytes(sealed[:-1] + bytes([sealed[-1] ^ 1]))
    for name in ("door", "half", "bent"):
        with pytest.raises(Unfit, match="does not open with the key"):
            vault.read(name)
    (tmp_path / "vault.key").write_text("ab" * 32)
    with pytest.raises(Unfit, match="does not open with the key"):
        vault.read("app")


def test_a_key_that_is_gone_is_not_made_anew_over_what_it_sealed(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    vault.write("app", SECRET)
    (tmp_path / "vault.key").unlink()
    with pytest.raises(Unfit, match="cannot be read"):
        vault.write("door", b"x")
    assert not (tmp_path / "vault.key").exists()


def test_a_key_of_the_settings_is_used_and_never_made(tmp_path: Path) -> None:
    key = tmp_path / "key"
    with pytest.raises(Unfit, match="cannot be read"):
        Vault(tmp_path / "home", key).write("app", SECRET)
    assert not key.exists()
    key.write_text("0f" * 32 + "\n")
    key.chmod(0o600)
    Vault(tmp_path / "home", key).write("app", SECRET)
    assert Vault(tmp_path / "home", key).read("app") == SECRET
    assert not (tmp_path / "home" / "vault.key").exists()


@pytest.mark.parametrize(
    ("text", "permissions", "said"),
    [("", 0o600, "64 small hex digits"), ("AB" * 32, 0o600, "64 small hex digits"), ("ab" * 32, 0o640, "chmod 600")],
)
def test_a_key_that_is_none_or_that_others_may_read_is_refused(
    tmp_path: Path, text: str, permissions: int, said: str
) -> None:
    (tmp_path / "key").write_text(text)
    (tmp_path / "key").chmod(permissions)
    with pytest.raises(Unfit, match=said) as refused:
        Vault(tmp_path, tmp_path / "key").write("app", SECRET)
    assert not text or text not in str(refused.value)


def test_whoever_begins_at_the_same_time_uses_one_key(tmp_path: Path) -> None:
    start = threading.Barrier(8)

    def seal(number: int) -> None:
        start.wait()
        vault = Vault(tmp_path)
        with vault.alone():
            vault.write(f"app-{number}", SECRET)

    threads = [threading.Thread(target=seal, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [Vault(tmp_path).read(f"app-{number}") for number in range(8)] == [SECRET] * 8
