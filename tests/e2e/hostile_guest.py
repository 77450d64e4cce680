"""Runs as root inside a guest and does what a test tells it, over one connection to the test's internet.

    test ──[function, arguments] as a line of JSON──▶ this program ──what the function returned, as a line──▶ test

Nothing but its text comes into the guest, so it stands alone.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any

LIMIT_S = 60.0
# For so long an answer may stay away after the control has answered in the same round.
SILENCE_S = 2.0
MESSAGE_INTERVAL_S = 0.02
PING = struct.pack("!BBHHH", 8, 0, 0xF7FE, 0, 1)
# Its checksum is the kernel's business, and so is the header of what comes back.
PING6 = struct.pack("!BBHHH", 128, 0, 0, 0, 1)
# By family: where the answer's kind stands, and the kind that is an echo.
ECHO_REPLY = {socket.AF_INET: (20, 0), socket.AF_INET6: (0, 129)}
# How the kernel tells us that a machine answered: nobody listens there, but somebody is there.
ANSWERED = {errno.ECONNREFUSED, errno.ECONNRESET}

Target = tuple[str, str, int]
Try = tuple[str, str, socket.socket]

floods: list[int] = []


def probe(control: Target, targets: list[Target], routes: list[str]) -> list[tuple[str, str]]:
    """Return who answered to what, as (name, kind); the control must be among them, or nothing is proved."""
    subprocess.run(["ip", "-batch", "-"], input="\n".join(routes), text=True, check=True, timeout=LIMIT_S)
    tries = [attempt for target in (control, *targets) for attempt in _tries(*target)]
    wanted, answered = {(control[0], kind) for kind in ("tcp", "udp", "ping")}, set[tuple[str, str]]()
    end = limit = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        for name, kind, attempt in tries:
            if (name, kind) not in answered and _is_answered(kind, attempt):
                answered.add((name, kind))
        if wanted <= answered and end == limit:
            end = time.monotonic() + SILENCE_S
        time.sleep(0.2)
    for _, _, attempt in tries:
        attempt.close()
    return sorted(answered)


def _tries(name: str, address: str, port: int) -> list[Try]:
    family, icmp = socket.AF_INET, socket.IPPROTO_ICMP
    if ":" in address:
        family, icmp = socket.AF_INET6, socket.IPPROTO_ICMPV6
    kinds = {
        "tcp": socket.socket(family, socket.SOCK_STREAM),
        "udp": socket.socket(family, socket.SOCK_DGRAM),
        "ping": socket.socket(family, socket.SOCK_RAW, icmp),
    }
    for attempt in kinds.values():
        attempt.setblocking(False)
        attempt.connect_ex((address, port))
    return [(name, kind, attempt) for kind, attempt in kinds.items()]


def _is_answered(kind: str, attempt: socket.socket) -> bool:
    """Ask (again, where nothing else would) and look whether anybody has answered meanwhile."""
    try:
        if kind == "tcp":
            attempt.getpeername()
            return True
        ping = PING if attempt.family == socket.AF_INET else PING6
        attempt.send(ping if kind == "ping" else b"are you there")
        answer, (place, reply) = attempt.recv(4096), ECHO_REPLY[attempt.family]
        while kind == "ping" and answer[place] != reply:  # a router's refusal of something else
            answer = attempt.recv(4096)
    except OSError as error:
        failure = attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if kind == "tcp" else error.errno
        return failure in ANSWERED
    return True


class Conversation:
    """Numbered messages, one every 20 ms whatever comes back; each must come back once and in its turn."""

    def __init__(self) -> None:
        self.sent = self.returned = 0
        self.trouble = ""
        self._ended = threading.Event()

    def begin(self, address: str, port: int) -> None:
        self._connection = socket.create_connection((address, port), timeout=LIMIT_S)
        self._sending, receiving = (
            threading.Thread(target=self._watch, args=(work,), daemon=True) for work in (self._send, self._receive)
        )
        for thread in (self._sending, receiving):
            thread.start()

    def progress(self) -> list[Any]:
        return [self.sent, self.returned, self.trouble]

    def end(self) -> list[Any]:
        self._ended.set()
        self._sending.join(LIMIT_S)
        limit = time.monotonic() + LIMIT_S
        while self.returned < self.sent and not self.trouble and time.monotonic() < limit:
            time.sleep(0.05)
        self._connection.shutdown(socket.SHUT_RDWR)
        return self.progress()

    def _watch(self, work: Any) -> None:  # noqa: ANN401 - a bound method
        try:
            work()
        except (OSError, ValueError) as error:
            self.trouble = self.trouble or repr(error)

    def _send(self) -> None:
        while not self._ended.wait(MESSAGE_INTERVAL_S):
            self.sent += 1
            self._connection.sendall(struct.pack("!Q", self.sent))

    def _receive(self) -> None:
        with self._connection.makefile("rb") as stream:
            while message := stream.read(8):
                if message != struct.pack("!Q", self.returned + 1):
                    raise ValueError(f"after message {self.returned} came {message.hex()}")
                self.returned += 1


def send_frame(frame: str) -> int:
    with _wire() as wire:
        return wire.send(bytes.fromhex(frame))


def flood(frames: list[str]) -> None:
    """Send these past this guest's own kernel, over and over, as fast as it can, until `calm`."""
    octets = [bytes.fromhex(frame) for frame in frames]
    if child := os.fork():
        floods.append(child)
        return
    with _wire() as wire:
        for frame in itertools.cycle(octets):
            with suppress(OSError):
                wire.send(frame)


def calm() -> None:
    while floods:
        os.kill(floods[-1], signal.SIGKILL)
        os.waitpid(floods.pop(), 0)


def _wire() -> socket.socket:
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    wire.bind(("eth0", 0))
    return wire


def main(number: int, address: str, port: int) -> None:
    """Say who we are, then obey until the test hangs up."""
    talk = Conversation()
    functions = [probe, send_frame, flood, calm, talk.begin, talk.progress, talk.end]
    known: dict[str, Any] = {function.__name__: function for function in functions}
    with socket.create_connection((address, port), timeout=LIMIT_S) as desk:
        desk.settimeout(None)
        with desk.makefile("rw") as lines:
            print(number, file=lines, flush=True)
            for line in lines:
                function, *arguments = json.loads(line)
                print(json.dumps(known[function](*arguments)), file=lines, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
