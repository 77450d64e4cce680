"""The overlay's hub: which hosts it lets in follows from the rows, and its own key is written down for them."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import structlog

from workers.domain.errors import Refused
from workers.domain.names import HostId
from workers.domain.overlay import Station
from workers.ports import Relay, Store
from workers.reconcilers.patience import patience

log = structlog.get_logger()


class Hub:
    """Tells the relay who sits on the overlay; safe for threads."""

    def __init__(self, store: Store, relay: Relay, endpoint: str) -> None:
        """`endpoint` is where every host can dial the relay: `address:port`."""
        self._store, self._relay, self._endpoint = store, relay, endpoint
        self._told: Mapping[HostId, Station] | None = None
        self._one_at_a_time = threading.Lock()

    def follow(self) -> None:
        """Tell the relay if the hosts are others than those that we have told it of."""
        with self._one_at_a_time, patience("relay", "overlay"):
            self._tell()

    def refresh(self) -> None:
        """Tell the relay in any case, since it may have been made anew."""
        with self._one_at_a_time, patience("relay", "overlay"):
            self._told = None
            self._tell()

    def _tell(self) -> None:
        """Whoever has told looks once more, so that of several who tell at once the last one tells what is so."""
        while (stations := self._store.stations()) != self._told:
            try:
                key = self._relay.admit(stations.values())
            except Refused as error:
                log.error("relay_is_no_hub", because=str(error))  # noqa: TRY400 the sentence says it all
                return
            self._store.note_hub(key, self._endpoint)
            self._told = stations
