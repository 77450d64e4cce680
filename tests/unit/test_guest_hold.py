"""What a job hears when it asks the agent on its loopback not to be moved."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from guest_agent.hold import Hold
from guest_agent.placement import BODY_MAX, Placement, placement_server


class GuestClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> GuestClock:
    return GuestClock()


@pytest.fixture
def hold(clock: GuestClock) -> Hold:
    hold = Hold(clock)
    hold.allow(600)
    return hold


@pytest.fixture
def port(hold: Hold) -> Iterator[int]:
    with placement_server(Placement(), hold, port=0) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def call(port: int, verb: str, body: str | None = None, path: str = "/v1/hold") -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(verb, path, body)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_a_job_is_held_sees_how_long_and_lets_go(port: int, hold: Hold, clock: GuestClock) -> None:
    assert call(port, "GET") == (200, {"seconds_left": 0.0, "budget_left_s": 600.0, "limit_s": 600.0})
    assert hold.wish() == {}
    status, answer = call(port, "PUT", '{"seconds": 120}')
    assert (status, answer["seconds_left"]) == (200, 120.0)
    assert hold.wish() == {"hold": {"number": 1, "seconds": 120.0}}
    clock.now += 50
    assert call(port, "GET") == (200, {"seconds_left": 70.0, "budget_left_s": 550.0, "limit_s": 600.0})
    assert call(port, "PUT", '{"seconds": 0}')[1]["said"] == "the job may be moved again"
    assert hold.wish() == {"hold": {"number": 2, "seconds": 0.0}}
    clock.now += 50
    assert call(port, "GET")[1] == {"seconds_left": 0.0, "budget_left_s": 550.0, "limit_s": 600.0}


def test_more_than_the_pool_allows_is_cut_and_said(port: int, hold: Hold, clock: GuestClock) -> None:
    status, answer = call(port, "PUT", '{"seconds": 3600}')
    assert (status, answer["seconds_left"]) == (200, 600.0)
    assert answer["said"] == (
        "3600 s were asked for and 600 s are granted: this pool allows a job 600 s in all, and 0 s of them are spent"
    )
    clock.now += 400
    answer = call(port, "PUT", '{"seconds": 300}')[1]
    assert (answer["seconds_left"], answer["budget_left_s"]) == (200.0, 190.0)
    assert "400 s of them are spent" in answer["said"]
    assert hold.wish() == {"hold": {"number": 2, "seconds": 200.0}}


def test_a_pool_that_allows_none_grants_none(port: int, hold: Hold) -> None:
    hold.allow(0)
    status, answer = call(port, "PUT", '{"seconds": 60}')
    assert (status, answer["seconds_left"]) == (200, 0.0)
    assert "allows a job 0 s in all" in answer["said"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"seconds": -1}', "negative"),
        ('{"seconds": -1e400}', "negative"),
        (f'{{"seconds": -{10**400}}}', "negative"),
        ('{"seconds": "60"}', "not a number"),
        ('{"seconds": true}', "not a number"),
        ('{"seconds": NaN}', "not a number"),
        ('{"seconds": [60]}', "not a number"),
        ('{"seconds": null}', "seconds"),
        ("{}", "seconds"),
        ("60", "seconds"),
        ('{"seconds": 60, "minutes": 1}', "seconds"),
        ("sixty", "not JSON"),
        ("", "not JSON"),
        ("[" * 1000, "not JSON"),
        (" " * (BODY_MAX + 1), "length"),
    ],
)
def test_what_is_no_wish_is_refused_in_one_sentence(port: int, hold: Hold, body: str, said: str) -> None:
    status, answer = call(port, "PUT", body)
    assert status == 400
    assert said in answer["error"]
    assert "\n" not in answer["error"]
    assert hold.wish() == {}


@pytest.mark.parametrize("seconds", ["1e400", str(10**400), "1e9"])
def test_a_number_beyond_all_measure_asks_for_all_there_is(port: int, seconds: str) -> None:
    assert call(port, "PUT", f'{{"seconds": {seconds}}}')[1]["seconds_left"] == 600.0


def test_only_the_hold_can_be_put(port: int) -> None:
    assert call(port, "PUT", "{}", "/v1/runner")[0] == 404


def test_a_body_without_its_length_is_refused(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        plain.sendall(b"PUT /v1/hold HTTP/1.0\r\n\r\n")
        assert b"400" in plain.recv(4096)


def test_many_who_ask_at_once_get_no_more_than_the_budget(port: int, hold: Hold, clock: GuestClock) -> None:
    def ask() -> None:
        for _ in range(20):
            call(port, "PUT", '{"seconds": 100}')

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert hold.wish() == {"hold": {"number": 80, "seconds": 0.0}}
