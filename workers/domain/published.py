"""A package in the object store: parts that are named by their hashes, and an index that is named by its digest.

    packages/<hex>/<sha256 of a part>   written in any order, by any number of publishers
    packages/<hex>/index                written last: without it there is no such package

A part's name is its content's hash, so one that is there already needs not be sent again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from workers.domain.errors import BadInput, BadPackage
from workers.domain.names import PackageDigest

VERSION: Final = 1
PREFIX: Final = "packages/"
INDEX: Final = "index"
# Large enough that a call to the store is little beside it, small enough that what is lost by an interruption is, too.
PART_BYTES: Final = 8 << 20
# 128 GiB, which is more than any package: then the index has less than 2 MiB.
PARTS_MAX: Final = 16384
INDEX_LIMIT_BYTES: Final = 2 << 20
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Part:
    """One piece of a package, without gaps behind the one before it."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Index:
    """What a package consists of."""

    digest: PackageDigest
    parts: tuple[Part, ...]
    version: int = VERSION

    @property
    def size(self) -> int:
        """Bytes of the whole."""
        return sum(part.size for part in self.parts)

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where each part begins."""
        found, at = [], 0
        for part in self.parts:
            found.append(at)
            at += part.size
        return tuple(found)


def hex_of(digest: PackageDigest) -> str:
    """Return a digest's hex digits. Raises `BadInput` if it is none."""
    algorithm, _, hex_ = digest.partition(":")
    if algorithm != "sha256" or not _SHA256.fullmatch(hex_):
        raise BadInput(f"package: {digest[:80]!r} is no digest; write sha256: and 64 hex digits")
    return hex_


def folder(digest: PackageDigest) -> str:
    """Return what every object's name of this package begins with."""
    return f"{PREFIX}{hex_of(digest)}/"


def object_name(digest: PackageDigest, name: str) -> str:
    """Name one object in the store. Raises `BadInput` for what no package has."""
    if name != INDEX and not _SHA256.fullmatch(name):
        raise BadInput(f"names: {name[:80]!r} is no object of a package; ask for {INDEX}, or a part's SHA-256 in hex")
    return folder(digest) + name


def index_bytes(index: Index) -> bytes:
    """Return the index as it lies in the store."""
    return json.dumps(asdict(index), separators=(",", ":")).encode()


def index_stamp(content: bytes) -> str:
    """Return what tells one index from another."""
    return hashlib.sha256(content).hexdigest()


def read_index(content: bytes, digest: PackageDigest) -> Index:
    """Read an index; raises `BadPackage` if it is none, or another package's."""
    try:
        index = _understood(json.loads(content))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadPackage(f"{digest}: its index in the store is not understood ({error}); publish it again") from error
    if index.digest != digest:
        raise BadPackage(f"{digest}: its index in the store is that of {index.digest}; publish it again")
    return index


def missing(index: Index, sizes: Mapping[str, int]) -> str | None:
    """Say what of a package is not in the store, None if it is whole; `sizes` are those of its objects, by name."""
    for part in index.parts:
        found = sizes.get(object_name(index.digest, part.sha256))
        if found != part.size:
            return f"{part.sha256}: the store has {'nothing' if found is None else f'{found} bytes'}, not {part.size}"
    return None


def _understood(read: Any) -> Index:  # noqa: ANN401 any JSON
    if read["version"] != VERSION:
        raise ValueError(f"version {read['version']} instead of {VERSION}")
    if not isinstance(read["parts"], list) or not 0 < len(read["parts"]) <= PARTS_MAX:
        raise ValueError(f"a package has 1 to {PARTS_MAX} parts")
    parts = tuple(Part(**part) for part in read["parts"])
    for part in parts:
        if type(part.size) is not int or not 0 < part.size <= PART_BYTES:
            raise ValueError(f"a part's size is {part.size}")
        if not isinstance(part.sha256, str) or not _SHA256.fullmatch(part.sha256):
            raise ValueError("a part's sha256 is no hash")
    return Index(PackageDigest(str(read["digest"])), parts)
