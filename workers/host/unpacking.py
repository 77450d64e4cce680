"""Reading a package: every entry is hashed, and unpacked with holes where there are only zeros.

A stream is read once, from its beginning to its end, and whatever is not as it
should be is a `BadPackage` that names the entry. What was unpacked is worth
nothing before it has been compared with the manifest, which comes last.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, Final, cast

import zstandard

from workers.domain.errors import BadPackage
from workers.host.manifest import KNOWN, MANIFEST, MANIFEST_BYTES_MAX, MIB, Entry

# A monitor opens its guest's memory anew, as a user of its own; the directory says who comes so far.
UNPACKED: Final = 0o444
# What a guest begins with is what its file takes, so the holes in it should be fine; single pages cost too many calls.
HOLE: Final = 64 << 10
ZEROS: Final = bytes(MIB)
# So much compressed input at a time that even nothing but zeros does not become more than 32 MiB at once.
STEP: Final = 1 << 10

Write = Callable[[int, bytes], None]


@dataclass(frozen=True)
class Found:
    """What stands in a container."""

    sha256: str
    """Of the whole file, in hex."""
    manifest: bytes
    entries: Mapping[str, Entry]
    """Sizes are those of the entries, zeros included."""


class _Plain:
    """The content of the zstd frame, as a stream."""

    def __init__(self, source: BinaryIO) -> None:
        self.hash = hashlib.sha256()
        self._source = source
        self._decompressor = zstandard.ZstdDecompressor().decompressobj()
        self._ready = bytearray()

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, less only at the end."""
        while len(self._ready) < size and (step := self._source.read(STEP)):
            self.hash.update(step)
            self._ready += self._decompressor.decompress(step)
        chunk = bytes(self._ready[:size])
        del self._ready[:size]
        return chunk

    def finish(self) -> None:
        """Read up to the end; only zeros may be left, and the frame must end where the file ends."""
        while rest := self.read(MIB):
            if rest.count(0) != len(rest):
                raise BadPackage("package: something follows the last entry; fetch or build it again")
        if not self._decompressor.eof:
            raise BadPackage("package: the compressed stream is truncated; fetch or build it again")


def read_container(source: BinaryIO, into: Path | None = None) -> Found:
    """Read a container to its end and, if told so, unpack its devices as files of a directory. Raises `BadPackage`."""
    plain = _Plain(source)
    entries: dict[str, Entry] = {}
    manifest: list[bytes] = []
    place = "package"
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", plain), mode="r|", bufsize=MIB) as tar:
            for header in tar:
                content = _admitted(tar, header, entries)
                place = header.name
                if header.name == MANIFEST:
                    manifest.append(content.read())
                else:
                    entries[place] = _taken(content, header.size, into and into / place)
        plain.finish()
    except (tarfile.TarError, zstandard.ZstdError, EOFError) as error:
        raise BadPackage(f"{place}: corrupt or truncated ({error}); fetch or build the package again") from error
    if len(manifest) != 1:
        raise BadPackage(f"manifest: found {len(manifest)} times; this is no package, or a truncated one")
    return Found(plain.hash.hexdigest(), manifest[0], entries)


def _admitted(tar: tarfile.TarFile, header: tarfile.TarInfo, before: Mapping[str, Entry]) -> IO[bytes]:
    """Return the entry's content if a package may hold such an entry."""
    if header.name not in KNOWN:
        raise BadPackage(f"package: holds {header.name[:64]!r}, which is no entry of a package")
    if header.name in before:
        raise BadPackage(f"{header.name}: stands in the package twice")
    if header.name == MANIFEST and header.size > MANIFEST_BYTES_MAX:
        raise BadPackage(f"manifest: has {header.size} bytes, more than {MANIFEST_BYTES_MAX}")
    content = tar.extractfile(header) if header.type == tarfile.REGTYPE else None
    if content is None:
        raise BadPackage(f"{header.name}: is not a regular file")
    return content


def _taken(content: IO[bytes], size: int, path: Path | None) -> Entry:
    """Hash an entry and, if it has a path, write it there."""
    hash_ = hashlib.sha256()
    with _writing(path, size) as write, ThreadPoolExecutor(1) as beside:
        hashing: Future[None] | None = None
        for at, chunk in _chunks(content):
            if hashing is not None:
                hashing.result()
            hashing = beside.submit(hash_.update, chunk)
            write(at, chunk)
    return Entry(size, hash_.hexdigest())


def _chunks(content: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    at = 0
    while chunk := content.read(MIB):
        yield at, chunk
        at += len(chunk)


@contextmanager
def _writing(path: Path | None, size: int) -> Iterator[Write]:
    if path is None:
        yield lambda _at, _chunk: None
        return
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, UNPACKED)
    try:
        os.fchmod(fd, UNPACKED)  # whatever our umask is
        os.truncate(fd, size)
        yield lambda at, chunk: _write_data(fd, at, chunk)
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_data(fd: int, at: int, chunk: bytes) -> None:
    """Write what is not zeros; the file has been a hole until now."""
    if chunk == ZEROS:
        return
    for start in range(0, len(chunk), HOLE):
        piece = chunk[start : start + HOLE]
        if piece != ZEROS[: len(piece)]:
            os.pwrite(fd, piece, at + start)
