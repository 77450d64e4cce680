"""The relay's table."""

from __future__ import annotations

from collections.abc import Iterable

from tests.fakes.trouble import Trouble
from workers.domain.names import RunnerId
from workers.domain.overlay import Station
from workers.ports import Forwarding

KEY = "cmVsYXkga2V5IG9mIHRoZSBmYWtlIHJlbGF5ICEhISE="


class FakeRelay:
    def __init__(self, trouble: Trouble) -> None:
        self._trouble = trouble
        self.table: dict[RunnerId, Forwarding] = {}
        self.stations: tuple[Station, ...] = ()
        self.key = KEY

    def point(self, entry: Forwarding) -> None:
        with self._trouble.befalls("relay", "point", entry.runner_id):
            self._take(entry)

    def forget(self, runner_id: RunnerId, epoch: int) -> None:
        with self._trouble.befalls("relay", "forget", runner_id):
            if runner_id in self.table and self.table[runner_id].epoch <= epoch:
                del self.table[runner_id]

    def replace_all(self, entries: Iterable[Forwarding]) -> None:
        with self._trouble.befalls("relay", "replace_all", ""):
            wanted = {entry.runner_id: entry for entry in entries}
            self.table = {key: entry for key, entry in self.table.items() if key in wanted}
            for entry in wanted.values():
                self._take(entry)

    def admit(self, stations: Iterable[Station]) -> str:
        with self._trouble.befalls("relay", "admit", ""):
            self.stations = tuple(stations)
            return self.key

    def _take(self, entry: Forwarding) -> None:
        held = self.table.get(entry.runner_id)
        if held is None or held.epoch <= entry.epoch:
            self.table[entry.runner_id] = entry
