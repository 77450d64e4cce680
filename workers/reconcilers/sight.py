"""What several reconcilers look up alike."""

from __future__ import annotations

from workers.domain.host import Host
from workers.domain.names import HostId
from workers.ports import Store


def host_of(store: Store, key: HostId | None) -> Host | None:
    """Return the host with this name; None for the object store, which is none, and for one that is not known."""
    return None if key is None else store.hosts.get(key)
