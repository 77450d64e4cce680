"""The manifest: the package's last entry, which says what the others are and which machine they were made for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from workers.domain.errors import BadPackage
from workers.domain.host_class import HostClass
from workers.host.machine import Machine

FORMAT: Final = 3
MANIFEST: Final = "manifest"
MANIFEST_BYTES_MAX: Final = 1 << 20
REQUIRED: Final = ("state", "memory", "kernel", "disk", "config", "initrd")
"""Drafter's readers ask for all but the last, which QEMU needs to be the same machine again."""
OPTIONAL: Final = ("oci",)
KNOWN: Final = frozenset((*REQUIRED, *OPTIONAL, MANIFEST))
MIB: Final = 1 << 20

_STRICT: Final = ConfigDict(extra="forbid")


@with_config(_STRICT)
@dataclass(frozen=True)
class Entry:
    """One device of the package."""

    size: int
    """Bytes of the device itself, without the zeros behind it."""
    sha256: str
    """Hex, over the entry as it stands in the package, the zeros behind it included."""


@with_config(_STRICT)
@dataclass(frozen=True)
class Kernel:
    """The guest's kernel."""

    version: str
    command_line: str
    is_pvm_guest: bool


@with_config(_STRICT)
@dataclass(frozen=True)
class RunnerProgram:
    """The runner program inside; GitHub refuses versions that are too old."""

    name: str
    version: str
    released: date


@with_config(_STRICT)
@dataclass(frozen=True)
class Manifest:
    """What a package says of itself."""

    format: int
    name: str
    """Of the recipe."""
    created_at: datetime
    host_class: HostClass
    """Of the host that the snapshot was taken on: what the guest has seen."""
    machine: Machine
    disk_mib: int
    kernel: Kernel
    runner: RunnerProgram
    bill: Mapping[str, Any]
    """What is inside: CycloneDX 1.5 (see `workers.host.bill`)."""
    rootfs_sha256: str
    """Hex, of the disk before its first boot: the same for the same inputs, unlike the one in the package."""
    entries: Mapping[str, Entry]


_ADAPTER: Final = TypeAdapter(Manifest)


def padded(size: int) -> int:
    """Return the size of the entry for a device of this size."""
    return -(-size // MIB) * MIB + MIB


def written(manifest: Manifest) -> bytes:
    """Return the manifest as it stands in a package."""
    return _ADAPTER.dump_json(manifest, indent=1)


def read(text: bytes) -> Manifest:
    """Read a manifest; raises `BadPackage` naming the first field that is wrong."""
    facts = _object(text)
    if facts.get("format") != FORMAT:
        raise BadPackage(f"manifest: format is {facts.get('format')!r}, this version reads {FORMAT}; build it anew")
    try:
        manifest = _ADAPTER.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"])
        raise BadPackage(f"manifest: {place}: {first['msg']}") from error
    _check_entries(manifest)
    if manifest.bill.get("bomFormat") != "CycloneDX" or not isinstance(manifest.bill.get("components"), list):
        raise BadPackage("manifest: bill: no CycloneDX bill of materials; build the package anew")
    return manifest


def _object(text: bytes) -> dict[str, Any]:
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadPackage(f"manifest: not JSON ({error})") from error
    if not isinstance(facts, dict):
        raise BadPackage("manifest: not an object")
    return facts


def _check_entries(manifest: Manifest) -> None:
    if missing := [name for name in REQUIRED if name not in manifest.entries]:
        raise BadPackage(f"manifest: {missing[0]} is not named among the entries")
    if unknown := [name for name in manifest.entries if name not in REQUIRED + OPTIONAL]:
        raise BadPackage(f"manifest: {unknown[0]!r} is no entry that a package has")
    for name, mib in (("memory", manifest.machine.memory_mib), ("disk", manifest.disk_mib)):
        if manifest.entries[name].size != mib << 20:
            raise BadPackage(f"manifest: {name} has {manifest.entries[name].size} bytes, the machine has {mib} MiB")
