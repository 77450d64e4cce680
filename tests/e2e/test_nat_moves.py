"""A real guest that leaves through its host: its program waits for an answer, is moved, and is told at once."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from tests.e2e.engine_rig import LIMIT_S, Rig, runner_package
from tests.e2e.scripted_guest import scripted_package
from workers.domain.messages import StartOrder
from workers.domain.migration import MigrationPhase
from workers.domain.overlay import GuestNetwork

pytestmark = [pytest.mark.root, pytest.mark.guest, pytest.mark.timeout(600)]

INTERNET, PORT = "198.18.0.10", 7000
FINISHED, ABORTED = MigrationPhase.FINISHED, MigrationPhase.ABORTED
PUBLIC = {"a": "198.18.0.16", "b": "198.18.0.17"}
PROGRAM = f"""
import socket
def call():
    return socket.create_connection(("{INTERNET}", {PORT}), timeout={LIMIT_S})
with call() as first:
    first.settimeout(None)
    first.sendall(b"waiting")
    try:
        told = repr(first.recv(1))
    except OSError as error:
        told = type(error).__name__
with call() as second:
    second.sendall(told.encode())
    second.recv(1)
"""


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    rig = Rig(scripted_package(runner_package()), ("a", "b"))
    try:
        for name, address in PUBLIC.items():
            rig._site.plug(rig[name].place, "eth1", f"internet {address}/24")
        yield rig
    finally:
        rig.end()


def said(connection: socket.socket) -> str:
    connection.settimeout(LIMIT_S)
    return connection.recv(100).decode()


def test_a_program_that_only_waits_is_told_after_the_move_and_calls_again_from_there(rig: Rig) -> None:
    internet = rig._site.add("net", eth0=f"internet {INTERNET}/24")
    order = replace(rig.order(730), network=GuestNetwork.NAT)
    engine, inside = rig["a"].engine, rig["a"].inside
    with closing(internet.listen(INTERNET, PORT)) as listening:
        listening.settimeout(LIMIT_S)
        inside.run(engine.boot(order))
        inside.run(engine.start_runner(order.runner_id, StartOrder(1, PROGRAM)))
        first, (caller, _) = listening.accept()
        with closing(first):
            assert (said(first), caller) == ("waiting", PUBLIC["a"])
            row = rig.begin(order, "a", "b", seconds=120.0)
            assert (
                rig.rows.wait(row.id, MigrationPhase.FINISHED, MigrationPhase.ABORTED).phase is MigrationPhase.FINISHED
            )
            second, (caller, _) = listening.accept()
            with closing(second):
                assert (said(second), caller) == ("ConnectionAbortedError", PUBLIC["b"])
        assert rig["b"].wait_ended(order.runner_id) == 0
