"""What a drill does to the wires between two hosts is felt by their connections, and mended without a trace."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from workers.rehearsal import places as at
from workers.rehearsal import remains
from workers.rehearsal.commands import run
from workers.rehearsal.drill.wires import Wires
from workers.rehearsal.places import Places, host_address
from workers.rehearsal.remains import Journal
from workers.rehearsal.topology import Plug, Topology, standing_in

pytestmark = pytest.mark.root

LIMIT_S = 10.0
LATE_S = 0.3
NEAR_S = 0.15
A, B = "spot-host-a", "spot-host-b"
ADDRESS = {A: host_address(0), B: host_address(1)}
PORT = 7000
WORD = bytes(5000)


@dataclass
class Hosts:
    places: Places
    wires: Wires

    def connect(self, limit_s: float = LIMIT_S) -> socket.socket:
        """Connect from A to B."""
        with standing_in(self.places.namespace(A)):
            return socket.create_connection((ADDRESS[B], PORT), timeout=limit_s)

    def traces(self) -> str:
        inside = [("ip", "netns", "exec", self.places.namespace(one)) for one in (A, B)]
        questions = (("ip", "rule"), ("ip", "link"), ("nft", "list", "ruleset"), ("tc", "qdisc"))
        return "\n".join(run(*one, *question) for one in inside for question in questions)


def answer(listener: socket.socket) -> None:
    """Send back what comes over every connection."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=mirror, args=(connection,)).start()


def mirror(connection: socket.socket) -> None:
    connection.settimeout(LIMIT_S)
    try:
        while received := connection.recv(65536):
            connection.sendall(received)
    except OSError:
        pass
    finally:
        connection.close()


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    places = Places(f"w{os.getpid() % 1000000}")
    with remains.alone(places):
        remains.sweep(places)
        journal = Journal(places.journal)
        topology = Topology(places, journal)
        topology.build()
        for number, host in enumerate((A, B)):
            topology.add_namespace(host)
            topology.wire(host, Plug("eth0", at.UNDERLAY, ADDRESS[host]), port=f"host{number}")
        with standing_in(places.namespace(B)):
            listener = socket.create_server((ADDRESS[B], PORT))
        threading.Thread(target=answer, args=(listener,)).start()
        yield Hosts(places, Wires(places, journal))
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        remains.sweep(places)
        shutil.rmtree(places.logs, ignore_errors=True)


def round_trip(connection: socket.socket) -> float:
    """Return the seconds that a word of several packets takes there and back."""
    began, received = time.monotonic(), 0
    connection.sendall(WORD)
    while received < len(WORD):
        received += len(connection.recv(65536))
    return time.monotonic() - began


def test_a_host_that_is_far_away_answers_late_until_it_is_near_again(hosts: Hosts) -> None:
    before = hosts.traces()
    with hosts.connect() as connection:
        assert round_trip(connection) < NEAR_S
        mend = hosts.wires.part(B, ADDRESS[B], ADDRESS[A], LATE_S)
        assert round_trip(connection) >= LATE_S
        began = time.monotonic()
        hosts.connect().close()
        assert time.monotonic() - began >= LATE_S
        mend()
        assert round_trip(connection) < NEAR_S
    assert hosts.traces() == before


def test_only_that_address_is_far_away(hosts: Hosts) -> None:
    mend = hosts.wires.part(B, ADDRESS[B], str(at.CONTROL_UNDERLAY), LATE_S)
    with hosts.connect() as connection:
        assert round_trip(connection) < NEAR_S
    mend()


def test_a_cut_wire_is_silent_and_goes_on_where_it_was(hosts: Hosts) -> None:
    before = hosts.traces()
    with hosts.connect() as connection:
        round_trip(connection)
        mend = hosts.wires.cut(B, ADDRESS[A])
        connection.settimeout(NEAR_S)
        with pytest.raises(TimeoutError):
            round_trip(connection)
        connection.settimeout(LIMIT_S)
        mend()
        assert connection.recv(1)
    assert hosts.traces() == before


def test_a_refusing_wire_ends_every_connection_at_once(hosts: Hosts) -> None:
    with hosts.connect() as connection:
        mend = hosts.wires.cut(B, ADDRESS[A], "meta l4proto tcp reject with tcp reset")
        began = time.monotonic()
        with pytest.raises(ConnectionError):
            round_trip(connection)
        with pytest.raises(ConnectionRefusedError):
            hosts.connect()
        assert time.monotonic() - began < 1
        mend()
    hosts.connect().close()


def test_a_slow_wire_carries_five_megabits(hosts: Hosts) -> None:
    mend = hosts.wires.slow(A)
    with hosts.connect() as connection:
        began = time.monotonic()
        for _ in range(60):
            round_trip(connection)
        assert time.monotonic() - began > 60 * len(WORD) * 8 / 5_000_000 / 2
    mend()
