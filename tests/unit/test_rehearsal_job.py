"""What the job claims about its connection, its beat and its disk must be so."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from workers.rehearsal import internet
from workers.rehearsal.job import disk, witness, work
from workers.rehearsal.job.witness import Beat, Conversation
from workers.rehearsal.remains import wait_until

LIMIT_S = 20.0


def talk(echoes: list[tuple[int, float]], confirmed: list[int]) -> Conversation:
    """A conversation in which message n confirmed `confirmed[n]` and these echoes came."""
    conversation = Conversation(sent_at=[0.0] * len(confirmed), confirmed=confirmed)
    for number, at in echoes:
        conversation.hear(f"{number} {at}".encode())
    return conversation


def test_a_gap_lies_between_two_messages_that_each_confirm_an_echo() -> None:
    steady = talk([(0, 1.00), (1, 1.02), (2, 1.04)], [-1, 0, 1])
    assert steady.longest_gap()[0] == pytest.approx(0.02)
    stalled = talk([(0, 1.00), (1, 1.02), (2, 1.32), (3, 1.34)], [-1, 0, 1, 2])
    longest_s, ended_at = stalled.longest_gap()
    assert longest_s == pytest.approx(0.30)
    assert ended_at == 1.32


def test_a_way_back_that_is_blocked_shows_although_messages_still_arrive() -> None:
    blocked = talk([(n, 1 + n / 50) for n in range(20)], [-1, 0, *[1] * 16, 17, 18])
    assert blocked.longest_gap()[0] == pytest.approx(16 / 50)


def test_lost_and_doubled_echoes_are_counted() -> None:
    conversation = talk([(0, 1.0), (2, 1.1), (2, 1.2)], [-1, 0, 1])
    assert not conversation.is_complete
    assert conversation.doubled == 1


class EchoServer:
    """One connection, answered line by line; `answer` may say several lines, none, or hang up with None."""

    def __init__(self, answer: Callable[[int], list[str] | None]) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(LIMIT_S)
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._serve, args=(answer,))
        self.thread.start()

    def _serve(self, answer: Callable[[int], list[str] | None]) -> None:
        peer, _ = self.listener.accept()
        with self.listener, peer, peer.makefile("rb") as lines:
            for line in lines:
                said = answer(int(line.split()[0]))
                if said is None:
                    return
                peer.sendall("".join(f"{one}\n" for one in said).encode())


def converse(folder: Path, answer: Callable[[int], list[str] | None]) -> dict[str, Any]:
    server = EchoServer(answer)
    witness.main("127.0.0.1", str(server.port), folder)
    server.thread.join(LIMIT_S)
    figures: dict[str, Any] = json.loads((folder / "witness.json").read_text())
    return figures


def stopping_after(folder: Path, last: int, echo: Callable[[int], list[str]]) -> Callable[[int], list[str] | None]:
    def answer(number: int) -> list[str]:
        if number >= last:
            (folder / "stop").touch()
        return echo(number)

    return answer


def test_a_connection_that_holds_says_so(tmp_path: Path) -> None:
    figures = converse(tmp_path, stopping_after(tmp_path, 5, lambda number: [f"{number} {100 + number / 50}"]))
    connection = figures["connection"]
    assert (connection["survived"], connection["lost_messages"], connection["doubled_messages"]) == (True, 0, 0)
    assert connection["messages"] >= 6
    assert max(figures["beat"]["gaps_ms"]) >= witness.BEAT_S * 1000


def test_a_connection_that_is_cut_says_so_and_is_not_dialled_again(tmp_path: Path) -> None:
    def cut(number: int) -> list[str] | None:
        if number == 3:
            (tmp_path / "stop").touch()
            return None
        return [f"{number} {100 + number / 50}"]

    connection = converse(tmp_path, cut)["connection"]
    assert connection["survived"] is False
    assert connection["lost_messages"] >= 1


def test_the_beat_keeps_the_longest_gap_of_each_tenth_of_a_second_and_where_it_ended() -> None:
    beat = Beat(began=100.0, last=100.0)
    ended = [beat.note(100 + at) for at in (0.05, 0.09, 0.101, 0.15, 0.42, 0.501)]
    assert ended == [False, False, True, False, True, True]
    assert beat.gaps == pytest.approx([0.05, 0.0, 0.0, 0.27, 0.081])


def test_a_single_changed_byte_on_the_disk_is_seen(tmp_path: Path) -> None:
    assert disk.write(tmp_path, 128)
    assert disk.verify(tmp_path, 128)
    with (tmp_path / "random").open("r+b") as file:
        file.seek(77 << 20)
        byte = file.read(1)
        file.seek(77 << 20)
        file.write(bytes([byte[0] ^ 1]))
    assert not disk.verify(tmp_path, 128)
    assert json.loads((tmp_path / "disk.json").read_text()) == {"disk": False}


def test_a_file_that_became_shorter_is_seen(tmp_path: Path) -> None:
    (tmp_path / "random").write_bytes(b"short")
    (tmp_path / "random.sha256").write_text("f9b0078b5df596d2ea19010c001bbd009e651de2c57e8fb7e355f31eb9d3f739")
    assert not disk.verify(tmp_path, 128)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def test_whoever_works_as_long_as_he_is_let_hears_the_bell_over_the_jobs_connection(tmp_path: Path) -> None:
    port = free_port()
    echo = subprocess.Popen([sys.executable, "-m", internet.__name__, "--listen", f"127.0.0.1:{port}"])
    listening = threading.Thread(target=witness.main, args=("127.0.0.1", str(port), tmp_path))
    try:
        assert wait_until(lambda: accepts_here(port), LIMIT_S)
        listening.start()
        worked = threading.Thread(target=work.work, args=(LIMIT_S * 6, tmp_path / witness.BELL))
        worked.start()
        assert not (tmp_path / witness.BELL).exists()

        def has_rung() -> bool:
            echo.send_signal(internet.BELL)
            return not worked.is_alive()

        assert wait_until(has_rung, LIMIT_S)
    finally:
        (tmp_path / "stop").touch()
        listening.join(LIMIT_S)
        echo.kill()
        echo.wait(LIMIT_S)
    assert json.loads((tmp_path / "witness.json").read_text())["connection"]["survived"]


def accepts_here(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False
