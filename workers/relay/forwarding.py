"""Which host each guest is on: a projection of the committed rows, with their epochs. Pure.

    (nothing) ──point──▶ held, epoch n ──point, epoch > n──▶ held elsewhere
        ▲                    │
        └──── forgotten at epoch n: older words about this runner stay without effect

A lower epoch is refused, so a late or doubled word never brings a former host back.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from workers.domain.errors import BadInput, Bug, Refused
from workers.domain.names import FIRST_NUMBER, GUEST_NETWORK, RunnerId, guest_address
from workers.ports import Forwarding

# A word about a forgotten runner comes late by seconds; by then not nearly as many others have gone.
REMEMBERED_MAX: Final = 4096


@dataclass(frozen=True)
class Table:
    """What the relay holds."""

    entries: Mapping[RunnerId, Forwarding] = field(default_factory=dict)
    forgotten: Mapping[RunnerId, int] = field(default_factory=dict)
    """The epoch at which a runner was forgotten, oldest first."""


def point(table: Table, entry: Forwarding) -> Table:
    """Hold this entry; the same again changes nothing. Raises `Refused` if a later word is known, `BadInput`."""
    _check(entry)
    held, gone = table.entries.get(entry.runner_id), table.forgotten.get(entry.runner_id)
    if gone is not None and entry.epoch <= gone:
        raise Refused(f"{entry.runner_id} was forgotten at epoch {gone}, so epoch {entry.epoch} comes too late")
    if held is not None and entry.epoch < held.epoch:
        raise Refused(f"{entry.runner_id} is at epoch {held.epoch} already, so epoch {entry.epoch} comes too late")
    if held is not None and entry.epoch == held.epoch and entry != held:
        raise Refused(f"{entry.runner_id} is at {held.host_address} in epoch {held.epoch}; two places need two epochs")
    # A number is given out again only when its runner is gone, so the latest to claim an address has it.
    former = [
        other
        for other in table.entries.values()
        if other.address == entry.address and other.runner_id != entry.runner_id
    ]
    for other in former:
        table = forget(table, other.runner_id, other.epoch)
    return replace(table, entries={**table.entries, entry.runner_id: entry})


def forget(table: Table, runner_id: RunnerId, epoch: int) -> Table:
    """Drop what this runner has, unless a higher epoch owns it; then nothing changes."""
    held = table.entries.get(runner_id)
    if held is not None and held.epoch > epoch:
        return table
    entries = {other: entry for other, entry in table.entries.items() if other != runner_id}
    forgotten = {other: gone for other, gone in table.forgotten.items() if other != runner_id}
    forgotten[runner_id] = max(epoch, table.forgotten.get(runner_id, 0))
    return Table(entries, dict(list(forgotten.items())[-REMEMBERED_MAX:]))


def replace_all(table: Table, entries: Iterable[Forwarding], fresh: Collection[RunnerId] = ()) -> Table:
    """Hold exactly these runners, each in the later of its two epochs. Raises `BadInput` and changes nothing.

    The word is made of rows that were read a moment ago, so it does not know who was pointed to since: those in
    `fresh` stay. Nor does it say that a runner is gone for good, so whoever is dropped may be pointed to again.
    """
    wanted = {entry.runner_id: entry for entry in entries}
    table = replace(table, entries={one: held for one, held in table.entries.items() if one in wanted or one in fresh})
    for entry in wanted.values():
        _check(entry)
        if not _is_late(table, entry):
            table = point(table, entry)
    return table


def _is_late(table: Table, entry: Forwarding) -> bool:
    held, gone = table.entries.get(entry.runner_id), table.forgotten.get(entry.runner_id, -1)
    return entry.epoch <= gone or (held is not None and entry.epoch < held.epoch)


def _check(entry: Forwarding) -> None:
    try:
        ipaddress.IPv4Address(entry.host_address)
        number = int(ipaddress.IPv4Address(entry.address.ip)) - int(GUEST_NETWORK[0]) - FIRST_NUMBER
        lawful = guest_address(number)
    except (ValueError, Bug) as error:
        raise BadInput(
            f"{entry.runner_id}: {error}; host and guest have IPv4 addresses, the guest's in {GUEST_NETWORK}"
        ) from error
    if entry.address != lawful:
        raise BadInput(
            f"{entry.runner_id}: address: {entry.address.ip} belongs to {lawful.mac}, not {entry.address.mac}"
        )
