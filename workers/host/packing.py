"""Writing a package: one zstd frame around a tar whose entries are devices, as Drafter lays them out.

    | state 0… | memory 0… | kernel 0… | disk 0… | config 0… | initrd 0… | manifest |

Behind each device stand zeros up to the next MiB, and one MiB more. Memory and
disk are mostly zeros, and their holes are not read.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final

import zstandard

from workers.host.manifest import MANIFEST, MIB, Entry, padded

LEVEL: Final = 3
ZEROS: Final = bytes(MIB)


def write_container(
    target: BinaryIO, devices: Mapping[str, Path], manifest: Callable[[Mapping[str, Entry]], bytes]
) -> str:
    """Write the devices in this order and the manifest last; return the SHA-256 of what was written, in hex.

    The same devices and the same manifest make the same bytes.
    """
    stream = _Stream(target)
    entries = {name: _write_device(stream, name, path) for name, path in devices.items()}
    text = manifest(entries)
    stream.write(_header(MANIFEST, len(text)))
    stream.write(text + bytes(-len(text) % tarfile.BLOCKSIZE))
    stream.write(bytes(2 * tarfile.BLOCKSIZE))
    return stream.finish()


class _Stream:
    """Compresses on all processors and hashes what comes out."""

    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        self._hash = hashlib.sha256()
        self._frame = zstandard.ZstdCompressor(level=LEVEL, threads=-1, write_checksum=True).compressobj()

    def write(self, chunk: bytes) -> None:
        self._put(self._frame.compress(chunk))

    def finish(self) -> str:
        self._put(self._frame.flush())
        return self._hash.hexdigest()

    def _put(self, compressed: bytes) -> None:
        self._hash.update(compressed)
        self._target.write(compressed)


def _write_device(stream: _Stream, name: str, path: Path) -> Entry:
    device = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(device).st_size
        stream.write(_header(name, padded(size)))
        hash_ = hashlib.sha256()
        for chunk in _chunks(device, size):
            hash_.update(chunk)
            stream.write(chunk)
    finally:
        os.close(device)
    return Entry(size, hash_.hexdigest())


def _chunks(device: int, size: int) -> Iterator[bytes]:
    """Yield the file, hole by hole and piece by piece, and the zeros behind it."""
    at = 0
    while at < size:
        filled_at = _data_after(device, at, size)
        chunk = ZEROS[: filled_at - at] if filled_at > at else os.pread(device, MIB, at)
        yield chunk
        at += len(chunk)
    yield bytes(-size % MIB)
    yield ZEROS


def _data_after(device: int, at: int, size: int) -> int:
    try:
        return os.lseek(device, at, os.SEEK_DATA)
    except OSError:
        return size  # nothing but a hole up to the end


def _header(name: str, size: int) -> bytes:
    header = tarfile.TarInfo(name)
    header.size = size
    header.mode = 0o444
    return header.tobuf(tarfile.GNU_FORMAT)
