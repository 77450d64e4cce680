"""Places on the overlay: given out once, and free again when the machine has ended.

Two registrations at once must not be given one address, so one transaction at a time gives out any. (On SQLite every
transaction that writes is alone.)
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, delete, select, text

from workers.domain.errors import Refused
from workers.domain.host import HostState
from workers.domain.names import HostId
from workers.domain.overlay import HUB_ADDRESS, Station, free_address
from workers.store.connection import upsert
from workers.store.rows import STATIONS
from workers.store.schema import hosts, stations

# No host is called so: their names begin alike.
HUB: Final = "hub"
SEATS_LOCK: Final = text("SELECT pg_advisory_xact_lock(7707003)")


def seat(connection: Connection, host_id: HostId, key: str, endpoint: str | None) -> Station:
    """Give a host its place: the one that it has, or the lowest that is free. Raises `Refused`, `TryLater`."""
    _alone(connection)
    ended = select(hosts.c.id).where(hosts.c.state == HostState.TERMINATED.value)
    connection.execute(delete(stations).where(stations.c.name.in_(ended)))
    present = _all(connection)
    if any(name != host_id and one.key == key for name, one in present.items()):
        raise Refused(
            f"{host_id} shows the overlay key of another machine; a key is made on its machine and stays there: "
            "remove `identity/wireguard.key` from the image"
        )
    held = present.get(host_id)
    address = held.address if held else free_address(one.address for one in present.values())
    return _put(connection, host_id, Station(key, address, endpoint))


def note_hub(connection: Connection, key: str, endpoint: str) -> Station:
    """Write down who the hub is."""
    _alone(connection)
    return _put(connection, HUB, Station(key, HUB_ADDRESS, endpoint))


def hub(connection: Connection) -> Station | None:
    """Return the hub, None as long as it was not heard of."""
    return _all(connection, stations.c.name == HUB).get(HUB)


def living(connection: Connection) -> dict[HostId, Station]:
    """Return every host that has a place and whose machine has not ended."""
    here = select(hosts.c.id).where(hosts.c.state != HostState.TERMINATED.value)
    return {HostId(name): one for name, one in _all(connection, stations.c.name.in_(here)).items()}


def _alone(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(SEATS_LOCK)


def _all(connection: Connection, *conditions: ColumnElement[bool]) -> dict[str, Station]:
    query = select(stations).where(*conditions).order_by(stations.c.name)
    return {found["name"]: STATIONS.row(found) for found in connection.execute(query).mappings()}


def _put(connection: Connection, name: str, station: Station) -> Station:
    row: dict[str, Any] = {"name": name, **STATIONS.columns(station)}
    upsert(connection, stations, [row])
    return station
