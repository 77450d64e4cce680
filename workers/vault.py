"""Secrets that are kept in files of `home`, each sealed with the deployment's key.

    vault.key      64 hex digits, mode 0600, made when something is sealed for the first time; or another, by a setting
    NAME.sealed    nonce (12 bytes) and AES-256-GCM, with `spot-runner vault 1 NAME` as associated data

A backup of `home` without the key tells nobody anything. Whoever runs as us reads both; against that no file helps.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from workers.domain.errors import Unfit
from workers.secret_files import secret_text

KEY_NAME: Final = "vault.key"
SUFFIX: Final = ".sealed"
NONCE_BYTES: Final = 12
REMEDY: Final = "put back the file that sealed this home"
_KEY: Final = re.compile(r"[0-9a-f]{64}")
_OTHERS: Final = 0o077

Stamp = tuple[int, int, int]


class Vault:
    """Sealed files in one directory. Raises `Unfit` if they, or their key, are of no use."""

    def __init__(self, home: Path, key_file: Path | None = None) -> None:
        """Touch nothing yet. `key_file`: None is a file in `home`, made when it is needed; another must be there."""
        self._home = home
        self._key_file = key_file or home / KEY_NAME
        self._is_own_key = key_file is None

    def read(self, name: str) -> bytes | None:
        """Return what was sealed under this name, None if nothing is."""
        place = self._place(name)
        try:
            sealed = place.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unfit(f"{place} cannot be read ({error.strerror}); let it belong to whoever runs this") from error
        cipher = AESGCM(self._key())
        try:
            return cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _bound(name))
        except (InvalidTag, ValueError) as error:
            raise Unfit(
                f"{place} does not open with the key in {self._key_file}; put the file's own key there, or remove "
                f"{place.name} and set it up again"
            ) from error

    def stamp(self, name: str) -> Stamp | None:
        """Return what differs whenever the sealed file does, None if there is none; costs no decryption."""
        with suppress(OSError):
            seen = self._place(name).stat()
            return seen.st_ino, seen.st_mtime_ns, seen.st_size
        return None

    def write(self, name: str, content: bytes) -> None:
        """Seal this in the place of what was there; a reader sees the old or the new."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        self._put(self._place(name), nonce + AESGCM(self._key(may_make=True)).encrypt(nonce, content, _bound(name)))

    def remove(self, name: str) -> None:
        """Forget what was sealed under this name; nothing there is a success."""
        self._place(name).unlink(missing_ok=True)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let one process or thread at a time read and then write; ends with the process, whatever happens to it."""
        try:
            self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self._home / ".vault.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Unfit(f"{self._home} cannot be written ({error.strerror}); let it belong to us") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _place(self, name: str) -> Path:
        return self._home / f"{name}{SUFFIX}"

    def _key(self, *, may_make: bool = False) -> bytes:
        try:
            if may_make and self._is_own_key and not self._key_file.exists():
                self._make_key()
            mode = self._key_file.stat().st_mode
        except OSError as error:
            raise Unfit(f"the vault's key {self._key_file} cannot be read ({error.strerror}); {REMEDY}") from error
        text = secret_text(self._key_file, "the vault's key", REMEDY).strip()
        if not _KEY.fullmatch(text):
            raise Unfit(
                f"the vault's key {self._key_file} is not 64 small hex digits; `openssl rand -hex 32` makes some"
            )
        if mode & _OTHERS:
            raise Unfit(f"the vault's key {self._key_file} may be read by others; chmod 600 it")
        return bytes.fromhex(text)

    def _make_key(self) -> None:
        if any(self._home.glob(f"*{SUFFIX}")):
            return  # another key sealed those; a new one would only hide that it is missing
        self._put(self._key_file, secrets.token_hex(32).encode(), is_first=True)

    def _put(self, place: Path, content: bytes, *, is_first: bool = False) -> None:
        """Write beside the place and put it there, synced; `is_first`: whoever was there before stays."""
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside = place.with_name(f".{place.name}.{secrets.token_hex(8)}")
        try:
            with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if is_first:
                with suppress(FileExistsError):
                    os.link(beside, place)
            else:
                beside.replace(place)
            _sync(place.parent)
        except OSError as error:
            raise Unfit(f"{place} cannot be written ({error.strerror}); let its folder belong to us") from error
        finally:
            beside.unlink(missing_ok=True)


def _sync(directory: Path) -> None:
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _bound(name: str) -> bytes:
    return f"spot-runner vault 1 {name}".encode()
