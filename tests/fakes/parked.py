"""The host's side of parks: what a daemon puts into the object store and takes out again, by the URLs that it is given.

A guest's contents cannot be bytes here, so a part holds a number, and this is where the guest of that number lies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tests.fakes.guests import Guest
from tests.fakes.objects import MemoryObjects
from tests.fakes.trouble import Trouble
from webhook.words import Words
from workers.domain.errors import Refused
from workers.domain.messages import MoveOrder, ParkOrder
from workers.domain.names import HostId
from workers.domain.park import (
    MANIFEST,
    Manifest,
    Part,
    Stream,
    manifest_bytes,
    manifest_hash,
    part_name,
    read_manifest,
)

MEMORY, DISK = part_name(Stream.MEMORY, 0), part_name(Stream.DISK, 0)


@dataclass
class ParkedGuests:
    """Raises `TryLater` or `Refused` as the store does."""

    words: Words
    objects: MemoryObjects
    wire: Trouble
    guests: list[Guest] = field(default_factory=list)

    def put(self, host_id: HostId, order: MoveOrder, guest: Guest) -> str:
        """Put a guest that stands still into the store; return what its source says with PAUSED."""
        park = _park(order)
        urls = self._urls(host_id, order, (MEMORY, DISK, MANIFEST))
        self.guests.append(replace(guest, ran_on=None))
        parts = {name: f"{park.key} {name} {len(self.guests) - 1}".encode() for name in (MEMORY, DISK)}
        memory, disk = ((Part(len(one), hashlib.sha256(one).hexdigest()),) for one in parts.values())
        content = manifest_bytes(Manifest(park.park_id, memory, disk, 0))
        for name, one in (*parts.items(), (MANIFEST, content)):
            with self.wire.befalls("store", "put", name):
                self.objects.put(urls[name], one)
        return manifest_hash(content)

    def take(self, host_id: HostId, order: MoveOrder) -> Guest:
        """Take a guest out of the store, as it was when it was put there."""
        park = _park(order)
        urls = self._urls(host_id, order, (MEMORY, DISK, MANIFEST))
        with self.wire.befalls("store", "get", MANIFEST):
            manifest = read_manifest(self.objects.get(urls[MANIFEST]), park.park_id, park.manifest)
        assert set(manifest.sizes()) == {MEMORY, DISK}
        with self.wire.befalls("store", "get", MEMORY):
            key, name, number = self.objects.get(urls[MEMORY]).decode().split()
        assert (key, name) == (park.key, MEMORY), "it was sealed with another key, or for another place"
        return replace(self.guests[int(number)])

    def _urls(self, host_id: HostId, order: MoveOrder, names: Sequence[str]) -> dict[str, str]:
        with self.wire.befalls("listener", "objects", order.migration_id):
            urls = self.words.object_urls(host_id, order.migration_id, names)
        if urls is None:
            raise Refused(f"{order.migration_id} is not {host_id}'s")
        return dict(urls)


def _park(order: MoveOrder) -> ParkOrder:
    assert order.park is not None
    assert len(bytes.fromhex(order.park.key)) == 32
    return order.park
