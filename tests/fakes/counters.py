"""The part of the store in memory whose rows count their own changes: breakers and holds."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import datetime

from workers.domain.breaker import Breaker
from workers.domain.events import Event
from workers.domain.hold import Hold, is_held
from workers.domain.names import RunnerId


class MemoryCounters(ABC):
    lock: threading.RLock

    def __init__(self) -> None:
        self._breakers: dict[str, Breaker] = {}
        self._holds: dict[RunnerId, Hold] = {}

    @abstractmethod
    def record(self, *events: Event) -> None: ...

    def breaker(self, kind: str) -> Breaker | None:
        return self._breakers.get(kind)

    def tripped(self) -> Mapping[str, Breaker]:
        return {key: one for key, one in self._breakers.items() if one.retry_at is not None}

    def change_breaker(self, before: Breaker | None, after: Breaker, *events: Event) -> bool:
        with self.lock:
            current = self._breakers.get(after.id)
            if (current and current.number) != (before and before.number):
                return False
            self._breakers[after.id] = after
            self.record(*events)
            return True

    def hold_of(self, runner_id: RunnerId) -> Hold | None:
        return self._holds.get(runner_id)

    def change_hold(self, before: Hold | None, after: Hold, *events: Event) -> bool:
        with self.lock:
            current = self._holds.get(after.runner_id)
            if (current and current.number) != (before and before.number):
                return False
            self._holds[after.runner_id] = after
            self.record(*events)
            return True

    def held(self, now: datetime) -> Mapping[RunnerId, datetime]:
        return {key: hold.ends_at for key, hold in self._holds.items() if is_held(hold, now)}
