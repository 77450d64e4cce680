"""This host's place on the overlay: given once, kept on disk, its tunnels changed by what heartbeats bring.

    key made here ──▶ registered ──▶ place kept ──▶ link with its peers ──heartbeat──▶ other peers
                                        └── a daemon that starts again begins here ──▶

Whoever is behind a NAT dials the hub until it has answered; before that the control plane cannot call us.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

import structlog
from pydantic import TypeAdapter, ValidationError

from workers.domain.errors import Unfit
from workers.domain.messages import Heartbeat, OverlayPlace
from workers.domain.overlay import OVERLAY_NETWORK, Peer, stamp_of
from workers.wireguard import Seat

# WireGuard itself tries again after five seconds, and the hub may come to know us within one.
DIAL_INTERVAL_S: Final = 1.0
# Whoever does not answer by then is away, and dialled by WireGuard's own patience.
DIAL_LIMIT_S: Final = 60.0

_PLACE: Final = TypeAdapter(OverlayPlace)
_log: Final = structlog.get_logger()


class Link(Protocol):
    """This machine's end of the overlay. Raises `Unfit`."""

    @property
    def name(self) -> str: ...
    @property
    def public_key(self) -> str: ...
    @property
    def is_up(self) -> bool: ...
    def prepare(self, seat: Seat) -> None:
        """Make the link, or put right what has ended of it."""

    def set_peers(self, peers: Iterable[Peer]) -> None:
        """Speak to exactly these."""

    def heard(self) -> dict[str, int]:
        """Return for each peer's key when it was last heard, 0 if never."""


class Tunnels:
    """The tunnels of one host. Calls block for some milliseconds, and one of them at a time may be under way."""

    def __init__(self, link: Link, home: Path, port: int, mtu: int) -> None:
        """`home` keeps the place, `port` is UDP, `mtu` what a packet between two machines may measure."""
        self._link, self._file, self._port, self._mtu = link, home / "overlay.json", port, mtu
        self._place: OverlayPlace | None = None
        self._dialled_at = float("-inf")
        self._is_heard = self._is_open = False
        self._dials_until = time.monotonic() + DIAL_LIMIT_S

    @property
    def name(self) -> str:
        """The name of the link."""
        return self._link.name

    @property
    def public_key(self) -> str:
        """What the others know us by; base64."""
        return self._link.public_key

    def keep(self, place: OverlayPlace) -> None:
        """Write down the place, so that every later start of the daemon finds it."""
        fresh = self._file.with_suffix(".fresh")
        with fresh.open("wb") as writing:
            writing.write(_PLACE.dump_json(place))
            writing.flush()
            os.fsync(writing.fileno())
        fresh.replace(self._file)
        self._place = place

    def open(self) -> str:
        """Make the link with what was kept, and return our address on the overlay. Raises `Unfit`."""
        try:
            self._place = _PLACE.validate_json(self._file.read_bytes())
        except (OSError, ValidationError) as error:
            raise Unfit(f"{self._file} does not hold a place on the overlay: {error}; replace the machine") from error
        self._project(self._place)
        return self._place.address

    def take(self, peers: tuple[Peer, ...] | None) -> None:
        """Speak to these from now on, None: to the same; what has ended of the link is put right."""
        place = _open(self._place)
        if peers is not None:
            place = OverlayPlace(place.address, peers)
            self.keep(place)
            _log.info("overlay_peers", count=len(peers))
        if peers is not None or not self._link.is_up:
            self._project(place)
            self._is_open, self._dials_until = False, time.monotonic() + DIAL_LIMIT_S
        if not self._is_open:
            self._dial(place)

    def told(self, heartbeat: Heartbeat) -> Heartbeat:
        """Return the heartbeat with what it says of the tunnels."""
        place = _open(self._place)
        said = replace(heartbeat, peers=stamp_of(place.peers))
        if self._is_heard or not heartbeat.ready:
            return said
        return replace(said, ready=False, not_ready_because="the relay does not answer on the overlay yet")

    def _project(self, place: OverlayPlace) -> None:
        self._link.prepare(Seat(place.address, OVERLAY_NETWORK.prefixlen, self._port, self._mtu))
        self._link.set_peers(place.peers)

    def _dial(self, place: OverlayPlace) -> None:
        """Look who has answered, and dial the others again: a tunnel that is made anew dials at once."""
        heard = self._link.heard()
        # Whoever can be dialled need not dial: the first call of the other side brings the tunnel up.
        silent = {peer for peer in place.peers if peer.keepalive_s and peer.endpoint and not heard.get(peer.key)}
        self._is_heard = not any(str(OVERLAY_NETWORK) in peer.allowed for peer in silent)
        self._is_open = not silent
        now = time.monotonic()
        if silent and now - self._dialled_at >= DIAL_INTERVAL_S and now < self._dials_until:
            self._dialled_at = now
            self._link.set_peers(peer for peer in place.peers if peer not in silent)
            self._link.set_peers(place.peers)


def _open(place: OverlayPlace | None) -> OverlayPlace:
    if place is None:
        raise Unfit("this host has no place on the overlay yet; it registers first")
    return place
