"""Where gevent's loop answers many requests at once, what a database may hold up runs in a thread outside of it."""

from __future__ import annotations

from collections.abc import Sequence

from gevent.threadpool import ThreadPool

from webhook.needs import DeliveryStore
from workers.domain.events import Delivery


class Offloaded:
    """A store that is written to by one thread of its own; whoever waits for it lets the others go on."""

    def __init__(self, store: DeliveryStore) -> None:
        """The thread starts with the first writing, so the object may be made before a fork."""
        self._store = store
        self._thread: ThreadPool | None = None

    def write_deliveries(self, rows: Sequence[Delivery]) -> None:
        """Write these down, all or none, durably; a GUID that is known already changes nothing."""
        if self._thread is None:
            self._thread = ThreadPool(1)
        self._thread.apply(self._store.write_deliveries, (rows,))
