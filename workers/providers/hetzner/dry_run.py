"""What can be seen at Hetzner of a launch without one: it knows no dry run, so what a launch needs is read.

the token reads? ─▶ locations, server types, image, SSH key are there? ─▶ something that would do is sold where wanted?

Whether the token may write, and how many servers the project may have, Hetzner says to a launch only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial

from workers.domain.errors import Refused
from workers.domain.market import Sources
from workers.domain.runner import Shape
from workers.dry_run import Fault
from workers.providers.hetzner.account import Account
from workers.providers.hetzner.requests import offers_of


class HetznerDryRun:
    """dry_run.DryRun in one project."""

    def __init__(self, account: Account) -> None:
        self._account = account

    @property
    def name(self) -> str:
        return "hetzner"

    def faults(self, spec: Shape, wanted: Collection[Sources]) -> Iterator[Fault]:
        servers = self._account.client.servers
        self._account.ask("list servers", lambda: servers.get_list(per_page=1))  # who may not may do nothing
        told = dict[str, Fault]()
        for look in (self._locations, self._types, self._image, self._key):
            _note(told, look)
        if not any(one.is_certain for one in told.values()):
            for sources in wanted:
                _note(told, partial(self._offers, spec, sources))
        yield from told.values()

    def _locations(self) -> Iterator[Fault]:
        account, wanted = self._account, self._account.rental.locations
        known = {one.name for one in account.ask("list locations", account.client.locations.get_all)}
        yield from _unknown("location", [name for name in wanted if name not in known], wanted, "LOCATIONS")

    def _types(self) -> Iterator[Fault]:
        known, wanted = {kind.name for kind in self._account.kinds}, self._account.rental.server_types
        yield from _unknown("server type", [name for name in wanted if name not in known], wanted, "SERVER_TYPES")

    def _image(self) -> Iterator[Fault]:
        _ = self._account.image
        yield from ()

    def _key(self) -> Iterator[Fault]:
        name, keys = self._account.rental.ssh_key, self._account.client.ssh_keys
        if name is not None and self._account.ask("find SSH key", lambda: keys.get_by_name(name)) is None:
            yield Fault(f"Hetzner: there is no SSH key {name}; add it in the project, or correct "
                        "SPOT_RUNNER_HETZNER_SSH_KEY")  # fmt: skip

    def _offers(self, spec: Shape, sources: Sources) -> Iterator[Fault]:
        found = offers_of(self._account.kinds, self._account.rental, spec, sources)
        if not any(one.place.is_available for one in found):
            names = ", ".join(dict.fromkeys(str(one) for one in found))
            yield Fault(
                f"Hetzner: {names}: not available now; allow more server types or locations, or wait", is_certain=False
            )


def _note(told: dict[str, Fault], look: Callable[[], Iterator[Fault]]) -> None:
    try:
        for fault in look():
            told.setdefault(fault.sentence, fault)
    except Refused as error:
        told.setdefault(str(error), Fault(str(error)))


def _unknown(what: str, names: Sequence[str], wanted: Sequence[str], setting: str) -> Iterator[Fault]:
    """Say which are not there; as long as others are, hosts are launched."""
    if names:
        yield Fault(
            f"Hetzner: there is no {what} {', '.join(names)} (any more); correct SPOT_RUNNER_HETZNER_{setting}",
            is_certain=len(names) == len(wanted),
        )
