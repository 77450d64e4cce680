"""A package that is whole in every respect but small, and what can be done to it."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import zstandard

from tests.fakes.classes import EMULATED
from workers.domain.host_class import Acceleration, HostClass
from workers.host.bill import bill_of, debian_part
from workers.host.machine import Machine
from workers.host.manifest import FORMAT, MIB, Entry, Kernel, Manifest, RunnerProgram

HOST = EMULATED
SIZES = {"state": 39_001, "memory": MIB, "kernel": 70_000, "disk": 2 * MIB, "config": 22, "initrd": 4096}


def write_devices(directory: Path) -> dict[str, Path]:
    """Make devices like a template's: memory and disk are mostly holes."""
    paths = {name: directory / name for name in SIZES}
    for name, path in paths.items():
        with path.open("wb") as file:
            file.truncate(SIZES[name])
            for place in range(0, SIZES[name], MIB):
                file.seek(place)
                file.write(f"{name} at {place}".encode()[: SIZES[name]])
    return paths


def small_manifest(entries: Mapping[str, Entry]) -> Manifest:
    return Manifest(
        format=FORMAT,
        name="small",
        created_at=datetime(2026, 11, 23, tzinfo=UTC),
        host_class=HOST,
        machine=Machine("pc-q35-7.2", Acceleration.TCG, "max", 1, SIZES["memory"] // MIB),
        disk_mib=SIZES["disk"] // MIB,
        kernel=Kernel("6.1.0", "console=ttyS0", is_pvm_guest=False),
        runner=RunnerProgram("rehearsal-runner", "0.1.0", date(2026, 11, 23)),
        bill=bill_of("small", [debian_part("python3", "3.11", "amd64", "debian")]),
        rootfs_sha256="0" * 64,
        entries=entries,
    )


def on(**changes: object) -> HostClass:
    """Return another host's class."""
    return replace(HOST, **changes)  # type: ignore[arg-type]  # a test knows the fields


Part = tuple[tarfile.TarInfo, bytes]


def rewritten(package: bytes, change: Callable[[list[Part]], list[Part]]) -> bytes:
    """Take a package apart, change the list of its entries, and put it together again."""
    plain = zstandard.ZstdDecompressor().decompressobj().decompress(package)
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        parts = [(header, tar.extractfile(header).read()) for header in tar]  # type: ignore[union-attr]  # files only
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for header, content in change(parts):
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return zstandard.ZstdCompressor(write_checksum=True).compress(target.getvalue())
