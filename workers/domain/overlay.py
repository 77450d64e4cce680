"""How the deployment's machines reach each other, and what that leaves of a packet for the guests. Pure.

    plain      underlay ▸ VXLAN ▸ guest's frame                 one machine, or one network that is trusted
    wireguard  underlay ▸ WireGuard ▸ VXLAN ▸ guest's frame     everything else

A guest keeps its MTU wherever it moves, so one deployment has one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Final

from workers.domain.errors import BadInput, TryLater

# An IPv4 header, UDP, VXLAN's own eight octets and the guest's Ethernet header.
VXLAN_OCTETS: Final = 20 + 8 + 8 + 14
# The outer IPv6 header (IPv4's is shorter), UDP, and 32 octets of WireGuard's own.
WIREGUARD_OCTETS: Final = 40 + 8 + 32
# No narrower link carries IPv6 (RFC 8200, section 5).
GUEST_MTU_MIN: Final = 1280
UNDERLAY_MTU: Final = 1500
# An IPv4 and a TCP header, an IPv6 and a TCP header: what a segment leaves of a packet.
SEGMENT_OCTETS: Final = 40
SEGMENT6_OCTETS: Final = 60


class Overlay(StrEnum):
    """What lies between the machines' own network and the guests' frames."""

    PLAIN = auto()
    WIREGUARD = auto()


class GuestNetwork(StrEnum):
    """How a guest leaves into the internet, and what a move costs its connections."""

    RELAY = auto()
    """Through the relay, whose address is constant: connections live on."""
    NAT = auto()
    """Through its host: after a move every connection is reset at once, so that clients try again."""


def tunnel_mtu(underlay_mtu: int, overlay: Overlay) -> int:
    """Return how long a packet between two machines may be, in octets, with its IP header."""
    return underlay_mtu - (WIREGUARD_OCTETS if overlay is Overlay.WIREGUARD else 0)


def guest_mtu(underlay_mtu: int, overlay: Overlay) -> int:
    """Return how long a guest's packet may be so that it is never cut on its way. Raises `BadInput`."""
    mtu = tunnel_mtu(underlay_mtu, overlay) - VXLAN_OCTETS
    if mtu < GUEST_MTU_MIN:
        lowest = underlay_mtu - mtu + GUEST_MTU_MIN
        raise BadInput(
            f"underlay_mtu: {underlay_mtu} leaves a guest {mtu} octets, and IPv6 needs {GUEST_MTU_MIN}; "
            f"use a network of {lowest} or more"
        )
    return mtu


# What fits through every overlay on an ordinary network.
GUEST_MTU: Final = guest_mtu(UNDERLAY_MTU, Overlay.WIREGUARD)


# ---------------------------------------------------------------- who speaks to whom

OVERLAY_NETWORK: Final = ipaddress.IPv4Network("10.91.0.0/16")
HUB_ADDRESS: Final = str(OVERLAY_NETWORK[1])
# The first places are left to the hub and to what may come to stand beside it.
FIRST_PLACE: Final = 16
OVERLAY_PORT: Final = 51820
# Shorter than the 30 s after which many NATs forget a UDP flow.
KEEPALIVE_S: Final = 20
_KEY_OCTETS: Final = 32


@dataclass(frozen=True)
class Station:
    """One machine on the overlay: what all others are told of it."""

    key: str
    """WireGuard's public key, base64."""
    address: str
    """On the overlay; nobody else's."""
    endpoint: str | None
    """`address:port` at which anybody reaches it; None if it is behind a NAT and has to dial out."""


@dataclass(frozen=True)
class Peer:
    """One tunnel of one machine."""

    key: str
    allowed: tuple[str, ...]
    """The networks that lie behind it: nothing else is sent there, and nothing else taken from there."""
    endpoint: str | None
    keepalive_s: int | None


def peers_of_host(me: Station, hub: Station, stations: Iterable[Station]) -> tuple[Peer, ...]:
    """Return a host's tunnels: straight to whoever one of both can dial, through the hub to everybody else.

    Whoever is behind a NAT keeps its tunnels alive, so that those that it dialled can always answer.
    """
    keepalive = KEEPALIVE_S if me.endpoint is None else None
    to_hub = Peer(hub.key, (str(OVERLAY_NETWORK),), hub.endpoint, keepalive)
    direct = (
        Peer(one.key, (f"{one.address}/32",), one.endpoint, keepalive)
        for one in sorted(stations, key=lambda one: one.address)
        if one.key not in {me.key, hub.key} and (one.endpoint or me.endpoint)
    )
    return (to_hub, *direct)


def stamp_of(peers: Iterable[Peer]) -> str:
    """Return what tells one set of tunnels from another: hex, and the same in whatever order they come."""
    return hashlib.sha256("\n".join(sorted(map(repr, peers))).encode()).hexdigest()


def peers_of_hub(stations: Iterable[Station]) -> tuple[Peer, ...]:
    """Return the hub's tunnels: one to every host, each with that host's address alone."""
    ordered = sorted(stations, key=lambda one: one.address)
    return tuple(Peer(one.key, (f"{one.address}/32",), one.endpoint, None) for one in ordered)


def free_address(taken: Iterable[str]) -> str:
    """Return the lowest address of the overlay that nobody has. Raises `TryLater` if there is none."""
    places = {int(ipaddress.IPv4Address(one)) for one in taken}
    first, last = int(OVERLAY_NETWORK[FIRST_PLACE]), int(OVERLAY_NETWORK.broadcast_address)
    place = next((one for one in range(first, last) if one not in places), None)
    if place is None:
        raise TryLater(f"every address of the overlay {OVERLAY_NETWORK} is in use; end hosts that are idle")
    return str(ipaddress.IPv4Address(place))


def checked_station(station: Station) -> Station:
    """Return what a machine says of itself if it makes sense. Raises `BadInput` with the field that does not."""
    try:
        octets = base64.b64decode(station.key, validate=True)
    except binascii.Error:
        octets = b""
    if len(octets) != _KEY_OCTETS:
        raise BadInput(f"key: {station.key!r} is no WireGuard key; send 32 octets in base64")
    if station.endpoint is not None and not is_endpoint(station.endpoint):
        raise BadInput(f"endpoint: {station.endpoint!r} is no address with a port; send one, or none at all")
    return station


def is_endpoint(text: str) -> bool:
    """Say whether this is an IP address and a port, `192.0.2.1:51820` or `[2001:db8::1]:51820`."""
    address, _, port = text.rpartition(":")
    try:
        # An IPv6 zone may be any text at all, and what we write is read line by line.
        ip = ipaddress.ip_address(address.removeprefix("[").removesuffix("]").replace("%", "no zone"))
    except ValueError:
        return False
    is_bracketed = address.startswith("[") and address.endswith("]")
    fits = port.isascii() and port.isdecimal() and 0 < int(port) < 1 << 16
    return fits and is_bracketed is isinstance(ip, ipaddress.IPv6Address)
