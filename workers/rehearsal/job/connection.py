"""Hold one TCP connection for as long as the job runs, one message every 20 ms, and never dial again.

A message is `<number> <last number that was echoed>`, an echo is `<number> <Unix time at the server>`. Gaps are read
off the server's clock, since a guest's own stands still while the guest does: a gap is what lies between two messages
that each confirm a new echo, so it covers the way there and the way back.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

BEAT_S = 0.02
CONNECT_LIMIT_S = 30.0
# What is on its way at the end must have come back by then, retransmissions included.
LAST_ECHO_LIMIT_S = 20.0
BUCKET_S = 0.5
# Looking for the file at every beat would cost an emulated processor as much as the beat itself.
STOP_INTERVAL_BEATS = 25


@dataclass
class Conversation:
    """What was said and what came back."""

    sent_at: list[float] = field(default_factory=list)
    """By this machine's clock, one for each message."""
    confirmed: list[int] = field(default_factory=list)
    """The last echo known when each message was sent, -1 before the first."""
    arrived_at: dict[int, float] = field(default_factory=dict)
    """By the server's clock."""
    doubled: int = 0
    last_echo: int = -1

    def message(self) -> bytes:
        self.sent_at.append(time.time())
        self.confirmed.append(self.last_echo)
        return b"%d %d\n" % (len(self.sent_at) - 1, self.last_echo)

    def hear(self, line: bytes) -> None:
        number, server_at = line.split()
        if int(number) in self.arrived_at:
            self.doubled += 1
        self.arrived_at[int(number)] = float(server_at)
        self.last_echo = int(number)

    @property
    def is_complete(self) -> bool:
        return len(self.arrived_at) >= len(self.sent_at)

    def longest_gap(self) -> tuple[float, float]:
        """Return the longest gap in seconds and when it ended, by the server's clock."""
        longest, ended_at, confirmed, since = 0.0, 0.0, -1, None
        for number, arrived_at in sorted(self.arrived_at.items()):
            if number < len(self.confirmed) and self.confirmed[number] > confirmed:
                confirmed = self.confirmed[number]
                if since is not None and arrived_at - since > longest:
                    longest, ended_at = arrived_at - since, arrived_at
                since = arrived_at
        return longest, ended_at

    def clock_offsets(self) -> list[list[float]]:
        """Return [moment, server's clock minus ours in ms] for each half second: the quickest message tells best."""
        best: dict[int, float] = {}
        for number, arrived_at in self.arrived_at.items():
            sent_at = self.sent_at[number]
            bucket = int(sent_at / BUCKET_S)
            best[bucket] = min(best.get(bucket, arrived_at - sent_at), arrived_at - sent_at)
        return [[bucket * BUCKET_S, round(offset * 1000, 2)] for bucket, offset in sorted(best.items())]


def converse(connection: socket.socket, talk: Conversation, stop: Path) -> None:
    """Send on the beat and hear what comes, until the file `stop` is there and every echo has come."""
    rest, next_at, end_at = b"", time.monotonic(), 0.0
    while not (end_at and (talk.is_complete or time.monotonic() > end_at)):
        wait_s = BEAT_S if end_at else max(0.0, next_at - time.monotonic())
        if select.select([connection], [], [], wait_s)[0]:
            received = connection.recv(65536)
            if not received:
                raise ConnectionResetError("the server closed the connection")
            *lines, rest = (rest + received).split(b"\n")
            for line in lines:
                talk.hear(line)
        if not end_at and time.monotonic() >= next_at:
            connection.sendall(talk.message())
            next_at = max(next_at + BEAT_S, time.monotonic())
            if len(talk.sent_at) % STOP_INTERVAL_BEATS == 0 and stop.exists():
                end_at = time.monotonic() + LAST_ECHO_LIMIT_S


def main(address: str, port: str, folder: Path) -> None:
    """Converse until the job's end and leave the figures in `connection.json`."""
    talk, broken = Conversation(), None
    try:
        with socket.create_connection((address, int(port)), timeout=CONNECT_LIMIT_S) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            converse(connection, talk, folder / "stop")
    except (OSError, ValueError) as error:
        broken = f"{type(error).__name__}: {error}"
    longest_s, ended_at = talk.longest_gap()
    figures = {
        "survived": broken is None,
        "broken": broken,
        "messages": len(talk.sent_at),
        "lost_messages": len(talk.sent_at) - len(talk.arrived_at),
        "doubled_messages": talk.doubled,
        "longest_gap_ms": round(longest_s * 1000, 1),
        "longest_gap_at": ended_at,
        "clock_offsets_ms": talk.clock_offsets(),
        "cpu_s": round(time.process_time(), 2),
    }
    (folder / "connection.draft").write_text(json.dumps(figures))
    (folder / "connection.draft").rename(folder / "connection.json")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
