"""Which offers hold: what each cloud has told, for how long, and what becomes of one that cannot be asked."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.contract.test_store_catalogues import OFFER
from tests.fakes.catalogues import MemoryCatalogues
from tests.fakes.clock import FakeClock
from workers.domain.errors import Barred, SpotError, Unreachable
from workers.domain.offer import Offer
from workers.reconcilers.stock import LOOK_INTERVAL, OLD, READ_AGAIN, RETRY, Stockroom
from workers.selling import Stock


class Told:
    """A seller that says what it is given, or fails so."""

    def __init__(self, name: str, stock: Stock | SpotError) -> None:
        self.name, self.says = name, stock

    def stock(self) -> Stock:
        if isinstance(self.says, SpotError):
            raise self.says
        return self.says


class Rig:
    def __init__(self) -> None:
        self.clock, self.kept = FakeClock(), MemoryCatalogues()
        self.aws, self.hetzner = (
            Told("aws", Stock([OFFER])),
            Told("hetzner", Stock([elsewhere()], ["one has no price"])),
        )
        self.stock = Stockroom([self.aws, self.hetzner], self.kept, self.clock)

    def ask(self, name: str, error: type[SpotError] | None = None) -> None:
        if error is None:
            self.stock.refresh(name)
        else:
            with pytest.raises(error):
                self.stock.refresh(name)

    def sold(self) -> set[str]:
        self.clock.move(LOOK_INTERVAL)
        return {one.cloud for one in self.stock().offers}


def elsewhere() -> Offer:
    return Offer("hetzner", "fsn1", "fsn1", "cx42", OFFER.room, 0.03, is_spot=False)


def test_what_every_cloud_has_told_is_there_to_be_had_for_every_process() -> None:
    rig = Rig()
    assert (rig.stock().is_told, rig.sold()) == (False, set())
    for name in rig.stock.due():
        rig.ask(name)
    assert rig.sold() == {"aws", "hetzner"}
    assert (rig.stock().is_told, rig.stock().remarks) == (True, ("one has no price",))
    other = Stockroom((), rig.kept, rig.clock, ("aws", "hetzner"))
    assert other().offers == rig.stock().offers
    assert other.due() == []


def test_each_cloud_is_asked_again_after_a_while_and_sooner_if_it_did_not_answer() -> None:
    rig = Rig()
    rig.hetzner.says = Unreachable("no answer")
    rig.ask("aws")
    rig.ask("hetzner", Unreachable)
    assert rig.stock.due() == []
    rig.clock.move(RETRY)
    assert rig.stock.due() == ["hetzner"]
    rig.clock.move(READ_AGAIN)
    assert rig.stock.due() == ["aws", "hetzner"]


def test_a_cloud_that_cannot_be_asked_is_left_out_as_long_as_another_sells() -> None:
    rig = Rig()
    rig.ask("aws")
    rig.ask("hetzner")
    rig.aws.says = Barred("AWS does not take our credentials")
    rig.ask("aws", Barred)
    assert rig.sold() == {"hetzner"}
    assert "aws: its offers are not told: AWS does not take our credentials" in rig.stock().remarks
    rig.hetzner.says = Unreachable("no answer")
    rig.ask("hetzner", Unreachable)
    assert rig.sold() == {"aws", "hetzner"}, "a doubtful cloud is better than none"
    rig.aws.says = Stock([OFFER])
    rig.ask("aws")
    assert rig.sold() == {"aws"}


def test_what_was_told_long_ago_is_not_told() -> None:
    rig = Rig()
    rig.ask("aws")
    rig.aws.says = Unreachable("no answer")
    rig.clock.move(OLD - timedelta(seconds=30))
    rig.ask("aws", Unreachable)
    assert rig.sold() == {"aws"}
    rig.clock.move(timedelta(minutes=1))
    assert (rig.sold(), rig.stock().is_told) == (set(), False)


def test_a_cloud_that_has_nothing_has_told_so() -> None:
    rig = Rig()
    rig.aws.says = Stock((), ["no price"])
    rig.ask("aws")
    assert (rig.sold(), rig.stock().is_told) == (set(), True)
