from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from guest_agent.hold import Hold
from guest_agent.placement import Placement, placement_server


@pytest.fixture
def served() -> Iterator[tuple[Placement, str]]:
    placement = Placement()
    with placement_server(placement, Hold(), port=0) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield placement, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def _status_of(url: str) -> int:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url, timeout=10)  # noqa: S310 - our own server on loopback
    with refused.value as answer:
        return answer.code


def test_a_job_learns_where_it_is_each_time_it_asks(served: tuple[Placement, str]) -> None:
    placement, url = served
    for moves in (0, 1):
        told = {"runner_id": "spot-runner-1", "host_id": f"spot-host-{moves}", "moves": moves}
        placement.placed(told)
        with urllib.request.urlopen(f"{url}/v1/runner", timeout=10) as answer:  # noqa: S310 - our own server
            assert json.load(answer) == told


def test_before_it_was_placed_and_elsewhere_there_is_nothing(served: tuple[Placement, str]) -> None:
    placement, url = served
    assert _status_of(f"{url}/v1/runner") == 404
    placement.placed({"runner_id": "r", "host_id": "h", "moves": 0})
    assert _status_of(f"{url}/v1/other") == 404


def test_the_server_listens_on_loopback_alone(served: tuple[Placement, str]) -> None:
    with placement_server(Placement(), Hold(), port=0) as server:
        assert server.server_address[0] == "127.0.0.1"


def test_what_is_not_a_placement_is_refused(served: tuple[Placement, str]) -> None:
    placement, _ = served
    with pytest.raises(KeyError, match="moves"):
        placement.placed({"runner_id": "r", "host_id": "h"})
    assert placement.told is None
