"""How long a parked guest stood still, on its whole way: rows, the order, the host, the agent's answer to the job.

Everything is real but QEMU and the guest: its run command is answered, and its agent's part is called directly.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import TypeAdapter

from guest_agent.placement import Placement
from tests.unit.planning.rows import NOW, SECOND, a_host, a_runner
from workers.domain.messages import MoveOrder, ParkOrder
from workers.domain.migration import Migration, MigrationPhase
from workers.domain.names import HostId, MigrationId
from workers.host.engine import EngineParts
from workers.host.journal import Entry, Journal, Standing
from workers.host.microvm import Microvm
from workers.host.unparking import Unparking
from workers.planning.orders import move_order

# By the clock of the host that parked it: it stopped, and two seconds later it was stored.
FIGURES = {"stopped_at": 1000.0, "stored_at": 1002.0}
# By the control plane's: as long as it lay there until this host was asked to fetch it.
LAY = timedelta(seconds=90)
FETCHED_IN_S = 0.25
WIRE = TypeAdapter(MoveOrder)


class MicrovmInHand(Microvm):
    """Runs when it is told to, and its agent hears what the real one would."""

    agent: Placement

    async def run(self) -> float:
        return time.time()

    async def call(self, function: str, *args: object, limit_s: float = 0.0) -> dict[str, float]:
        if function == "Placed":
            (told,) = args
            assert isinstance(told, dict)
            self.agent.placed(told)
            return {}
        assert (function, args[0]) == ("AfterResume", "unparked")
        return {"clock_step_s": 92.25}


def taken_out(tmp_path: Path, order: MoveOrder) -> dict[str, Any]:
    """Let a host carry out the end of an order, and return what a job would be told."""
    nothing: Any = None
    network: Any = SimpleNamespace(mtu=1500, attach=abs)
    parts = EngineParts(
        HostId("b"), "127.0.0.1", tmp_path, nothing, nothing, network, nothing, nothing, connect_guest=nothing
    )
    entry = Entry(order.runner.runner_id, Standing.RECEIVING, order.runner, move=order, moves=order.moves)
    microvm = MicrovmInHand(parts, Journal(tmp_path / "journal"), entry)
    microvm.agent = Placement()

    async def resume() -> None:
        unparking = Unparking(microvm, order)
        unparking._ordered_at -= FETCHED_IN_S  # as if it had been busy with that since
        await unparking._let_run()
        await unparking._settle_in()

    asyncio.run(resume())
    view = microvm.agent.view()
    assert view is not None
    return view


def resumed(figures: dict[str, float]) -> MoveOrder:
    """Return the order as it comes over the wire, for a guest that was parked with these figures."""
    runner = replace(a_runner(), parked_at=NOW, host_id=None, epoch=2)
    park = Migration(
        MigrationId("park"), runner.id, HostId("a"), None, MigrationPhase.FINISHED, 2, NOW, NOW + LAY, figures=figures
    )
    move = Migration(
        MigrationId("resume"), runner.id, None, HostId("b"), MigrationPhase.RECEIVING, 3, NOW + LAY, NOW + 2 * LAY
    )
    park_order = ParkOrder(park.id, "00" * 32)
    order = move_order(move, runner, None, NOW + LAY, park_order, a_host("b"), park)
    return WIRE.validate_json(WIRE.dump_json(order))


def test_a_job_is_told_the_way_into_the_store_the_time_there_and_the_way_out(tmp_path: Path) -> None:
    order, began = resumed(FIGURES), time.monotonic()
    told = taken_out(tmp_path, order)
    at_least = (2.0 + LAY / SECOND + FETCHED_IN_S) * 1000
    assert at_least <= told["pause_ms"] <= at_least + (time.monotonic() - began) * 1000
    assert (told["host_id"], told["moves"]) == ("b", 2)


@pytest.mark.parametrize("missing", sorted(FIGURES))
def test_what_one_of_them_has_not_measured_is_not_known(tmp_path: Path, missing: str) -> None:
    told = taken_out(tmp_path, resumed({name: at for name, at in FIGURES.items() if name != missing}))
    assert told["pause_ms"] is None
