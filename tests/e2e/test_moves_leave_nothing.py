"""However often a guest moves there and back, its hosts have what they had before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.e2e.belongings import belongings, grown
from tests.e2e.engine_rig import END_OF_MOVE, Rig, runner_package
from workers.domain.messages import BootOrder
from workers.domain.migration import MigrationPhase

pytestmark = [pytest.mark.root, pytest.mark.guest, pytest.mark.timeout(300)]
MOVES = 4


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig(runner_package())
    yield rig
    rig.end()


def moved(rig: Rig, order: BootOrder, attempt: int) -> BootOrder:
    source, target = ("a", "b") if attempt % 2 else ("b", "a")
    row = rig.begin(order, source, target, attempt)
    assert rig.rows.wait(row.id, *END_OF_MOVE).phase is MigrationPhase.FINISHED, rig.rows.reasons
    rig.settle(order.runner_id)
    return replace(order, epoch=row.epoch)


def test_nothing_grows_when_a_guest_moves_there_and_back(rig: Rig) -> None:
    order = rig.order(1)
    rig["a"].inside.run(rig["a"].engine.boot(order))
    for attempt in (1, 2):  # what the first visit leaves is there to stay: the package's stock, a line in the journal
        order = moved(rig, order, attempt)
    before = belongings(rig)
    for attempt in range(3, 3 + MOVES):
        order = moved(rig, order, attempt)
    assert grown(before, belongings(rig)) == []
    assert all(before[f"{name}: {what}"] for name in "ab" for what in ("files", "interfaces", "packet filter"))
    assert before["a: control groups"]
    assert not before["b: control groups"]
