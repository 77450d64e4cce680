"""What every budget of calls promises, and what the shared one does when its Redis is troubled."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis

from workers.domain.errors import Throttled
from workers.domain.pace import Heard, Limits, Permit, Seat, Urgency, Wish
from workers.github.pace import ALONE, LocalPace, Pace, SharedPace, shared_pace

LIMITS = Limits(points=60, app_points=60, requests=300)
SEAT = Seat(1, 11)
SISTER = Seat(1, 12)
STRANGER = Seat(2, 21)
KEY = "spot-runner:pace"


@dataclass
class ManualTime:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Server:
    """A redis-server of this test's own."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "redis.sock"
        self._command = [
            "redis-server",
            "--port",
            "0",
            "--unixsocket",
            str(self.socket),
            "--save",
            "",
            "--dir",
            str(directory),
        ]
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def client(self) -> Redis:
        return Redis(unix_socket_path=str(self.socket))

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 30
        while time.monotonic() < end:
            with suppress(OSError), closing(socket.socket(socket.AF_UNIX)) as probe:
                probe.connect(str(self.socket))
                return
            threading.Event().wait(0.02)
        raise AssertionError("redis-server did not come up")

    def stop(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(30)


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server")
    running = Server(tmp_path_factory.mktemp("redis"))
    yield running
    running.stop()


def shared(server: Server, clock: ManualTime) -> SharedPace:
    return shared_pace(f"redis+socket://{server.socket}", KEY, LIMITS, clock)


@pytest.fixture
def clock() -> ManualTime:
    return ManualTime()


@pytest.fixture(params=["local", "shared"])
def pace(request: pytest.FixtureRequest, clock: ManualTime) -> Pace:
    """A budget that was begun long ago."""
    if request.param == "local":
        made: Pace = LocalPace(LIMITS, clock)
    else:
        made = shared(request.getfixturevalue("server"), clock)
    made.settle(made.take(Wish((SEAT,), 1, Urgency.RUNNER)), Heard(300, 300, clock.now + 3000))
    clock.now += 100
    return made


def registration(name: str) -> Wish:
    return Wish((SEAT,), 5, Urgency.RUNNER, "octo/hello", name)


def spend_all(pace: Pace) -> list[Permit]:
    permits = list[Permit]()
    with suppress(Throttled):
        while len(permits) < 100:
            permits.append(pace.take(registration(f"spender-{len(permits)}")))
    return permits


def test_what_is_spent_is_refused_with_the_moment_to_come_back(pace: Pace, clock: ManualTime) -> None:
    permits = spend_all(pace)
    assert len(permits) == 12
    for permit in permits:
        pace.settle(permit, Heard())
    with pytest.raises(Throttled, match="limit") as caught:
        pace.take(registration("late"))
    assert caught.value.at is not None
    assert clock.now < caught.value.at.timestamp() <= clock.now + 62
    clock.now = caught.value.at.timestamp()
    pace.take(registration("late"))


def test_a_retry_after_stops_everybody_until_then(pace: Pace, clock: ManualTime) -> None:
    """All whom GitHub counts together: the installations of one App."""
    pace.settle(pace.take(registration("a")), Heard(retry_at=clock.now + 30))
    for seat in (SEAT, SISTER):
        with pytest.raises(Throttled) as caught:
            pace.take(Wish((seat,), 1, Urgency.RUNNER))
        assert caught.value.at is not None
        assert caught.value.at.timestamp() == pytest.approx(clock.now + 30)
    assert pace.take(Wish((STRANGER,), 1, Urgency.RUNNER)).seat == STRANGER
    clock.now += 30
    for seat in (SEAT, SISTER):
        assert pace.take(Wish((seat,), 1, Urgency.RUNNER)).seat == seat


def test_an_hour_that_is_spent_stops_its_own_installation_only(pace: Pace, clock: ManualTime) -> None:
    pace.settle(pace.take(registration("a")), Heard(300, 0, clock.now + 30, retry_at=clock.now + 30))
    with pytest.raises(Throttled):
        pace.take(Wish((SEAT,), 1, Urgency.RUNNER))
    assert pace.take(Wish((SISTER,), 1, Urgency.RUNNER)).seat == SISTER


def test_a_place_in_line_is_kept(pace: Pace, clock: ManualTime) -> None:
    for permit in spend_all(pace):
        pace.settle(permit, Heard())
    with pytest.raises(Throttled):
        pace.take(registration("early"))
    clock.now += 61.5
    for number in range(10):
        pace.take(registration(f"late-{number}"))
    pace.take(registration("early"))


def test_an_hours_end_is_githubs_word(pace: Pace, clock: ManualTime) -> None:
    pace.settle(pace.take(registration("a")), Heard(300, 0, clock.now + 2900))
    with pytest.raises(Throttled) as caught:
        pace.take(Wish((SEAT,), 1, Urgency.RUNNER))
    assert caught.value.at is not None
    assert caught.value.at.timestamp() >= clock.now + 800  # whoever waits longer is told of the rest then


# ---------------------------------------------------------------- shared


def warm(server: Server, clock: ManualTime) -> None:
    one = shared(server, clock)
    one.settle(one.take(registration("first")), Heard(300, 300, clock.now + 3000))
    clock.now += 400


def test_many_at_once_get_no_more_than_there_is(server: Server, clock: ManualTime) -> None:
    """As many processes would: each has a budget object of its own, and threads of its own."""
    warm(server, clock)
    paces = [shared(server, clock) for _ in range(6)]

    def take(number: int) -> bool:
        try:
            paces[number % 6].take(registration(f"runner-{number}"))
        except Throttled:
            return False
        return True

    with ThreadPoolExecutor(12) as pool:
        assert sum(pool.map(take, range(60))) == 12


def test_one_process_sees_what_another_spent(server: Server, clock: ManualTime) -> None:
    warm(server, clock)
    spend_all(shared(server, clock))
    with pytest.raises(Throttled):
        shared(server, clock).take(registration("other"))


def test_an_emptied_redis_gives_nothing_away_twice(server: Server, clock: ManualTime) -> None:
    warm(server, clock)
    one = shared(server, clock)
    spend_all(one)
    server.client.flushall()
    with pytest.raises(Throttled):
        one.take(registration("after"))
    clock.now += 100
    assert len(spend_all(one)) == 12


def test_who_knows_nothing_of_the_past_begins_low_until_github_has_spoken(server: Server, clock: ManualTime) -> None:
    one = shared(server, clock)
    first = spend_all(one)
    assert len(first) == 3
    for permit in first:
        one.settle(permit, Heard(300, 250, clock.now + 1800))
    clock.now += 100
    assert len(spend_all(one)) == 12


def test_without_redis_a_process_goes_on_slowly_and_at_once(server: Server, clock: ManualTime) -> None:
    warm(server, clock)
    one = shared(server, clock)
    one.settle(one.take(registration("a")), Heard())
    server.stop()
    clock.now += 400
    begun = time.monotonic()
    assert len(spend_all(one)) == int(60 * ALONE) // 5
    assert time.monotonic() - begun < 5
    server.start()
    clock.now += 100
    assert len(spend_all(one)) >= 3


def test_what_was_spent_before_redis_went_is_not_spent_again_without_it(server: Server, clock: ManualTime) -> None:
    warm(server, clock)
    one = shared(server, clock)
    spend_all(one)
    server.stop()
    with pytest.raises(Throttled):
        one.take(registration("other"))
    server.start()


def test_a_hung_redis_costs_a_second_once(server: Server, clock: ManualTime) -> None:
    warm(server, clock)
    one = shared(server, clock)
    one.settle(one.take(registration("a")), Heard())
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        clock.now += 400
        one.take(registration("b"))
        for _ in range(20):
            with suppress(Throttled):
                one.take(Wish((SEAT,), 1, Urgency.SWEEP))
        assert time.monotonic() - begun < 10
    finally:
        os.kill(server.process.pid, signal.SIGCONT)


def test_a_ledger_that_nobody_can_read_is_begun_anew(server: Server, clock: ManualTime) -> None:
    server.client.set(KEY, '{"form":99}')
    assert len(spend_all(shared(server, clock))) == 3


def test_nothing_that_lies_in_redis_is_a_secret(server: Server, clock: ManualTime) -> None:
    one = shared(server, clock)
    one.settle(one.take(registration("spot-runner-a")), Heard())
    text = str(server.client.get(KEY))
    assert "seat 1 11" in text
    assert "jit" not in text
