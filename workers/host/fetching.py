"""Getting a package out of the object store: parts, several at once, by URLs that the control plane has signed.

    index ─▶ parts that are not here yet ─▶ URL ─▶ GET ─▶ hash right? ─▶ written, noted ─┐
                  in order ─▶ hash of the whole ─▶ the package's digest? ─▶ renamed into its place

A file of the whole size lies beside the store's packages meanwhile, and a list of the parts in it that were verified:
a daemon that was killed goes on where it was. Nothing has the package's name before all of it has been verified.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import shutil
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, TypeVar

import structlog

from workers.domain.errors import BadPackage, Refused, SpotError, TryLater, Unfit
from workers.domain.names import PackageDigest
from workers.domain.published import (
    INDEX,
    INDEX_LIMIT_BYTES,
    PART_BYTES,
    Index,
    Part,
    index_stamp,
    read_index,
)
from workers.host.partial import Partial

T = TypeVar("T")
log: Final = structlog.get_logger()

# So many parts are on the line at once: what hides the store's delay.
AT_ONCE: Final = 6
# A store that does not answer for a moment is asked again; one that says no, too, with a new URL: it may have expired.
TRIES_MAX: Final = 6
AGAIN_INTERVAL_S: Final = 0.5
# One question for so many URLs, so that asking never holds a part up.
URLS_AT_ONCE: Final = 32
TELL_INTERVAL_S: Final = 2.0
MIB: Final = 1 << 20

Progress = Callable[[int, int], None]
"""Hears how many bytes of how many have arrived."""


class ControlPlane(Protocol):
    async def package_urls(self, digest: PackageDigest, names: tuple[str, ...]) -> Mapping[str, str]:
        """Return where these objects of a published package are read. Raises `Unreachable`, `TryLater` or `Refused`."""


class Objects(Protocol):
    def get(self, url: str, limit_bytes: int) -> bytes:
        """Read one object of at most so many bytes; safe for threads. Raises `TryLater`, `Refused` or `BadInput`."""


class _Teller:
    """Tells the log how far it is, now and then."""

    def __init__(self, digest: PackageDigest) -> None:
        self._digest, self._told_at = digest, float("-inf")

    def tell(self, done: int, of: int) -> None:
        if time.monotonic() - self._told_at >= TELL_INTERVAL_S:
            self._told_at = time.monotonic()
            log.info("package_arriving", package=self._digest, mib=done // MIB, of_mib=of // MIB)


class Fetcher:
    """Fetches into one directory, a package at a time."""

    def __init__(self, store: Path, control: ControlPlane, objects: Objects) -> None:
        self._store, self._control, self._objects = store, control, objects
        self._alone = asyncio.Lock()

    async def fetch(self, digest: PackageDigest, place: Path, progress: Progress | None = None) -> None:
        """Let the package lie at `place`, verified, if it does not yet; `place` is in the directory.

        Raises `BadPackage` if what the store has is not that package, `Unfit` if the disk has no room for it,
        `TryLater` or `Refused` as the store or the control plane says.
        """
        async with self._alone:
            if await asyncio.to_thread(self._is_there, place):
                return
            async with _owned(self._store / f".{place.name}.lock"):
                if not await asyncio.to_thread(self._is_there, place):
                    await self._fetch(digest, place, progress or _Teller(digest).tell)

    def _is_there(self, place: Path) -> bool:
        self._store.mkdir(parents=True, exist_ok=True)
        return place.exists()

    async def _fetch(self, digest: PackageDigest, place: Path, progress: Progress) -> None:
        pool = ThreadPoolExecutor(AT_ONCE + 1, thread_name_prefix="fetch")
        try:
            await _Fetch(self._control, self._objects, digest, pool, progress).into(place)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # what is on the line ends by its own limits


@dataclass
class _Fetch:
    """One package on its way."""

    control: ControlPlane
    objects: Objects
    digest: PackageDigest
    pool: ThreadPoolExecutor
    progress: Progress
    urls: dict[str, str] = field(default_factory=dict)
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def into(self, place: Path) -> None:
        content = await self._index()
        index = read_index(content, self.digest)
        partial = Partial(place, index, index_stamp(content))
        try:
            await self._work(partial.open)
            self.progress(partial.arrived_bytes, index.size)
            hashing = asyncio.ensure_future(self._work(partial.hash_all))
            try:
                await self._fetch_all(partial)
            except BaseException:
                partial.give_up()
                await asyncio.wait([hashing])
                raise
            found = await hashing
            if f"sha256:{found}" != self.digest:
                await self._work(partial.drop)
                raise BadPackage(
                    f"{self.digest}: what came has digest sha256:{found}; it is fetched anew, or publish it again"
                )
            await self._work(partial.put)
        except OSError as error:
            raise _no_room(error, place, index) from error
        finally:
            partial.close()
        log.info("package_fetched", package=self.digest, mib=round(index.size / MIB, 1))

    async def _index(self) -> bytes:
        try:
            return await self._insist((INDEX,), INDEX, INDEX_LIMIT_BYTES)
        except Refused as error:
            raise Refused(
                f"{self.digest}: it is not here, and the object store does not give it ({error}); run "
                f"`spot-runner package publish {self.digest}`, or bring it with the host's image"
            ) from error

    async def _fetch_all(self, partial: Partial) -> None:
        left = [number for number in range(len(partial.index.parts)) if number not in partial.here]
        left.reverse()

        async def fetch_some() -> None:
            while left:
                await self._fetch_part(partial, left.pop())

        tasks = [asyncio.create_task(fetch_some()) for _ in range(AT_ONCE)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _fetch_part(self, partial: Partial, number: int) -> None:
        parts = partial.index.parts
        part = parts[number]
        names = tuple(dict.fromkeys(one.sha256 for one in parts[number : number + URLS_AT_ONCE]))
        content = await self._insist(names, part.sha256, PART_BYTES, part)
        await self._work(partial.write, number, content)
        self.progress(partial.arrived_bytes, partial.index.size)

    async def _insist(self, names: tuple[str, ...], name: str, limit_bytes: int, part: Part | None = None) -> bytes:
        """Read one object, again if it did not come or is not what it should be. Raises what was wrong at last."""
        for tried in range(1, TRIES_MAX + 1):
            try:
                return await self._work(self._get, await self._url(names, name), limit_bytes, part)
            except (TryLater, Refused, BadPackage) as error:
                if tried == TRIES_MAX:
                    raise
                log.warning("package_part_failed", package=self.digest, object=name, because=str(error))
            self.urls.pop(name, None)
            await asyncio.sleep(AGAIN_INTERVAL_S)
        raise AssertionError  # pragma: no cover

    def _get(self, url: str, limit_bytes: int, part: Part | None) -> bytes:
        content = self.objects.get(url, limit_bytes)
        if part is not None:
            found = hashlib.sha256(content).hexdigest()
            if found != part.sha256:
                raise BadPackage(
                    f"{self.digest}: a part in the store has sha256 {found} instead of {part.sha256}; publish it again"
                )
        return content

    async def _url(self, names: tuple[str, ...], name: str) -> str:
        async with self.asking:
            if name not in self.urls:
                self.urls |= await self.control.package_urls(self.digest, names)
            return self.urls[name]

    async def _work(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.pool, work, *arguments)


@asynccontextmanager
async def _owned(path: Path) -> AsyncIterator[None]:
    """Wait for, and hold, a lock among all daemons that share the directory; it ends with the process."""
    with path.open("wb") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(AGAIN_INTERVAL_S)
        yield


def _no_room(error: OSError, place: Path, index: Index) -> SpotError:
    if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
        return Unfit(f"{index.digest}: {place.parent} cannot be written: {error.strerror}; make it writable for root")
    free = shutil.disk_usage(place.parent).free
    return Unfit(
        f"{index.digest}: the disk of {place.parent} is full: it has {free // MIB} MiB left, and the package "
        f"{index.size // MIB} MiB; give hosts of this pool a larger disk"
    )
