"""Key files: a good one is read; of any other one sentence names the place, and nothing of what stands in it."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from github import Auth
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.clock import FakeClock
from workers.bootstrap.github import open_github
from workers.bootstrap.github_app import app_login, webhook_secrets
from workers.bootstrap.rented import hetzner_token
from workers.domain.errors import BadInput, GiveUp, Unfit
from workers.github.login import require_key
from workers.settings import ControlSettings, HetznerSettings
from workers.vault import Vault

PLACE = "SPOT_RUNNER_GITHUB_KEY_FILE: app.pem"
# Whatever of a file is as long as this and stands in the sentence is told; words of ours are shorter in no key.
TOLD = 6


@cache
def pem(kind: str) -> bytes:
    """Return a key of this kind, made once."""
    made: dict[str, Callable[[], PrivateKeyTypes]] = {
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
        "small": lambda: rsa.generate_private_key(65537, 1024),  # noqa: S505 that is what is refused
        "ec": lambda: ec.generate_private_key(ec.SECP256R1()),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
    }
    key = made[kind.partition(" ")[0]]()
    form = (
        serialization.PrivateFormat.PKCS8 if kind.endswith("pkcs8") else serialization.PrivateFormat.TraditionalOpenSSL
    )
    sealed: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if kind.endswith("sealed"):
        form, sealed = serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    return key.private_bytes(serialization.Encoding.PEM, form, sealed)


@contextmanager
def holding(content: bytes) -> Iterator[Path]:
    with TemporaryDirectory() as home:
        file = Path(home) / "app.pem"
        file.write_bytes(content)
        yield file


def sentence(error: GiveUp, content: bytes, place: str) -> str:
    """Return what is told of an error, if it is one sentence with its place and tells nothing of the content."""
    text = str(error)
    assert text.isprintable(), "one line"
    assert text.startswith(place)
    assert re.search(r"; [a-z`][^;]*[\w')]$", text), "it ends with the remedy"
    whole = "".join(traceback.format_exception(error)).encode()
    assert "codec can't decode" not in whole.decode(), "which tells a byte"
    assert "InvalidByte" not in whole.decode()
    ours = text.encode()
    secret = b"".join(line for line in content.splitlines() if b"private key" not in line.lower())
    pieces = {secret[at : at + TOLD] for at in range(len(secret) - TOLD + 1)}
    assert [piece for piece in pieces if piece in ours and piece not in place.encode()] == []
    return text


def refusal(content: bytes) -> str | None:
    """Return what is said of a key file, None if the key is good and signs."""
    with holding(content) as file:
        place = f"SPOT_RUNNER_GITHUB_KEY_FILE: {file}"
        settings = ControlSettings(package="x", home=file.parent, github_key_file=file, github_app_id=7)
        try:
            open_github(settings, FakeClock(), "mark")
        except GiveUp as error:
            return sentence(error, content, place)
        assert Auth.AppAuth(7, app_login(settings)[1]).token, "it signs"
        return None


@pytest.mark.parametrize("kind", ["rsa", "rsa pkcs8"])
def test_a_key_in_either_form_is_read_and_signs(kind: str) -> None:
    assert refusal(pem(kind)) is None
    assert refusal(b"# from GitHub\r\n\n" + pem(kind).replace(b"\n", b"\r\n")) is None


@pytest.mark.parametrize(
    ("kind", "because"),
    [
        ("small", "it has 1024 bits, not 2048"),
        ("ec", "it is not an RSA key"),
        ("ed25519 pkcs8", "it is not an RSA key"),
        ("rsa sealed", "it cannot be read as a PEM private key without a password"),
    ],
)
def test_another_kind_of_key_is_refused_with_the_reason(kind: str, because: str) -> None:
    said = refusal(pem(kind))
    assert said is not None
    assert said.endswith(f"is of no use: {because}; generate one in the App's settings")


@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode(errors="replace")))
def test_no_content_makes_it_fail_in_another_way(content: bytes) -> None:
    assert refusal(content) is not None


@given(drawn=st.data())
def test_no_damage_to_a_line_makes_it_fail_in_another_way(drawn: st.DataObject) -> None:
    lines = pem(drawn.draw(st.sampled_from(["rsa", "rsa pkcs8"]))).splitlines(keepends=True)
    number = drawn.draw(st.integers(0, len(lines) - 1))
    line = lines[number]
    place = drawn.draw(st.integers(0, len(line) - 1))
    mangled = drawn.draw(
        st.sampled_from([b"", line + line, line[::-1], line[:place], line.swapcase(), line[:place] + line[place + 1 :]])
        | st.binary(max_size=80)
        | st.integers(0, 255).map(lambda byte: line[:place] + bytes([byte]) + line[place + 1 :])
    )
    refusal(b"".join([*lines[:number], mangled, *lines[number + 1 :]]))


@given(st.binary(max_size=60))
def test_what_stands_in_the_vaults_key_is_not_told(content: bytes) -> None:
    with holding(content) as file:
        file.chmod(0o600)
        with pytest.raises(Unfit) as refused:
            Vault(file.parent / "home", file).write("app", b"secret")
        sentence(refused.value, content, f"the vault's key {file}")


def hetzner(file: Path) -> object:
    return hetzner_token(ControlSettings(package="x", home=file.parent, hetzner=HetznerSettings(token_file=file)))


def webhook(file: Path) -> object:
    return webhook_secrets(ControlSettings(package="x", home=file.parent, webhook_secret_file=file))


def more(file: Path) -> object:
    (file.parent / "first.pem").write_bytes(pem("rsa"))
    first = file.parent / "first.pem"
    settings = ControlSettings(package="x", home=file.parent, github_key_file=first, github_more_apps={8: file})
    return open_github(settings, FakeClock(), "mark")


READERS = {
    "SPOT_RUNNER_HETZNER_TOKEN_FILE: ": hetzner,
    "webhook_secret_file": webhook,
    "SPOT_RUNNER_GITHUB_MORE_APPS: ": more,
}


@pytest.mark.parametrize(("place", "read"), READERS.items(), ids=READERS)
@pytest.mark.parametrize("content", [b"", b"s3cret\xff word", b"s3cret word\nand\nanother\nand another"])
def test_what_stands_in_another_secret_file_is_not_told(
    place: str, read: Callable[[Path], object], content: bytes
) -> None:
    with holding(content) as file, pytest.raises(GiveUp) as refused:
        read(file)
    sentence(refused.value, content, place)


@pytest.mark.parametrize(("place", "read"), READERS.items(), ids=READERS)
def test_a_secret_file_that_is_not_there_is_named(place: str, read: Callable[[Path], object], tmp_path: Path) -> None:
    with pytest.raises(Unfit) as refused:
        read(tmp_path / "missing")
    assert f"{tmp_path / 'missing'} cannot be read (No such file or directory); " in str(refused.value)
    sentence(refused.value, b"", place)


def test_a_key_that_nobody_has_named_is_refused_without_a_place() -> None:
    with pytest.raises(BadInput, match="what was given: the GitHub App's private key is of no use"):
        require_key("nonsense")
