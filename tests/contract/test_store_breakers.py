"""Breakers are changed by compare-and-set, together with what the timeline says of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

from tests.contract.store_rows import START, WholeStore
from workers.domain.breaker import Breaker
from workers.domain.events import Event, Happening


class TestBreakers:
    FIRST: Final = Breaker("1 octo/hello ci sha256:00 spot-runner", 1, 3, START, START + timedelta(minutes=10), "why")
    TRIPPED: Final = Event(Happening.BREAKER_TRIPPED, START, detail={"kind": FIRST.id, "unused": 3})

    def test_what_was_written_is_found_by_its_kind_with_its_event(self, store: WholeStore) -> None:
        assert store.breaker(self.FIRST.id) is None
        assert store.change_breaker(None, self.FIRST, self.TRIPPED)
        assert store.breaker(self.FIRST.id) == self.FIRST
        assert [event for _, event in store.timeline()] == [self.TRIPPED]

    def test_whoever_has_read_an_older_one_changes_nothing(self, store: WholeStore) -> None:
        second = replace(self.FIRST, number=2, unused=4)
        assert store.change_breaker(None, self.FIRST)
        assert not store.change_breaker(None, replace(self.FIRST, unused=1), self.TRIPPED)
        assert store.change_breaker(self.FIRST, second)
        assert not store.change_breaker(self.FIRST, replace(self.FIRST, number=2), self.TRIPPED)
        assert store.breaker(self.FIRST.id) == second
        assert not store.timeline()

    def test_only_those_that_have_tripped_are_listed(self, store: WholeStore) -> None:
        counting = replace(self.FIRST, id="other", retry_at=None, because=None)
        for one in (self.FIRST, counting):
            store.change_breaker(None, one)
        assert store.tripped() == {self.FIRST.id: self.FIRST}
        store.change_breaker(self.FIRST, Breaker(self.FIRST.id, 2, 0, START))
        assert store.tripped() == {}
