"""A park: one guest in the object store, in pieces that only its own key opens.

    park ─┬─ memory-000000, memory-000001, ...   what the monitor sent, cut into parts
          ├─ disk-000000, disk-000001, ...       blocks of the overlay, a later one takes the place of an earlier one
          └─ manifest                            written last: names every part with its size and hash

The manifest's own hash stands in the migration's row, so that the row, and with it COMMITTED, refers to every byte.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum, auto
from typing import Any, Final

from workers.domain.errors import BadInput
from workers.domain.names import MigrationId

VERSION: Final = 1
PREFIX: Final = "parks/"
MANIFEST: Final = "manifest"
MANIFEST_LIMIT_BYTES: Final = 1 << 20
# A part in the store: 8 MiB of contents, compressed at best, and some bytes more at worst.
PART_BYTES: Final = 8 << 20
SEALED_LIMIT_BYTES: Final = PART_BYTES + (64 << 10)
# 16 GiB for each stream, which no runner comes near.
PARTS_MAX: Final = 2048
_NAME: Final = re.compile(r"(?:memory|disk)-[0-9]{6}|manifest")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class ObjectMethod(StrEnum):
    """What a URL of the store is good for."""

    GET = "GET"
    PUT = "PUT"


class Stream(StrEnum):
    """What a guest consists of."""

    MEMORY = auto()
    DISK = auto()


@dataclass(frozen=True)
class Part:
    """One piece of a stream, as it lies in the store."""

    sealed_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a park consists of; whoever reads it back needs nothing else but the key."""

    park_id: MigrationId
    memory: tuple[Part, ...]
    disk: tuple[Part, ...]
    overlay_bytes: int
    """How long the overlay's file was."""
    version: int = VERSION

    def parts(self, stream: Stream) -> tuple[Part, ...]:
        """Return the parts of one stream in their order."""
        return self.memory if stream is Stream.MEMORY else self.disk

    def sizes(self) -> Mapping[str, int]:
        """Return every part's name and its size in the store."""
        return {
            part_name(stream, number): part.sealed_bytes
            for stream in Stream
            for number, part in enumerate(self.parts(stream))
        }


def part_name(stream: Stream, number: int) -> str:
    """Name one part of a park."""
    return f"{stream}-{number:06d}"


def object_name(park_id: MigrationId, name: str) -> str:
    """Name one object in the store. Raises `BadInput` for what no park has."""
    if not _NAME.fullmatch(name) or int(name.rpartition("-")[2] if "-" in name else 0) >= PARTS_MAX:
        raise BadInput(f"names: {name!r} is no object of a park; ask for memory-000000, disk-000000, ... or manifest")
    return f"{PREFIX}{park_id}/{name}"


def park_of(name: str) -> MigrationId | None:
    """Return the park that this object of the store belongs to, None if it is no park's."""
    prefix, _, rest = name.partition("/")
    return MigrationId(rest.partition("/")[0]) if f"{prefix}/" == PREFIX and "/" in rest else None


def manifest_bytes(manifest: Manifest) -> bytes:
    """Return the manifest as it lies in the store."""
    return json.dumps(asdict(manifest), separators=(",", ":")).encode()


def manifest_hash(content: bytes) -> str:
    """Return what stands in the row for this manifest."""
    return hashlib.sha256(content).hexdigest()


def read_manifest(content: bytes, park_id: MigrationId, sha256: str | None) -> Manifest:
    """Return the manifest that the row refers to. Raises `BadInput` if this is another one."""
    if manifest_hash(content) != sha256:
        raise BadInput(f"{park_id}: manifest: its hash is not the row's; this park is of no use, resume another copy")
    try:
        manifest = _understood(json.loads(content))
    except (ValueError, TypeError, KeyError) as error:
        raise BadInput(f"{park_id}: manifest: not understood ({error}); park with the same version") from error
    if manifest.park_id != park_id:
        raise BadInput(f"{park_id}: manifest: it is that of {manifest.park_id}; give the key of the right park")
    return manifest


def missing(manifest: Manifest, sizes: Mapping[str, int]) -> str | None:
    """Say what of a park is not in the store as the manifest has it, None if it is whole."""
    for name, wanted in manifest.sizes().items():
        found = sizes.get(name)
        if found != wanted:
            return f"{name}: the store has {'nothing' if found is None else f'{found} bytes'} instead of {wanted} bytes"
    return None


def _understood(read: Any) -> Manifest:  # noqa: ANN401 any JSON
    if read["version"] != VERSION:
        raise ValueError(f"version {read['version']} instead of {VERSION}")
    overlay_bytes = read["overlay_bytes"]
    if not isinstance(overlay_bytes, int) or overlay_bytes < 0:
        raise ValueError("overlay_bytes is no size")
    memory, disk = _parts(read["memory"]), _parts(read["disk"])
    return Manifest(MigrationId(str(read["park_id"])), memory, disk, overlay_bytes)


def _parts(read: Any) -> tuple[Part, ...]:  # noqa: ANN401 any JSON
    if not isinstance(read, list) or len(read) > PARTS_MAX:
        raise ValueError(f"a stream has at most {PARTS_MAX} parts")
    parts = tuple(Part(**part) for part in read)
    for part in parts:
        if not isinstance(part.sealed_bytes, int) or not 0 < part.sealed_bytes <= SEALED_LIMIT_BYTES:
            raise ValueError(f"sealed_bytes is {part.sealed_bytes}")
        if not _SHA256.fullmatch(str(part.sha256)):
            raise ValueError("sha256 is no hash")
    return parts
