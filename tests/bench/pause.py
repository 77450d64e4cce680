"""`python -m tests.bench.pause`: what a connection feels of a pause whose packets are dropped, and if they were held.

    far end ── relay ── host a │ host b ── guest      the guest stands still for P ms, then it is on the other host

Dropped: what comes for the guest meanwhile is lost, as it is today. Held: it waits at the tap that the guest left, and
the guest gets it when it goes on, which is the best that any queue could do. No microVM is needed: a guest that stands
still is a wire on which nothing moves either way.
"""

from __future__ import annotations

import argparse
import itertools
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.console import Console

from tests.integration.relayed import CONTROL, INTERNET, RELAY, Host, World, make_host
from tests.integration.wires import CALL_LIMIT_S, Guest, Site
from workers.relay.network import RelayNetwork
from workers.relay.server import Forwarder

INTERVAL_S = 0.02
PORT, NUMBER = 7100, 1
SETTLE_S = 1.5
"""Longer than anything that a pause leaves behind: the next one meets a connection at rest."""
PATTERNS = {
    "the guest receives a message every 20 ms": "down",
    "the guest sends a message every 20 ms": "up",
    "the guest asks, hears the answer, asks again after 20 ms": "ask",
}


@contextmanager
def opened_world() -> Iterator[World]:
    site = Site(f"h7p{os.getpid()}")
    try:
        relay = site.add("relay", eth0=f"underlay {RELAY}/24", eth1="internet 198.18.0.3/24")
        control = site.add("control", eth0=f"underlay {CONTROL}/24")
        internet = site.add("net", eth0=f"internet {INTERNET}/24")
        a, b = make_host(site, "a", "10.90.0.16"), make_host(site, "b", "10.90.0.17")
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "forwarding.json"
            forwarder = relay.call(Forwarder, RelayNetwork(RELAY, "eth1", ()), file)
            yield World(site, a, b, relay, control, internet, forwarder, file)
    finally:
        site.remove()


class Talk:
    """One connection with one pattern; knows when the last messages arrived."""

    def __init__(self, near: socket.socket, far: socket.socket, pattern: str) -> None:
        self._ends = {"down": (far, near), "up": (near, far), "ask": (near, near)}[pattern]
        self._far, self._pattern = far, pattern
        self._arrivals: list[float] = []
        self._ended = threading.Event()
        works = [self._ask, self._echo] if pattern == "ask" else [self._send, self._receive]
        self._threads = [threading.Thread(target=work, daemon=True) for work in works]
        for thread in self._threads:
            thread.start()

    def longest_gap_ms(self) -> float:
        """Return the longest gap since this was asked last."""
        arrivals, self._arrivals = self._arrivals, self._arrivals[-1:]
        return max(later - earlier for earlier, later in itertools.pairwise(arrivals)) * 1000

    def end(self) -> None:
        self._ended.set()
        for one in self._ends:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(CALL_LIMIT_S)

    def _send(self) -> None:
        while not self._ended.wait(INTERVAL_S):
            self._ends[0].sendall(bytes(8))

    def _receive(self) -> None:
        with suppress(OSError):
            while self._ends[1].recv(8):
                self._arrivals.append(time.monotonic())

    def _ask(self) -> None:
        while not self._ended.wait(INTERVAL_S):
            self._ends[0].sendall(bytes(8))
            self._ends[0].recv(8)
            self._arrivals.append(time.monotonic())

    def _echo(self) -> None:
        with suppress(OSError):
            while said := self._far.recv(8):
                self._far.sendall(said)


@dataclass(frozen=True)
class Pause:
    """How long the guest stands still, how much later the relay points to its new host, what becomes of packets."""

    ms: int
    late_ms: int
    hold: bool

    def __str__(self) -> str:
        return f"pause {self.ms} ms, relay {self.late_ms} ms later, {'held' if self.hold else 'dropped'}"


def pause_and_move(world: World, guest: Guest, source: Host, target: Host, epoch: int, pause: Pause) -> None:
    """Let the guest stand still, then let it go on at the target."""
    tap, former = target.open(NUMBER), guest.cable.host_end
    assert former is not None
    until = time.monotonic() + pause.ms / 1000
    guest.cable.freeze()
    target.place.call(target.network.attach, NUMBER)
    threading.Event().wait(max(0.0, until - time.monotonic()))
    if not pause.late_ms:
        world.point(NUMBER, target, epoch)
    guest.cable.plug(tap)
    if pause.late_ms:
        threading.Event().wait(pause.late_ms / 1000)
        world.point(NUMBER, target, epoch)
    while pause.hold:
        try:
            os.write(guest.cable.guest_end, os.read(former, 65536))
        except BlockingIOError:
            break
    source.place.call(source.network.close, NUMBER)
    os.close(former)


def gaps(world: World, guest: Guest, pattern: str, pause: Pause | None, moves: range) -> list[float]:
    """Return the longest gap around each of so many pauses."""
    with (
        closing(world.internet.listen(INTERNET, PORT)) as listening,
        closing(guest.place.connect(INTERNET, PORT)) as near,
        closing(listening.accept()[0]) as far,
    ):
        for end in (near, far):
            end.settimeout(CALL_LIMIT_S)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        talk, found = Talk(near, far, pattern), []
        for move in moves:
            threading.Event().wait(SETTLE_S)
            talk.longest_gap_ms()
            if pause is not None:
                ways = (world.a, world.b) if move % 2 == 0 else (world.b, world.a)
                pause_and_move(world, guest, *ways, move + 2, pause)
            threading.Event().wait(SETTLE_S)
            found.append(talk.longest_gap_ms())
        talk.end()
        return found


def main() -> None:
    """Measure every pattern with every pause, dropped and held."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--moves", type=int, default=10, help="for each figure; even, so that the guest comes back")
    parser.add_argument("--pauses", type=int, nargs="+", default=[50, 150], help="in milliseconds")
    parser.add_argument("--late", type=int, nargs="+", default=[0, 30], help="how much later the relay points, in ms")
    options = parser.parse_args()
    ways = itertools.product(options.pauses, options.late, (False, True))
    console = Console(soft_wrap=True)
    pauses = [None, *(Pause(*way) for way in ways)]
    with opened_world() as world:
        guest, moves = world.guest_on(world.a, NUMBER), itertools.count(0, options.moves)
        for (what, pattern), pause in itertools.product(PATTERNS.items(), pauses):
            first = next(moves)
            found = gaps(world, guest, pattern, pause, range(first, first + options.moves))
            console.print(
                f"{what}; {pause or 'no pause'}: longest gap {median(found):.0f} ms, at most {max(found):.0f} ms"
            )
        guest.cable.end()


if __name__ == "__main__":
    main()
