"""Accompany the job: a beat every 5 ms, and at every fourth a message over one TCP connection, never dialled again.

A message is `<number> <last number that was echoed>`, an echo is `<number> <Unix time at the server>`. Gaps are read
off the server's clock, since a guest's own stands still while the guest does: a gap is what lies between two messages
that each confirm a new echo, so it covers the way there and the way back. An echo with a third word is the bell:
whoever works as long as he is let finds it in the file `bell`.

Both are one process that reads echoes only when it is awake anyway: every change between processes throws away what an
emulated processor has translated, and the job is to be disturbed as little as can be.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

BEAT_S = 0.005
MESSAGE_INTERVAL_S = 0.02
CONNECT_LIMIT_S = 30.0
# What is on its way at the end must have come back by then, retransmissions included.
LAST_ECHO_LIMIT_S = 20.0
GAP_BUCKET_S = 0.1
CLOCK_BUCKET_S = 0.5
BELL = "bell"


@dataclass
class Beat:
    """The longest gap of every tenth of a second; a gap counts for the one in which it ended."""

    began: float
    last: float
    longest: float = 0.0
    gaps: list[float] = field(default_factory=list)

    def note(self, now: float) -> bool:
        """Note one beat; True if a tenth of a second has ended with it."""
        self.longest, self.last = max(self.longest, now - self.last), now
        over = int((now - self.began) / GAP_BUCKET_S) - len(self.gaps)
        if over <= 0:
            return False
        self.gaps += [*[0.0] * (over - 1), self.longest]
        self.longest = 0.0
        return True


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
    rest: bytes = b""
    is_rung: bool = False

    def speak(self, connection: socket.socket) -> None:
        """Send the next message."""
        self.sent_at.append(time.time())
        self.confirmed.append(self.last_echo)
        connection.sendall(b"%d %d\n" % (len(self.sent_at) - 1, self.last_echo))

    def listen(self, connection: socket.socket, limit_s: float) -> None:
        """Hear what has come, waiting for something at most so long."""
        if not select.select([connection], [], [], limit_s)[0]:
            return
        received = connection.recv(65536)
        if not received:
            raise ConnectionResetError("the server closed the connection")
        *lines, self.rest = (self.rest + received).split(b"\n")
        for line in lines:
            self.hear(line)

    def hear(self, line: bytes) -> None:
        number, server_at, *bell = line.split()
        self.is_rung = self.is_rung or bool(bell)
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
            bucket = int(sent_at / CLOCK_BUCKET_S)
            best[bucket] = min(best.get(bucket, arrived_at - sent_at), arrived_at - sent_at)
        return [[bucket * CLOCK_BUCKET_S, round(offset * 1000, 2)] for bucket, offset in sorted(best.items())]


def accompany(connection: socket.socket, talk: Conversation, beat: Beat, stop: Path) -> str | None:
    """Beat and talk until the file `stop` is there; return why the connection broke, None if it held."""
    broken, speaks_at = None, beat.began
    while True:
        time.sleep(BEAT_S)
        now = time.monotonic()
        if beat.note(now):
            if talk.is_rung:
                (stop.parent / BELL).touch()
            if stop.exists():
                return broken or last_echoes(connection, talk)
        if broken is None and now >= speaks_at:
            speaks_at = max(speaks_at + MESSAGE_INTERVAL_S, now)
            try:
                talk.listen(connection, 0)
                talk.speak(connection)
            except (OSError, ValueError) as error:
                broken = f"{type(error).__name__}: {error}"


def last_echoes(connection: socket.socket, talk: Conversation) -> str | None:
    """Wait for what is still on its way; return why the connection broke, None if it held."""
    end_at = time.monotonic() + LAST_ECHO_LIMIT_S
    try:
        while not talk.is_complete and time.monotonic() < end_at:
            talk.listen(connection, MESSAGE_INTERVAL_S)
    except (OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def figures_of(talk: Conversation, broken: str | None) -> dict[str, object]:
    """Return what there is to say of the connection."""
    longest_s, ended_at = talk.longest_gap()
    return {
        "survived": broken is None,
        "broken": broken,
        "messages": len(talk.sent_at),
        "lost_messages": len(talk.sent_at) - len(talk.arrived_at),
        "doubled_messages": talk.doubled,
        "longest_gap_ms": round(longest_s * 1000, 1),
        "longest_gap_at": ended_at,
        "clock_offsets_ms": talk.clock_offsets(),
    }


def main(address: str, port: str, folder: Path) -> None:
    """Accompany the job to its end and leave the figures in `witness.json`."""
    talk = Conversation()
    with socket.create_connection((address, int(port)), timeout=CONNECT_LIMIT_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began_at, began = time.time(), time.monotonic()
        beat = Beat(began, began)
        broken = accompany(connection, talk, beat, folder / "stop")
    gaps = [round(gap * 1000, 1) for gap in beat.gaps]
    figures = {
        "connection": figures_of(talk, broken),
        "beat": {"began_at": began_at, "bucket_s": GAP_BUCKET_S, "gaps_ms": gaps},
    }
    (folder / "witness.draft").write_text(json.dumps(figures))
    (folder / "witness.draft").rename(folder / "witness.json")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
