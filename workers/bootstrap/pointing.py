"""The relay follows a commit at once, from the process that has just written it.

    COMMITTED written ──▶ answered: the target lets the guest run
            └──▶ (beside it) the relay is pointed to the target

The row has decided; the relay is a projection of it, with the row's epoch, and refuses older words. Nothing depends on
this: the reconciler points again, and notes it, when the hint of the commit has reached it some 30 ms later.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Final

import structlog

from workers.domain.errors import SpotError
from workers.domain.migration import Migration
from workers.domain.names import HostId
from workers.ports import Forwarding, Relay, Store

# A whole host's guests commit within a second or two, and the relay takes one word at a time.
AT_ONCE: Final = 4
# Less than a connection is kept open: a handshake costs as much as all the rest.
WARM_LIMIT: Final = timedelta(seconds=20)

log: Final = structlog.get_logger(__name__)


class Pointer:
    """Points the relay beside the answer to a host; returns at once, and what goes wrong is only logged."""

    def __init__(self, store: Store, relay: Relay) -> None:
        self._store, self._relay = store, relay
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="point")
        self._used_at = float("-inf")

    def expect(self, row: Migration) -> None:
        """Say once more where the guest is while it is copied, so that the line to the relay is open at the commit."""
        if time.monotonic() - self._used_at > WARM_LIMIT.total_seconds():
            self._used_at = time.monotonic()
            self._pool.submit(self._point, row, row.source_id, row.epoch - 1)

    def follow(self, row: Migration) -> None:
        """Point to the target of a migration that is committed."""
        self._used_at = time.monotonic()
        self._pool.submit(self._point, row, row.target_id, row.epoch)

    def close(self) -> None:
        """End when everything is pointed."""
        self._pool.shutdown()

    def _point(self, row: Migration, host_id: HostId | None, epoch: int) -> None:
        try:
            runner = self._store.runners.get(row.runner_id)
            host = None if host_id is None else self._store.hosts.get(host_id)
            if runner is not None and host is not None and host.address is not None:
                self._relay.point(Forwarding(runner.id, epoch, runner.address, host.address))
        except SpotError as error:
            log.info("relay_not_pointed", migration=row.id, because=str(error))
        except Exception:  # nobody waits for this thread's outcome
            log.exception("pointing_failed", migration=row.id)
