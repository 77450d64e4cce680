"""Putting a package into the object store: in parts, several at once, and only those that are not there yet.

    file ─▶ part ─▶ its hash ─▶ there already? ─ no ─▶ written ─┐
      └────────────▶ hash of the whole ─▶ the package's digest? ─┴─▶ index, which makes it a package

Interrupted and started again it goes on; done twice it changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from workers.domain.errors import BadPackage, TryLater
from workers.domain.names import PackageDigest
from workers.domain.published import INDEX, PART_BYTES, Index, Part, folder, index_bytes, object_name

# What hides a store's delay.
AT_ONCE: Final = 4
TRIES_MAX: Final = 4

Progress = Callable[[int, int], None]
"""Hears how many bytes of how many are in the store."""


class Store(Protocol):
    """The object store. Raises `Unreachable` or another `TryLater`, or `Refused`."""

    def listed(self, prefix: str) -> Mapping[str, int]:
        """Return the name and the size in bytes of every object whose name begins so."""

    def write(self, name: str, content: bytes) -> None:
        """Put one object in its place, as a whole."""


@dataclass(frozen=True)
class Published:
    """What came of it."""

    index: Index
    sent_bytes: int
    """The rest was there already."""


def publish(
    path: Path, digest: PackageDigest, store: Store, progress: Progress = lambda _done, _all: None
) -> Published:
    """Put this file into the store as the package of this digest.

    Raises `BadPackage` if it is not that package, and then there is none in the store; `TryLater` or `Refused` as the
    store says.
    """
    there = store.listed(folder(digest))
    try:
        with path.open("rb") as source:
            sender = _Sender(digest, store, there, path.stat().st_size, progress)
            index = sender.send(source)
    except OSError as error:
        raise BadPackage(f"package: {path} cannot be read: {error.strerror}; name one that can") from error
    content = index_bytes(index)
    # Written even if one is there: it may have been cut otherwise.
    _insist(lambda: store.write(object_name(digest, INDEX), content))
    return Published(index, sender.sent_bytes)


class _Sender:
    def __init__(
        self, digest: PackageDigest, store: Store, there: Mapping[str, int], size: int, progress: Progress
    ) -> None:
        self._digest, self._store, self._there, self._size = digest, store, dict(there), size
        self._progress, self._done = progress, 0
        self.sent_bytes = 0

    def send(self, source: BinaryIO) -> Index:
        """See every part into the store; return the index once the whole is what it should be."""
        whole, parts, under_way = hashlib.sha256(), list[Part](), dict[Future[None], Part]()
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="publish") as pool:
            for content in _pieces(source):
                whole.update(content)
                part = Part(len(content), hashlib.sha256(content).hexdigest())
                parts.append(part)
                if self._is_there(part):
                    self._count(part)
                    continue
                self._there[object_name(self._digest, part.sha256)] = part.size
                while len(under_way) >= AT_ONCE:
                    self._settle(under_way)
                under_way[pool.submit(self._write, part, content)] = part
            while under_way:
                self._settle(under_way)
        if f"sha256:{whole.hexdigest()}" != self._digest:
            raise BadPackage(
                f"package: the file has digest sha256:{whole.hexdigest()}, not {self._digest}; build it again"
            )
        return Index(self._digest, tuple(parts))

    def _is_there(self, part: Part) -> bool:
        """Stores keep objects whole, so what has the name and the size has the content, too."""
        return self._there.get(object_name(self._digest, part.sha256)) == part.size

    def _write(self, part: Part, content: bytes) -> None:
        _insist(lambda: self._store.write(object_name(self._digest, part.sha256), content))

    def _settle(self, under_way: dict[Future[None], Part]) -> None:
        done, _ = wait(under_way, return_when=FIRST_COMPLETED)
        for one in done:
            part = under_way.pop(one)
            one.result()
            self.sent_bytes += part.size
            self._count(part)

    def _count(self, part: Part) -> None:
        self._done += part.size
        self._progress(self._done, self._size)


def _pieces(source: BinaryIO) -> Iterator[bytes]:
    while content := source.read(PART_BYTES):
        yield content


def _insist(write: Callable[[], None]) -> None:
    """Write again what a store did not take for a moment. Raises what it says at last."""
    for _ in range(TRIES_MAX - 1):
        try:
            return write()
        except TryLater:
            continue
    return write()
