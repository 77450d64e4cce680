"""The machine of a control plane in a Hetzner project: made once, or not at all.

    server there? ──yes──▶ its firewall is set right, and that is all
          └─no─▶ key ─▶ firewall ─▶ volume ─▶ server ─▶ running     whatever fails: all that was not there before goes

Names are unique in a project, so what an answer did not say is found by its name. A volume that was there already is
attached again, because it is the home of a machine that is no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol, TypeVar

from hcloud.firewalls import BoundFirewall, FirewallRule
from hcloud.images import Image
from hcloud.locations import Location
from hcloud.server_types import ServerType
from hcloud.servers import BoundServer
from hcloud.ssh_keys import BoundSSHKey
from hcloud.volumes import BoundVolume

from workers.domain.errors import NoCapacity, Refused, SpotError, Throttled, Unreachable
from workers.ports import Clock
from workers.providers.hetzner.account import Account
from workers.providers.hetzner.requests import ARCHITECTURE, EVERYWHERE, MIB_PER_GIB

T = TypeVar("T")

CONTROL_LABEL: Final = "spot-runner/control"
# The processes of the control plane take about a gigabyte.
VCPUS_MIN: Final = 2
MEMORY_MIN_MIB: Final = 2 * MIB_PER_GIB
# A server runs within half a minute, and is deleted within seconds.
WAIT_LIMIT: Final = timedelta(minutes=5)
PAUSE_S: Final = 1.0
HTTP, HTTPS, HOST_WORDS, SSH, OVERLAY = "80", "443", "8443", "22", "51820"


@dataclass(frozen=True)
class Order:
    """What is to be there."""

    name: str
    """The server's; all else is named after it."""
    location: str
    public_key: str
    """Whose owner may log in, in OpenSSH's form."""
    admin_networks: tuple[str, ...]
    """From where."""
    volume_gb: int
    user_data: Callable[[str], str]
    """Returns it for the device of the volume."""
    server_type: str | None = None
    """None: the cheapest that is large enough."""
    image: str = "debian-12"


@dataclass(frozen=True)
class Made:
    """What is there now."""

    address: str
    server_type: str
    was_there: bool


class _Thing(Protocol):
    @property
    def labels(self) -> dict[str, str] | None: ...
    def delete(self) -> object: ...


class ControlPlane:
    """Makes one."""

    def __init__(self, account: Account, clock: Clock, pause: Callable[[float], None]) -> None:
        """`pause` lets so many seconds pass."""
        self._account, self._clock, self._pause = account, clock, pause
        self._client = account.client

    def make(self, order: Order) -> Made:
        """Make it, or find it. Raises the port's errors; then nothing is left of what was not there before."""
        server = self._server(order)
        if server is not None:
            self._require_ours("server", server, order)
            self._firewall(order)
            return _made(server, was_there=True)
        server_type = order.server_type or self._cheapest(order.location)
        with self._undone_if_it_fails(order):
            key, firewall, volume = self._key(order), self._firewall(order), self._volume(order)
            self._create(order, server_type, key, firewall, volume)
            return _made(self._until(lambda: self._running(order), f"the server {order.name} runs"), was_there=False)

    # ------------------------------------------------------------ each thing

    def _key(self, order: Order) -> BoundSSHKey:
        keys = self._client.ssh_keys
        wanted = order.public_key.split()[:2]
        for one in self._account.ask("list ssh keys", keys.get_all):
            if (one.public_key or "").split()[:2] == wanted:
                return one
            if one.name == order.name:
                raise Refused(
                    f"Hetzner: the project has another SSH key of the name {order.name}; rename it there, or give the "
                    "control plane another name"
                )
        return self._account.ask(
            "create ssh key", lambda: keys.create(order.name, order.public_key, labels=_labels(order))
        )

    def _firewall(self, order: Order) -> BoundFirewall:
        firewalls, name, rules = self._client.firewalls, _firewall_name(order), list(_rules(order))
        found = self._account.ask("find firewall", lambda: firewalls.get_by_name(name))
        if found is not None:
            self._require_ours("firewall", found, order)
            self._account.ask("set firewall rules", lambda: firewalls.set_rules(found, rules))
            return found
        # hcloud calls labels text here, and sends what it is given; Hetzner wants them as everywhere.
        made = self._account.ask("create firewall", lambda: firewalls.create(name, rules, _labels(order)))  # type: ignore[arg-type]  # see above
        return made.firewall

    def _volume(self, order: Order) -> BoundVolume:
        volumes = self._client.volumes
        found = self._find_volume(order)
        if found is None:
            self._account.ask(
                "create volume",
                lambda: volumes.create(
                    size=order.volume_gb,
                    name=_volume_name(order),
                    labels=_labels(order),  # type: ignore[arg-type]  # as above
                    location=Location(name=order.location),
                ),
            )
        else:
            self._require_ours("volume", found, order)
            where = found.location.name if found.location else None
            if where != order.location:
                raise Refused(f"Hetzner: the volume {found.name} is in {where}; make the control plane there")
            if found.server is not None:
                raise Refused(f"Hetzner: the volume {found.name} is attached to another server; detach it first")
        return self._until(lambda: self._available(order), f"the volume {_volume_name(order)} is available")

    def _create(
        self, order: Order, server_type: str, key: BoundSSHKey, firewall: BoundFirewall, volume: BoundVolume
    ) -> None:
        told = order.user_data(f"/dev/disk/by-id/scsi-0HC_Volume_{volume.id}")
        self._account.ask(
            f"create server ({server_type} in {order.location})",
            lambda: self._client.servers.create(
                name=order.name,
                server_type=ServerType(name=server_type),
                image=Image(name=order.image),
                location=Location(name=order.location),
                ssh_keys=[key],
                firewalls=[firewall],
                volumes=[volume],
                automount=False,
                user_data=told,
                labels=_labels(order),
            ),
        )

    def _cheapest(self, location: str) -> str:
        fit = [
            (place.price, kind.name)
            for kind in self._account.kinds
            if kind.architecture == ARCHITECTURE and kind.vcpus >= VCPUS_MIN and kind.memory_mib >= MEMORY_MIN_MIB
            for place in kind.places
            if place.location == location and place.is_available
        ]
        if not fit:
            raise NoCapacity(f"Hetzner: no server of 2 GiB or more is to be had in {location}; name another location")
        return min(fit)[1]

    # ------------------------------------------------------------ found

    def _server(self, order: Order) -> BoundServer | None:
        return self._account.ask("find server", lambda: self._client.servers.get_by_name(order.name))

    def _find_volume(self, order: Order) -> BoundVolume | None:
        return self._account.ask("find volume", lambda: self._client.volumes.get_by_name(_volume_name(order)))

    def _running(self, order: Order) -> BoundServer | None:
        server = self._server(order)
        return server if server is not None and server.status == "running" else None

    def _available(self, order: Order) -> BoundVolume | None:
        volume = self._find_volume(order)
        return volume if volume is not None and volume.status == "available" else None

    def _require_ours(self, what: str, found: _Thing, order: Order) -> None:
        if (found.labels or {}).get(CONTROL_LABEL) != order.name:
            raise Refused(
                f"Hetzner: the project has a {what} of that name which no control plane has made; give this one "
                "another name, or a project of its own"
            )

    # ------------------------------------------------------------ not at all

    @contextmanager
    def _undone_if_it_fails(self, order: Order) -> Iterator[None]:
        found = self._found(order)
        before = [what for what, find in found if find() is not None]
        try:
            yield
        except BaseException:
            for what, find in found:
                if what not in before:
                    self._delete(what, find, order)
            raise

    def _found(self, order: Order) -> Sequence[tuple[str, Callable[[], _Thing | None]]]:
        """Return how each thing is found, what is deleted first at first."""
        ask, client = self._account.ask, self._client
        return (
            ("server", lambda: self._server(order)),
            ("volume", lambda: self._find_volume(order)),
            ("firewall", lambda: ask("find firewall", lambda: client.firewalls.get_by_name(_firewall_name(order)))),
            ("ssh key", lambda: ask("find ssh key", lambda: client.ssh_keys.get_by_name(order.name))),
        )

    def _delete(self, what: str, find: Callable[[], _Thing | None], order: Order) -> None:
        """Delete it and wait until it is gone; what cannot be deleted now is left to whoever reads why it failed."""

        def is_gone() -> bool | None:
            found = find()
            if found is None or (found.labels or {}).get(CONTROL_LABEL) != order.name:
                return True
            with suppress(Throttled, Unreachable):
                self._account.ask(f"delete {what}", found.delete, is_urgent=True)
            return None

        with suppress(SpotError):
            self._until(is_gone, f"the {what} of {order.name} is gone")

    def _until(self, look: Callable[[], T | None], what: str) -> T:
        end = self._clock.now() + WAIT_LIMIT
        while (found := look()) is None:
            if self._clock.now() >= end:
                raise Unreachable(f"Hetzner: it was not seen within {WAIT_LIMIT} that {what}; call it again")
            self._pause(PAUSE_S)
        return found


def _made(server: BoundServer, *, was_there: bool) -> Made:
    net = server.public_net
    address = net.ipv4.ip if net is not None and net.ipv4 is not None else ""
    kind = server.server_type.name if server.server_type else None
    return Made(address, kind or "", was_there)


def _labels(order: Order) -> dict[str, str]:
    return {CONTROL_LABEL: order.name}


def _firewall_name(order: Order) -> str:
    return f"{order.name}-control"


def _volume_name(order: Order) -> str:
    return f"{order.name}-home"


def _rules(order: Order) -> Iterator[FirewallRule]:
    everywhere = list(EVERYWHERE)
    for protocol, port, sources, why in (
        ("tcp", HTTPS, everywhere, "GitHub and people"),
        ("tcp", HTTP, everywhere, "how the certificate is got"),
        ("tcp", HOST_WORDS, everywhere, "hosts, which show certificates"),
        ("udp", OVERLAY, everywhere, "the overlay, which knows its peers by their keys"),
        ("tcp", SSH, list(order.admin_networks), "whoever runs it"),
    ):
        yield FirewallRule("in", protocol, sources, port, None, why)
