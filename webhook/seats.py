"""Places on the overlay: given with a host's first certificate; its heartbeats bring whom it speaks to.

register   key, endpoint ──▶ place: address, peers       the private key stays on the host
heartbeat  stamp of its peers ──▶ all peers, if others   who has ended is nobody's peer any more
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from webhook.needs import Clock, HostStore
from workers.domain.errors import BadInput, TryLater
from workers.domain.messages import OverlayPlace, RegistrationRequest
from workers.domain.names import HostId
from workers.domain.overlay import HUB_ADDRESS, Peer, Station, checked_station, peers_of_host, stamp_of

# Every host asks every second, and what is asked for grows with their number.
LOOKED_UP_LIMIT: Final = timedelta(seconds=1)


@dataclass(frozen=True)
class _Seen:
    """All that sit on the overlay, as they were at one moment."""

    at: datetime
    hub: Station | None
    stations: Mapping[HostId, Station]


class Seats:
    """The overlay of one deployment, as its hosts are told of it."""

    def __init__(self, store: HostStore, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._seen: _Seen | None = None

    def check(self, request: RegistrationRequest) -> None:
        """Raise `BadInput` if what a machine says of itself makes no sense, `TryLater` while nobody is the hub."""
        _described(request)
        if self._look().hub is None:
            raise TryLater("the relay has not told its key yet; once it runs as the overlay's hub it is asked for it")

    def give(self, request: RegistrationRequest) -> OverlayPlace:
        """Give the host its place. Raises `Refused` if it shows another machine's key."""
        said = _described(request)
        station = self._store.seat(request.host_id, said.key, said.endpoint)
        self._seen = None
        return OverlayPlace(station.address, self._peers(station))

    def news(self, host_id: HostId, stamp: str | None) -> tuple[Peer, ...] | None:
        """Return whom this host speaks to, None if these are the ones that it has already, or if it has no place."""
        station = self._look().stations.get(host_id)
        if station is None:
            return None
        peers = self._peers(station)
        return None if stamp_of(peers) == stamp else peers

    def _peers(self, station: Station) -> tuple[Peer, ...]:
        seen = self._look()
        return () if seen.hub is None else peers_of_host(station, seen.hub, seen.stations.values())

    def _look(self) -> _Seen:
        seen, now = self._seen, self._clock.now()
        if seen is None or not timedelta() <= now - seen.at < LOOKED_UP_LIMIT:
            seen = self._seen = _Seen(now, self._store.hub(), self._store.stations())
        return seen


def _described(request: RegistrationRequest) -> Station:
    if request.wireguard_key is None:
        raise BadInput("wireguard_key: missing; this deployment has an overlay, so the machine must make a key for it")
    return checked_station(Station(request.wireguard_key, HUB_ADDRESS, request.endpoint))
