"""The file of a backup: one tar that names what it holds and its digests, and is never half written.

    beside (0600) ──synced──▶ linked to its name, if nothing has that name ──▶ beside removed

Whatever is read back is checked against the list before anybody uses it.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import secrets
import tarfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from pydantic import TypeAdapter, ValidationError

from workers.domain.errors import BadInput, Unfit

LIST: Final = "backup.json"
EDITION: Final = 1
# Far more than the list of a backup's few files takes.
LIST_MAX: Final = 1 << 20
AT_ONCE: Final = 1 << 20
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]*(?:/[a-z0-9][a-z0-9._-]*)?")


@dataclass(frozen=True)
class Contents:
    """What a backup says of itself."""

    edition: int
    made_at: str
    mark: str
    """Six digits of the deployment's authority, which the names of its hosts and runners carry."""
    revision: str
    """Of the store's schema."""
    sha256: Mapping[str, str]
    """Each file's name and digest."""


_CONTENTS: Final = TypeAdapter(Contents)


def pack(place: Path, parts: Mapping[str, Path], made_at: str, mark: str, revision: str) -> None:
    """Write these files, each under its name, to a new file that only we may read.

    Raises `BadInput` if something is there already, `Unfit` if it cannot be written; then nothing is left.
    """
    if place.exists():
        raise BadInput(f"{place} is there already; name a file that is not, no backup is ever overwritten")
    contents = Contents(EDITION, made_at, mark, revision, {name: _digest(file) for name, file in parts.items()})
    beside = place.with_name(f".{place.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            with tarfile.open(fileobj=file, mode="w") as tar:
                _put(tar, LIST, _CONTENTS.dump_json(contents))
                for name, part in parts.items():
                    with part.open("rb") as content:
                        _put(tar, name, content)
            file.flush()
            os.fsync(file.fileno())
        os.link(beside, place)
        sync(place.parent)
    except OSError as error:
        raise Unfit(f"{place} cannot be written ({error.strerror}); nothing was left there") from error
    finally:
        beside.unlink(missing_ok=True)


def unpack(place: Path, into: Path) -> Contents:
    """Write a backup's files below this directory, which is empty; returns what it says of itself.

    Raises `BadInput` unless all of it is there and nothing has changed.
    """
    try:
        with tarfile.open(place, "r:") as tar:
            contents = _list(tar, place)
            found = {member.name: _take(tar, member, into) for member in tar if member.name != LIST}
    except (OSError, tarfile.TarError, EOFError) as error:
        raise BadInput(
            f"{place} cannot be read as a backup ({error}); name one that spot-runner backup made"
        ) from error
    for name in contents.sha256.keys() | found.keys():
        if contents.sha256.get(name) != found.get(name):
            raise BadInput(f"{place} is damaged: {name} is not what its list says; use another backup")
    return contents


def sync(directory: Path) -> None:
    """Put on the disk which files a directory has."""
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _list(tar: tarfile.TarFile, place: Path) -> Contents:
    first = tar.next()
    content = tar.extractfile(first) if first is not None and first.name == LIST and first.size <= LIST_MAX else None
    if content is None:
        raise BadInput(f"{place} is no backup: it does not begin with {LIST}; name one that spot-runner backup made")
    with suppress(ValidationError):
        contents = _CONTENTS.validate_json(content.read())
        if contents.edition == EDITION:
            return contents
    raise BadInput(f"{place} was made by another edition of spot-runner; restore it with that one, or a newer one")


def _take(tar: tarfile.TarFile, member: tarfile.TarInfo, into: Path) -> str:
    """Write one file, and return its digest. Nothing but plain files with our kind of names is taken."""
    content = tar.extractfile(member) if member.isfile() and _NAME.fullmatch(member.name) else None
    if content is None:
        raise BadInput(f"the backup holds {member.name!r}, which none of ours does; use another backup")
    place, digest = into / member.name, hashlib.sha256()
    place.parent.mkdir(mode=0o700, exist_ok=True)
    with os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        while some := content.read(AT_ONCE):
            file.write(some)
            digest.update(some)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _put(tar: tarfile.TarFile, name: str, content: bytes | IO[bytes]) -> None:
    told = tarfile.TarInfo(name)
    told.mode = 0o600
    stream = io.BytesIO(content) if isinstance(content, bytes) else content
    told.size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    tar.addfile(told, stream)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
