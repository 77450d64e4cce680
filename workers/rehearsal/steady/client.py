"""The steady client: so many requests a second over one connection, whatever the answers do, until it is told to end.

It waits for the guest to dial, and then asks: every second request reads what the one before has written. It asks on
time even while answers are late, as many clients at once would, so a pause delays the requests of that pause.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

CONNECTED: Final = "connected"
KEYS: Final = 1000
# What is on its way at the end must be answered by then, retransmissions included.
LAST_ANSWER_LIMIT_S: Final = 10.0
ANSWER_MAX: Final = 64 * 1024


@dataclass
class Exchange:
    """What was asked and what came back, in order. No I/O."""

    sent: int = 0
    answered: int = 0
    wrong: int = 0
    longest_stall_s: float = 0.0
    longest_stall_at: float = 0.0
    """Unix time at which it ended."""
    _expected: deque[bytes] = field(default_factory=deque)
    _last: float | None = None

    def ask(self) -> bytes:
        """Return the next request, in Redis's protocol."""
        key, value = b"k%d" % (self.sent // 2 % KEYS), b"%d" % (self.sent // 2)
        is_read = self.sent % 2
        self.sent += 1
        self._expected.append(value if is_read else b"OK")
        words = [b"GET", key] if is_read else [b"SET", key, value]
        return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)

    def hear(self, answer: bytes, now: float, at: float) -> None:
        """Take the next answer; `now` by a clock that never goes back, `at` as Unix time."""
        self.answered += 1
        if answer != self._expected.popleft():
            self.wrong += 1
        if self._last is not None and now - self._last > self.longest_stall_s:
            self.longest_stall_s, self.longest_stall_at = now - self._last, at
        self._last = now

    @property
    def is_complete(self) -> bool:
        return not self._expected

    def figures(self) -> dict[str, float]:
        """Return what there is to say; whatever was not answered has failed."""
        return {
            "requests": self.sent,
            "failed": self.sent - self.answered + self.wrong,
            "longest_stall_ms": round(self.longest_stall_s * 1000, 1),
            "longest_stall_at": self.longest_stall_at,
        }


async def answers(reader: asyncio.StreamReader, exchange: Exchange) -> None:
    """Hear until the connection ends."""
    while kind := (await reader.readline()).rstrip():
        answer = kind[1:]
        if kind.startswith(b"$"):
            answer = (await reader.readexactly(int(answer) + 2))[:-2]
        exchange.hear(answer, time.monotonic(), time.time())


async def converse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate: float, ended: asyncio.Event
) -> Exchange:
    """Ask at this rate (requests a second) until `ended`, then wait for what is on its way."""
    exchange, hearing = Exchange(), None
    hearing = asyncio.create_task(answers(reader, exchange))
    began = time.monotonic()
    with contextlib.suppress(ConnectionError):
        while not ended.is_set() and not hearing.done():
            while exchange.sent < (time.monotonic() - began) * rate:
                writer.write(exchange.ask())
            await writer.drain()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), 1 / rate)
    end = time.monotonic() + LAST_ANSWER_LIMIT_S
    while not exchange.is_complete and not hearing.done() and time.monotonic() < end:
        await asyncio.wait((hearing,), timeout=1 / rate)
    writer.close()
    hearing.cancel()
    return exchange


async def serve(address: str, port: int, rate: float, figures: Path) -> None:
    """Wait for the guest, converse, and leave the figures in the file."""
    ended, over = asyncio.Event(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)

    async def welcome(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sys.stdout.write(f"{CONNECTED}\n")
        sys.stdout.flush()
        exchange = await converse(reader, writer, rate, ended)
        draft = figures.with_suffix(".draft")
        draft.write_text(json.dumps(exchange.figures()))
        draft.rename(figures)
        over.set()

    async with await asyncio.start_server(welcome, address, port, limit=ANSWER_MAX):
        await over.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", required=True, help="ADDRESS:PORT at which the guest dials in")
    parser.add_argument("--rate", type=float, required=True, help="requests a second")
    parser.add_argument("--figures", type=Path, required=True)
    told = parser.parse_args()
    address, _, port = told.listen.rpartition(":")
    asyncio.run(serve(address, int(port), told.rate, told.figures))


if __name__ == "__main__":
    main()
