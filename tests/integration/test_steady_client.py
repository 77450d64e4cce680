"""The steady client against a real Redis: every request is counted, answered or not, right or wrong."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from workers.rehearsal.remains import wait_until
from workers.rehearsal.steady.client import Exchange, converse

LIMIT_S = 20.0
RATE = 500.0


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    socket = tmp_path / "redis.sock"
    command = ["redis-server", "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(tmp_path)]
    with (tmp_path / "redis.log").open("wb") as log:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        assert wait_until(socket.exists, LIMIT_S)
        yield socket, child
    finally:
        child.kill()
        child.wait()


def asked(socket: Path, seconds: float = 1.0) -> Exchange:
    async def ask() -> Exchange:
        reader, writer = await asyncio.open_unix_connection(socket)
        ended = asyncio.Event()
        asyncio.get_running_loop().call_later(seconds, ended.set)
        async with asyncio.timeout(LIMIT_S):
            return await converse(reader, writer, RATE, ended)

    return asyncio.run(ask())


def test_a_healthy_server_answers_every_request_rightly(redis: tuple[Path, subprocess.Popen[bytes]]) -> None:
    told = asked(redis[0]).figures()
    assert told["failed"] == 0
    assert told["requests"] >= RATE / 2


def test_what_a_dying_server_does_not_answer_has_failed(redis: tuple[Path, subprocess.Popen[bytes]]) -> None:
    socket, child = redis

    async def ask() -> Exchange:
        reader, writer = await asyncio.open_unix_connection(socket)
        child.send_signal(signal.SIGSTOP)  # it stands still with requests unanswered, and then it is killed
        asyncio.get_running_loop().call_later(0.5, child.kill)
        async with asyncio.timeout(LIMIT_S):
            return await converse(reader, writer, RATE, asyncio.Event())

    told = asyncio.run(ask()).figures()
    assert told["failed"] == told["requests"] > 0


def test_a_wrong_answer_has_failed_and_the_longest_stall_is_told_with_its_end() -> None:
    exchange = Exchange()
    for _ in range(4):
        exchange.ask()
    for answer, now in ((b"OK", 1.0), (b"0", 1.01), (b"OK", 1.51), (b"0", 1.52)):
        exchange.hear(answer, now, now + 100)
    assert exchange.is_complete
    assert exchange.figures() == {
        "requests": 4, "failed": 1, "longest_stall_ms": pytest.approx(500), "longest_stall_at": pytest.approx(101.51),
    }  # fmt: skip
