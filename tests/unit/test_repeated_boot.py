"""A boot order that comes again: the control plane has heard more of the machine since, and the microVM is the same."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.unit.test_whereabouts import ORDER, WHERE
from workers.domain.errors import Refused
from workers.domain.messages import BootOrder
from workers.domain.names import HostId, PackageDigest, guest_address
from workers.domain.overlay import GuestNetwork
from workers.domain.whereabouts import Machine, Whereabouts
from workers.host.disks import Stock
from workers.host.engine import Engine, EngineParts
from workers.host.journal import Entry, Standing
from workers.host.microvm import Microvm

STOCK = cast("Stock", SimpleNamespace(machine=SimpleNamespace(vcpus=1, memory_mib=1024)))


class EngineWithoutMonitors(Engine):
    """Takes orders as the real one does, and says of each microVM that it makes when it was made."""

    made = 0

    async def prepare(self, package: PackageDigest) -> Stock:
        return STOCK

    async def _boot(self, order: BootOrder, stock: Stock, began: float) -> None:
        self.made += 1
        entry = Entry(order.runner_id, Standing.OWNED, order)
        self._microvms[order.runner_id] = Microvm(self._parts, self._journal, entry)
        self._timings[order.runner_id] = {"total_ms": float(self.made)}


@pytest.fixture
def engine(tmp_path: Path) -> EngineWithoutMonitors:
    nothing: Any = None
    parts = EngineParts(
        HostId("spot-host-a"), "127.0.0.1", tmp_path, nothing, nothing, nothing, nothing, nothing, nothing
    )
    return EngineWithoutMonitors(parts)


def ordered(engine: Engine, *orders: BootOrder) -> list[Mapping[str, float]]:
    async def boot_all() -> list[Mapping[str, float]]:
        return [await engine.boot(order) for order in orders]

    return asyncio.run(boot_all())


@pytest.mark.parametrize(
    "later",
    [
        WHERE,
        Whereabouts(),
        replace(WHERE, provider="hetzner"),
        replace(WHERE, machine=Machine(zone="eu-central-1c")),
        replace(WHERE, usd_per_hour=0.11),
    ],
)
def test_an_order_that_comes_again_with_other_news_of_the_machine_is_the_same(
    engine: EngineWithoutMonitors, later: Whereabouts
) -> None:
    first = replace(ORDER, whereabouts=Whereabouts("aws"))
    assert ordered(engine, first, replace(first, whereabouts=later)) == [{"total_ms": 1.0}] * 2
    assert engine.made == 1


@pytest.mark.parametrize(
    "other",
    [
        replace(ORDER, number=1, address=guest_address(1)),
        replace(ORDER, package=PackageDigest("sha256:01")),
        replace(ORDER, network=GuestNetwork.NAT),
        replace(ORDER, hold_limit_s=1),
        replace(ORDER, epoch=2),
    ],
)
def test_an_order_for_another_microvm_of_that_name_is_refused_whatever_is_known_of_the_machine(
    engine: EngineWithoutMonitors, other: BootOrder
) -> None:
    with pytest.raises(Refused, match="r is here already, and it is another one"):
        ordered(engine, ORDER, replace(other, whereabouts=WHERE))
    assert engine.made == 1
