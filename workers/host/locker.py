"""One park's objects in the store, as this host reaches them: by URLs that are each good for one object and one method.

    seal or open ─▶ name ─▶ URL (asked of the control plane, many at once) ─▶ PUT or GET ─▶ again, if it failed

All of it happens in some threads of its own, since sealing and TLS are work; the event loop only waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import structlog

from workers.domain.errors import Refused, TryLater
from workers.domain.messages import ParkOrder
from workers.domain.names import MigrationId
from workers.domain.park import (
    MANIFEST,
    MANIFEST_LIMIT_BYTES,
    PARTS_MAX,
    SEALED_LIMIT_BYTES,
    Manifest,
    Part,
    Stream,
    manifest_bytes,
    manifest_hash,
    part_name,
    read_manifest,
)
from workers.host.parts import ControlPlane, Objects
from workers.host.sealing import Seal

T = TypeVar("T")
log: Final = structlog.get_logger()

# So many parts are sealed or on the line at once: what hides the store's delay and leaves the guest its processors.
AT_ONCE: Final = 4
# A store that does not answer for a moment is asked again; one that says no, too, with a new URL: it may have expired.
TRIES_MAX: Final = 6
AGAIN_INTERVAL_S: Final = 0.5
# One question for so many URLs, so that asking never holds a part up.
URLS_AT_ONCE: Final = 32


class Locker:
    """Raises `TryLater` or `Refused` when the store cannot be reached, `BadInput` for what is not what it should be.

    Whoever puts waits for a silent store until it is cancelled, which the order's deadline does: nothing else can be
    done for a guest that has to leave. Whoever gets gives up, since another host may have the better line.
    """

    def __init__(self, migration_id: MigrationId, park: ParkOrder, control: ControlPlane, objects: Objects) -> None:
        self._migration_id, self._park = migration_id, park
        self._control, self._objects = control, objects
        self._seal = Seal(park.park_id, park.key)
        self._urls: dict[str, str] = {}
        self._asking = asyncio.Lock()
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix=f"park {park.park_id}")
        self.stored_bytes = 0
        """What has arrived in the store, or from it."""

    def close(self) -> None:
        """Begin nothing any more; what is under way ends by its own limits."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def put_part(self, name: str, contents: bytes) -> Part:
        """Seal a part and see it into the store."""
        part, sealed = await self._work(self._seal.close_part, name, contents)
        await self._insist(name, lambda url: self._objects.put(url, sealed), silent_max=None)
        self.stored_bytes += len(sealed)
        return part

    async def put_manifest(self, manifest: Manifest) -> str:
        """Write the list of all parts, the last that is written; return its hash, for the row."""
        content = manifest_bytes(manifest)
        await self._insist(MANIFEST, lambda url: self._objects.put(url, content), silent_max=None)
        return manifest_hash(content)

    async def manifest(self) -> Manifest:
        """Read the list that the row refers to."""
        content = await self._insist(MANIFEST, lambda url: self._objects.get(url, MANIFEST_LIMIT_BYTES))
        return read_manifest(content, self._park.park_id, self._park.manifest)

    async def contents(self, stream: Stream, parts: Sequence[Part]) -> AsyncIterator[bytes]:
        """Yield a stream's parts in their order, some of them fetched ahead."""
        ahead: list[asyncio.Task[bytes]] = []
        try:
            for number, part in enumerate(parts):
                ahead.append(asyncio.create_task(self._part(part_name(stream, number), part)))
                ahead[-1].add_done_callback(_heard)
                if len(ahead) >= AT_ONCE:
                    yield await ahead.pop(0)
            while ahead:
                yield await ahead.pop(0)
        finally:
            for task in ahead:
                task.cancel()

    async def _part(self, name: str, part: Part) -> bytes:
        sealed = await self._insist(name, lambda url: self._objects.get(url, SEALED_LIMIT_BYTES))
        self.stored_bytes += len(sealed)
        return await self._work(self._seal.open_part, name, part, sealed)

    async def _insist(self, name: str, attempt: Callable[[str], T], silent_max: int | None = TRIES_MAX) -> T:
        refused = silent = 0
        while True:
            try:
                return await self._work(attempt, await self._url(name))
            except TryLater as error:
                silent += 1
                if silent == silent_max:
                    raise
                log.warning("store_silent", object=name, because=str(error))
            except Refused:
                refused += 1
                if refused == TRIES_MAX:
                    raise
            self._urls.pop(name, None)
            await asyncio.sleep(AGAIN_INTERVAL_S)

    async def _url(self, name: str) -> str:
        async with self._asking:
            if name not in self._urls:
                self._urls |= await self._control.object_urls(self._migration_id, _neighbours(name))
            return self._urls[name]

    async def _work(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)


def _heard(part: asyncio.Task[Any]) -> None:
    """Take notice of what befell a part: whoever is told of the first one asks for no other."""
    if not part.cancelled():
        part.exception()


def _neighbours(name: str) -> tuple[str, ...]:
    """Return the names that are asked for together with this one: its block, whichever of it is asked for first."""
    stream, _, number = name.partition("-")
    if not number:
        return (name,)
    first = int(number) - int(number) % URLS_AT_ONCE
    return tuple(part_name(Stream(stream), each) for each in range(first, min(first + URLS_AT_ONCE, PARTS_MAX)))


class Shipment:
    """One stream on its way into the store, part by part; so many at once, then whoever writes has to wait."""

    def __init__(self, locker: Locker, stream: Stream, room: asyncio.Semaphore) -> None:
        self._locker, self._stream, self._room = locker, stream, room
        self._parts: list[asyncio.Task[Part]] = []
        self.content_bytes = 0

    async def add(self, contents: bytes) -> None:
        """Take the next part; returns when there is room for another one. Raises what befell an earlier one."""
        await self._room.acquire()
        for part in self._parts:
            if part.done():
                part.result()
        name = part_name(self._stream, len(self._parts))
        task = asyncio.create_task(self._locker.put_part(name, contents))
        task.add_done_callback(lambda _: self._room.release())
        task.add_done_callback(_heard)
        self._parts.append(task)
        self.content_bytes += len(contents)

    async def all(self) -> tuple[Part, ...]:
        """Return every part once all of them are in the store. Raises what befell one of them."""
        return tuple([await part for part in self._parts])

    def drop(self) -> None:
        """Send nothing any more."""
        for part in self._parts:
            part.cancel()
