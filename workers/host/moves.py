"""What both sides of a migration do alike: read the row, say words, take one event after the other.

    row ──RowRead──┐                                ┌──▶ commands to QEMU
    QEMU ──events──┼─▶ queue ─▶ protocol (no I/O) ──┤
    clock ──limit──┘                                └──▶ a word, said by the row's reader

One request about the row is under way at a time, so a word goes over a connection that is warm. If this code fails it
goes on as a restarted daemon would: from the journal and the row.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from typing import Final

import structlog

from workers.domain.errors import Refused, SpotError
from workers.domain.messages import MoveOrder, RenewalRequest, RowView, Word
from workers.domain.migration import Said
from workers.host.microvm import Microvm
from workers.host.tls import MoveKeys

# The row must have been reached within the last second before anybody pauses, so it is read three times a second.
READ_INTERVAL_S: Final = 0.3
ROW_LIMIT_S: Final = 1.0
SILENT_LIMIT_S: Final = 1.0
WATCH_INTERVAL_S: Final = 0.25
AGAIN_INTERVAL_S: Final = 1.0
# Said until they are answered, since nobody else knows.
INSISTENT: Final = frozenset({Said.RUNNING, Said.WIPED})

log = structlog.get_logger()


class Pace:
    """How long to wait before the next read: quickly first, then slower and slower."""

    def __init__(self, first_s: float, most_s: float) -> None:
        self._first_s = self._next_s = first_s
        self._most_s = most_s

    def next(self) -> float:
        """Return the next wait."""
        wait, self._next_s = self._next_s, min(self._next_s * 1.3, self._most_s)
        return wait

    def reset(self) -> None:
        """Begin quickly again."""
        self._next_s = self._first_s


class Move(ABC):
    """One side of one migration, until the row has decided and what was decided is so."""

    def __init__(self, microvm: Microvm, order: MoveOrder) -> None:
        self.microvm = microvm
        self.order = order
        self.figures: dict[str, float] = {}
        self.ends_at = time.monotonic() + order.seconds_left
        """When the source is taken away, as last heard, by this process's clock."""
        self._queue: asyncio.Queue[object] = asyncio.Queue()
        self._word: Said | None = None
        self._last_word: Said | None = None
        self._is_saying = self._is_silent = False
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    # ------------------------------------------------------------ what a side is

    @property
    @abstractmethod
    def has_decided(self) -> bool:
        """Nothing is left for the protocol."""

    @property
    @abstractmethod
    def reason(self) -> str:
        """Why it is being aborted."""

    @abstractmethod
    async def take(self, event: object) -> None:
        """Take one event from the queue and carry out what follows."""

    @abstractmethod
    def read(self, view: RowView) -> object:
        """Return the event that a reading of the row is."""

    @abstractmethod
    def silent(self) -> object | None:
        """Return the event that a silent row is."""

    @abstractmethod
    def pace(self) -> float:
        """Return how long to wait before the row is read again."""

    @abstractmethod
    def beside(self) -> tuple[Coroutine[None, None, None], ...]:
        """Return what runs beside the queue until the end."""

    @abstractmethod
    async def begin(self) -> None:
        """Put the first events into the queue."""

    @abstractmethod
    async def conclude(self) -> None:
        """Write down what has become of the guest here."""

    @abstractmethod
    def recover(self) -> None:
        """Forget everything, as a restart would."""

    async def keys(self) -> MoveKeys:
        """Make a key for our part in this move and have it signed. Raises `SpotError` if that cannot be now."""
        parts, move = self.microvm.parts, self.order.migration_id
        key, request = parts.make_csr(parts.host_id)
        answer = await parts.control.move_certificate(move, RenewalRequest(request))
        return MoveKeys(key, answer.certificate, answer.hosts_ca)

    # ------------------------------------------------------------ the course of it

    def follow(self, settle: Callable[[Move], Awaitable[None]]) -> None:
        """See it to its end in the background."""
        self._task = asyncio.create_task(self._follow(settle), name=f"{self.order.migration_id}")

    async def leave(self) -> None:
        """Stop following; the row and QEMU stay as they are."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    def put(self, event: object | None) -> None:
        """Put an event behind the others; None only makes the queue look whether all is over."""
        self._queue.put_nowait(event)

    def say(self, said: Said) -> None:
        """Say a word as soon as the request that is under way has been answered; a repeated one keeps the pace."""
        self._word = said
        if said is not self._last_word:
            self._wake.set()

    async def _follow(self, settle: Callable[[Move], Awaitable[None]]) -> None:
        while True:
            try:
                await self._run()
                break
            except Exception:
                log.exception("migration_stumbled", migration=self.order.migration_id, host=self.microvm.parts.host_id)
                await asyncio.sleep(AGAIN_INTERVAL_S)
                self._queue, self._word, self._last_word = asyncio.Queue(), None, None
                self.recover()
        await settle(self)

    async def _run(self) -> None:
        await self.begin()
        async with asyncio.TaskGroup() as group:
            beside = [group.create_task(work) for work in (self._read_row(), *self.beside())]
            while not self._is_over():
                if (event := await self._queue.get()) is not None:
                    await self.take(event)
            for task in beside:
                task.cancel()
        await self.conclude()

    def _is_over(self) -> bool:
        return self.has_decided and self._word is None and not self._is_saying

    async def _read_row(self) -> None:
        heard_at = time.monotonic()
        while True:
            self._wake.clear()
            view = await self._ask()
            if view is not None:
                heard_at, self._is_silent = time.monotonic(), False
                self.ends_at = heard_at + view.seconds_left
                self.put(self.read(view))
            else:
                self.put(self.silent() if time.monotonic() - heard_at > SILENT_LIMIT_S else None)
            await self._rest()

    async def _ask(self) -> RowView | None:
        word, self._word = self._word, None
        self._is_saying, self._last_word = word is not None, word or self._last_word
        control, migration_id = self.microvm.parts.control, self.order.migration_id
        try:
            async with asyncio.timeout(ROW_LIMIT_S):
                if word is None:
                    return await control.row(migration_id)
                return await control.say(migration_id, word, self._body())
        except (SpotError, TimeoutError) as error:
            if word is not None or not self._is_silent:
                log.info("row_silent", migration=migration_id, said=word, because=str(error))
            self._is_silent = True
            if word in INSISTENT and self._word is None and not isinstance(error, Refused):
                self._word = word
            return None
        finally:
            self._is_saying = False

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(self.pace()):
                await self._wake.wait()
        except TimeoutError:
            return

    def _body(self) -> Word:
        return Word(self.order.runner.epoch, dict(self.figures), self.reason or None)
