from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

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
            said = json.load(answer)
        assert {name: value for name, value in said.items() if value is not None} == told


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
    assert placement.view() is None


HERE: dict[str, Any] = {"runner_id": "r", "host_id": "h", "moves": 0}


class TestWhatItCost:
    def placed(self) -> tuple[Placement, list[float]]:
        now = [1000.0]
        return Placement(lambda: now[0]), now

    def test_each_host_has_its_own_price(self) -> None:
        placement, now = self.placed()
        placement.placed({**HERE, "usd_per_hour": 0.36})
        now[0] += 1000
        placement.placed({**HERE, "moves": 1, "usd_per_hour": 3.6})
        now[0] += 500
        view = placement.view()
        assert view is not None
        assert view["cost_usd"] == pytest.approx(0.1 + 0.5)

    @pytest.mark.parametrize("prices", [(None,), (None, 0.36), (0.36, None), (0.36, None, 0.36)])
    def test_once_a_price_is_not_known_the_sum_is_not_known(self, prices: tuple[float | None, ...]) -> None:
        placement, now = self.placed()
        for moves, price in enumerate(prices):
            placement.placed({**HERE, "moves": moves, "usd_per_hour": price})
            now[0] += 1000
        assert (placement.view() or {})["cost_usd"] is None

    def test_nothing_is_as_good_a_price_as_any(self) -> None:
        placement, now = self.placed()
        placement.placed({**HERE, "usd_per_hour": 0})
        now[0] += 1000
        assert (placement.view() or {})["cost_usd"] == 0.0


def test_only_the_first_host_knows_how_long_the_restore_took() -> None:
    placement = Placement()
    placement.placed({**HERE, "restored_in_ms": 312.5, "pause_ms": None})
    placement.placed({**HERE, "moves": 1, "pause_ms": 71.0})
    view = placement.view()
    assert view is not None
    assert (view["restored_in_ms"], view["pause_ms"]) == (312.5, 71.0)
    placement.placed({**HERE, "moves": 2, "pause_ms": None})
    assert (placement.view() or {})["pause_ms"] is None, (
        "that of the last move is not known, and an earlier one is none"
    )


@pytest.mark.parametrize("odd", [-1, float("nan"), float("inf"), "71", True, [], {}])
def test_a_figure_that_is_none_is_not_shown(odd: object) -> None:
    placement = Placement()
    placement.placed({**HERE, "pause_ms": odd, "usd_per_hour": odd, "zone": 7})
    view = placement.view()
    assert view is not None
    assert (view["pause_ms"], view["cost_usd"], view["zone"]) == (None, None, None)
