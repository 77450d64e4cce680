"""Whether a machine may become the host that it says it is: once, in time, with its own token, from its own address.

token unknown, another host's, used, too old │ machine elsewhere than the cloud says │ host not awaited ─▶ refused
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from workers.domain.host import Host, HostState
from workers.domain.names import HostId

# Of such an address (RFC 1918, RFC 6598) nobody outside sees a call: the machine has another, or a NAT calls for it.
PRIVATE: Final = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")))


@dataclass(frozen=True)
class Token:
    """A one-time token, as it is kept."""

    host_id: HostId
    expires_at: datetime
    burned_at: datetime | None = None
    burned_by: str | None = None
    """The address that was registered with it."""


def token_refusal(host_id: HostId, host: Host | None, token: Token | None, now: datetime) -> str | None:
    """Say why nobody registers as this host with this token, None if its machine may."""
    if token is None:
        return "its token is unknown; a machine has to be launched with its own user data"
    if token.host_id != host_id:
        return f"its token is that of {token.host_id}; a machine has to be launched with its own user data"
    if token.burned_at is not None:
        return (
            f"its token was used already, at {_moment(token.burned_at)} by {token.burned_by}; let another be launched"
        )
    if token.expires_at <= now:
        return f"its token was good until {_moment(token.expires_at)}; let another be launched"
    if host is None or not awaits_registration(host):
        return f"it is {'not known here' if host is None else host.state}, and awaited no more"
    return None


def awaits_registration(host: Host) -> bool:
    """Say whether its machine may still come."""
    return host.state in {HostState.REQUESTED, HostState.LAUNCHING}


def is_elsewhere(source: str | None, host: Host, nats: Collection[str]) -> bool:
    """Say whether a call from this address cannot be this host's machine's; unknown addresses say nothing.

    `nats` are networks behind whose addresses machines without one of their own are seen.
    """
    addresses = host.machine.addresses if host.machine is not None else None
    if source is None or addresses is None:
        return False
    seen = plain_address(source)
    is_own = seen in {plain_address(one) for one in addresses}
    return not is_own and not any(ipaddress.ip_address(seen) in ipaddress.ip_network(nat) for nat in nats)


def awaits_address(host: Host) -> bool:
    """Say whether its cloud may still tell an address that its machine will be seen at."""
    addresses = host.machine.addresses if host.machine is not None else None
    if addresses is None or not awaits_registration(host):
        return False
    return all(any(ipaddress.ip_address(one) in net for net in PRIVATE) for one in addresses)


def elsewhere(source: str | None, host: Host) -> str:
    """Say that the machine is not where it should be."""
    there = host.machine.addresses if host.machine is not None else None
    return (
        f"its token came from {source}, and the cloud says that its machine has "
        f"{', '.join(there or ()) or 'no address'}; if hosts are seen behind a NAT, name its address in "
        "SPOT_RUNNER_HOST_NATS"
    )


def began_at(now: datetime, not_before: datetime, spans_s: Collection[float]) -> datetime:
    """Return when a machine began to run, by what it says of itself: the first span that can be true of it.

    A host that shares its kernel with others has one that is older than it was asked for.
    """
    moments = (datetime.fromtimestamp(now.timestamp() - span, tz=now.tzinfo) for span in spans_s if span >= 0)
    return next((moment for moment in moments if moment >= not_before), now)


def plain_address(text: str) -> str:
    """Return an address as everybody writes it; an IPv4 one that came through IPv6 is what it was."""
    found = ipaddress.ip_address(text)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
