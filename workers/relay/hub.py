"""The relay as the overlay's hub: whom it lets in is in the tunnels and on disk before the control plane is answered.

PUT /v1/overlay ──▶ tunnels ──▶ disk ──▶ our own key
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Protocol

from pydantic import TypeAdapter, ValidationError

from workers.domain.errors import Unfit
from workers.domain.overlay import Peer, Station, checked_station, peers_of_hub
from workers.wireguard import Seat

_STATIONS: Final = TypeAdapter(tuple[Station, ...])


class Link(Protocol):
    """This machine's end of the overlay. Raises `Unfit`."""

    @property
    def public_key(self) -> str:
        """What the others know us by; base64."""

    def prepare(self, seat: Seat) -> None:
        """Make the link, or put right what has ended of it."""

    def set_peers(self, peers: Iterable[Peer]) -> None:
        """Speak to exactly these."""


class Hub:
    """The hub's link with its copy on disk; one change at a time."""

    def __init__(self, link: Link, seat: Seat, file: Path) -> None:
        """Let in at once whom the file names. Raises `Unfit` if it cannot be read, or if there can be no link."""
        self._link, self._seat, self._file = link, seat, file
        self._one_at_a_time = threading.Lock()
        self._project(_load(file))

    def admit(self, stations: Iterable[Station]) -> str:
        """Let exactly these in; return our own public key. Raises `BadInput`, and then nothing has changed."""
        with self._one_at_a_time:
            wanted = tuple(map(checked_station, stations))
            self._project(wanted)
            _save(self._file, wanted)
            return self._link.public_key

    def _project(self, stations: tuple[Station, ...]) -> None:
        self._link.prepare(self._seat)
        self._link.set_peers(peers_of_hub(stations))


def _load(file: Path) -> tuple[Station, ...]:
    try:
        return _STATIONS.validate_json(file.read_bytes())
    except FileNotFoundError:
        return ()
    except (OSError, ValidationError) as error:
        raise Unfit(
            f"{file} does not hold the overlay's hosts: {error}; remove it, the control plane says it"
        ) from error


def _save(file: Path, stations: tuple[Station, ...]) -> None:
    fresh = file.with_suffix(".fresh")
    fresh.write_bytes(_STATIONS.dump_json(stations))  # what is lost in a power cut is said again within seconds
    fresh.replace(file)
