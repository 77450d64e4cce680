"""Cloud over Hetzner: one server for each host, and the host's id is its name.

    launch ─▶ there already? ─▶ the best offer ─┬─ no room there ─▶ the next one, a few times
                                                └─ its name is taken ─▶ it is there already: somebody was quicker

Names are unique in a project, so a launch whose answer was lost cannot give a second server. A server that is switched
off costs what it costs when it runs: it is STOPPED, and ended like every other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Final

from hcloud.locations import Location
from hcloud.server_types import ServerType
from hcloud.servers import BoundServer
from hcloud.ssh_keys import SSHKey

from workers.domain.errors import NoCapacity, Refused, Throttled
from workers.domain.market import ANYWHERE, Sources
from workers.domain.names import HostId
from workers.domain.runner import Shape
from workers.domain.user_data import cloud_config
from workers.domain.whereabouts import Machine
from workers.ports import Clock, Instance, InstanceState
from workers.providers.hetzner.account import ENDPOINT, Account, AnsweredError
from workers.providers.hetzner.answers import NAME_TAKEN, NOT_FOUND
from workers.providers.hetzner.requests import (
    DEPLOYMENT_LABEL,
    HOST_LABEL,
    Offer,
    Rental,
    labels_of,
    offers_of,
    owned_selector,
)

# The caller's lease ends after ten seconds: what was not to be had within them is tried again by the next look.
ATTEMPTS_MAX: Final = 4
ATTEMPTS_LIMIT: Final = timedelta(seconds=4)
_STATES: Final = {
    "initializing": InstanceState.PENDING,
    "starting": InstanceState.PENDING,
    "off": InstanceState.STOPPED,
}
DELETING: Final = "deleting"
ON_DEMAND: Final = "on-demand"
DOLLARS: Final = "USD"


class Hetzner:
    """ports.Cloud in one project."""

    def __init__(self, account: Account, clock: Clock) -> None:
        self._account, self._clock = account, clock

    @classmethod
    def open(cls, rental: Rental, token: str, clock: Clock, endpoint: str = ENDPOINT) -> Hetzner:
        """Ask nobody yet."""
        return cls(Account.open(rental, token, clock, endpoint), clock)

    @property
    def name(self) -> str:
        return "hetzner"

    def launch(
        self, host_id: HostId, spec: Shape, user_data: Mapping[str, str], sources: Sources = ANYWHERE
    ) -> Instance:
        known = self._found(host_id)
        if known is not None:
            return self._ours(known, host_id)
        told = cloud_config(user_data)
        try:
            return self._bought(host_id, told, self._offers(spec, sources))
        except Refused:
            self._account.read_again()  # an image or a firewall may have been deleted, and the remedy is to make one
            raise

    def terminate(self, host_id: HostId) -> None:
        server = self._found(host_id)
        if server is None or server.status == DELETING or not self._is_ours(server):
            return
        try:
            self._account.ask_bluntly("delete server", server.delete, is_urgent=True)
        except AnsweredError as error:
            if error.answer.code == NOT_FOUND or self._is_ending(host_id):
                return
            raise self._account.error_of(error.answer) from error.__cause__

    def describe(self, host_id: HostId) -> Instance | None:
        server = self._found(host_id)
        return None if server is None or not self._is_ours(server) else self._instance(server)

    def owned(self) -> Iterable[Instance]:
        servers, selector = self._account.client.servers, owned_selector(self._account.rental)
        return [
            self._instance(one)
            for one in self._account.ask("list servers", lambda: servers.get_all(label_selector=selector))
        ]

    def close(self) -> None:
        """Close every connection."""
        self._account.close()

    # ------------------------------------------------------------ bought

    def _offers(self, spec: Shape, sources: Sources) -> Sequence[Offer]:
        """Return what can be had, as Hetzner says. Raises `NoCapacity` if it says that nothing can."""
        found = offers_of(self._account.kinds, self._account.rental, spec, sources)
        available = [one for one in found if one.place.is_available]
        if not available:
            names = ", ".join(str(one) for one in found[:ATTEMPTS_MAX])
            raise NoCapacity(f"Hetzner: {names}: not available now; allow more server types or locations")
        return available

    def _bought(self, host_id: HostId, told: str, offers: Sequence[Offer]) -> Instance:
        ends_at, problems = self._clock.now() + ATTEMPTS_LIMIT, list[str]()
        for offer in offers[:ATTEMPTS_MAX]:
            if problems and self._clock.now() >= ends_at:
                break
            try:
                return self._created(host_id, told, offer)
            except AnsweredError as error:
                answer = error.answer
                if answer.code == NAME_TAKEN:
                    return self._quicker(host_id)
                if not answer.is_no_room:
                    raise self._account.error_of(answer) from error.__cause__
                problems.append(f"{offer}: {answer.message} ({answer.code})")
        self._account.read_again()
        raise NoCapacity(f"Hetzner: {'; '.join(problems)}; allow more server types or locations")

    def _created(self, host_id: HostId, told: str, offer: Offer) -> Instance:
        account, rental = self._account, self._account.rental
        image, firewall = account.image, account.firewall
        made = account.ask_bluntly(
            f"create server ({offer})",
            lambda: account.client.servers.create(
                name=host_id,
                server_type=ServerType(name=offer.kind.name),
                image=image,
                location=Location(name=offer.place.location),
                firewalls=[firewall],
                ssh_keys=None if rental.ssh_key is None else [SSHKey(name=rental.ssh_key)],
                user_data=told,
                labels=labels_of(rental, host_id),
            ),
        )
        return self._instance(made.server)

    def _quicker(self, host_id: HostId) -> Instance:
        """Return what somebody else has made of the same name meanwhile."""
        server = self._found(host_id)
        if server is None:
            raise Throttled(f"Hetzner: {host_id} is taken by a server that is just going; the next look asks again")
        return self._ours(server, host_id)

    # ------------------------------------------------------------ found

    def _found(self, host_id: HostId) -> BoundServer | None:
        servers = self._account.client.servers
        return self._account.ask("find server", lambda: servers.get_by_name(host_id), is_urgent=True)

    def _is_ours(self, server: BoundServer) -> bool:
        return (server.labels or {}).get(DEPLOYMENT_LABEL) == self._account.rental.deployment

    def _ours(self, server: BoundServer, host_id: HostId) -> Instance:
        if not self._is_ours(server):
            raise Refused(
                f"Hetzner: a server {host_id} is in the project and does not carry our label; give spot-runner a "
                "project of its own"
            )
        return self._instance(server)

    def _is_ending(self, host_id: HostId) -> bool:
        server = self._found(host_id)
        return server is None or server.status == DELETING

    def _instance(self, server: BoundServer) -> Instance:
        """Until it is no more something may run there, and it costs."""
        where, kind = server.location, server.server_type
        machine = Machine(
            region=where.network_zone if where else None,
            zone=where.name if where else None,
            instance_type=kind.name if kind else None,
            lifecycle=ON_DEMAND,
            usd_per_hour=self._dollars(server),
            addresses=tuple(_addresses(server)),
        )
        name = (server.labels or {}).get(HOST_LABEL) or server.name or ""
        state = _STATES.get(server.status or "", InstanceState.RUNNING)
        return Instance(str(server.id), HostId(name), state, machine)

    def _dollars(self, server: BoundServer) -> float | None:
        """Return what an hour costs, as jobs are told it, if that is the project's currency."""
        prices = (server.server_type.prices if server.server_type else None) or ()
        here = server.location.name if server.location else None
        found = next((one for one in prices if one["location"] == here), None)
        return float(found["price_hourly"]["net"]) if found and self._account.rental.currency == DOLLARS else None


def _addresses(server: BoundServer) -> Iterator[str]:
    """Yield where its calls come from; the IPv6 one is any of a network that is its own."""
    if server.public_net is not None and server.public_net.ipv4 is not None:
        yield server.public_net.ipv4.ip
    yield from (net.ip for net in server.private_net or ())
