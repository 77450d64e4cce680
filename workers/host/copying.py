"""The copy of a guest's memory, while it runs: it keeps to its share of the line, and the guest is pressed if need be.

What is decided stands in workers/host/line.py and workers/host/pressing.py; here it is measured and carried out.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Protocol

import structlog

from workers.domain.errors import SpotError
from workers.domain.messages import MoveOrder
from workers.domain.migration import LINE_FIGURE
from workers.host.line import Line
from workers.host.pressing import Copying, Pressure, next_pressure
from workers.host.streams import MIB, Sent

# A speed is what was sent within the last second or a little more.
SPEED_WINDOW_S: Final = 1.0

log = structlog.get_logger()


class Guest(Protocol):
    """Whose memory it is."""

    async def press(self, cap: float) -> None:
        """Let its processors run for this part of the time only."""

    async def relieve(self) -> None:
        """Let them run as they may."""


class Streams(Protocol):
    """How it travels. Raises `SpotError` when it has ended."""

    async def set_speed(self, mib_s: float | None) -> None:
        """Carry no more than this."""

    async def allow_downtime(self, allowed_ms: int) -> None:
        """Let the guest stand for so long at the end."""

    async def copied(self) -> Sent:
        """Say how far it is."""


class Copy:
    """One guest's; `figures` is told what was measured and done."""

    def __init__(self, guest: Guest, order: MoveOrder, line: Line, figures: dict[str, float]) -> None:
        self._guest, self._order, self._line, self._figures = guest, order, line, figures
        self._pressure = Pressure()
        self._speed_limit: float | None = None
        self._sent: deque[tuple[float, int]] = deque()
        self._is_relieved = False
        self._pressing: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Take part in the line."""
        self._line.join(self._order.migration_id, self._order.share_mib_s)

    def end(self) -> None:
        """Leave the line to the others; harmless twice."""
        self._line.leave(self._order.migration_id)

    async def relieve(self) -> None:
        """Undo what was done to the guest, for good: a cap that is just being put on is waited for. Harmless twice."""
        self._is_relieved = True
        if self._pressing is not None:
            await asyncio.gather(self._pressing, return_exceptions=True)
            await self._guest.relieve()

    async def keep_share(self, streams: Streams, *, at_once: bool = False) -> None:
        """Let the streams carry what they may now; `at_once`: a stream has just been made and knows of no limit."""
        limit = self._line.limit(self._order.migration_id)
        if at_once or limit != self._speed_limit:
            self._speed_limit = limit
            await streams.set_speed(limit)

    async def look(self, streams: Streams, now: float, left_s: float) -> None:
        """Measure, decide, press. Raises `SpotError` if the copy has just ended, one way or the other."""
        seen = self._seen(await streams.copied(), now, left_s)
        await self._put_on(next_pressure(self._pressure, seen), streams)

    def _seen(self, sent: Sent, now: float, left_s: float) -> Copying:
        self._sent.append((now, sent.bytes))
        while len(self._sent) > 1 and now - self._sent[1][0] >= SPEED_WINDOW_S:
            self._sent.popleft()
        then, before = self._sent[0]
        is_known = now - then >= SPEED_WINDOW_S
        speed = (sent.bytes - before) / MIB / (now - then) if is_known else 0.0
        self._line.note(self._order.migration_id, speed)
        dirty = sent.dirty_bytes_s / MIB
        if self._line.best_mib_s:
            self._figures[LINE_FIGURE] = round(self._line.best_mib_s, 1)
        self._figures["dirty_mib_s"] = round(max(dirty, self._figures.get("dirty_mib_s", 0.0)), 1)
        return Copying(sent.round, sent.remaining_bytes / MIB, dirty, speed, left_s)

    async def _put_on(self, pressure: Pressure, streams: Streams) -> None:
        if self._is_relieved:
            return
        before, self._pressure = self._pressure, pressure
        if pressure.cap < before.cap:
            await self._cap(pressure.cap)
        if pressure.downtime_ms > before.downtime_ms:
            self._figures["downtime_allowed_ms"] = pressure.downtime_ms
            await streams.allow_downtime(pressure.downtime_ms)

    async def _cap(self, cap: float) -> None:
        self._figures["cap_percent"] = round(cap * 100)
        self._pressing = asyncio.create_task(self._guest.press(cap), name=f"press {self._order.runner.runner_id}")
        try:
            await asyncio.shield(self._pressing)
        except (OSError, SpotError) as error:  # the pause becomes longer instead
            log.warning("guest_not_pressed", runner=self._order.runner.runner_id, because=str(error))
