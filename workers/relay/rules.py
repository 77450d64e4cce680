"""The relay's packet filter as text: whose frames it takes, where they may go, and the constant address. Pure.

host ──VXLAN──▶ [owners: this host, this MAC, this IP] ──▶ guests ──▶ [not forbidden] ──▶ NAT ──▶ public interface
                                                             never: relay, other guests, forbidden networks
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final

from workers.domain.names import GATEWAY, GATEWAY6, GUEST_NETWORK, GUEST_NETWORK6
from workers.domain.overlay import GUEST_MTU, OVERLAY_NETWORK, SEGMENT6_OCTETS, SEGMENT_OCTETS
from workers.ports import Forwarding

DEVICE: Final = "guests"
TUNNEL_PORT: Final = 4789
TABLE: Final = "spot_relay"
# No guest may ever reach these, whatever the pool allows: metadata, loopback, each other, private ranges, many at once.
NEVER: Final = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "224.0.0.0/3",
)
# The same for IPv6: loopback and what stands for IPv4 addresses, all that is not routed (metadata: fd00:ec2::254), IPv4
# in another dress (6to4, Teredo), many at once.
NEVER6: Final = ("::/8", "2001::/32", "2002::/16", "fc00::/6")
# What one guest may hold open. It bounds what it takes of the public address's ports and of the relay's memory, and is
# more than a job that builds and downloads ever has.
CONNECTIONS_MAX: Final = 4096

# Bit offsets behind the UDP header's start: 8 octets UDP, 8 octets VXLAN, then the guest's frame.
_INNER_SOURCE: Final = "@th,176,48"
_INNER_TYPE: Final = "@th,224,16"
_INNER_IPV4_SOURCE: Final = "@th,336,32"
_INNER_ARP_SENDER: Final = "@th,352,32"
# An IPv6 address is the guests' network and, at its end, the IPv4 address.
_INNER_IPV6_NETWORK: Final = "@th,304,96"
_INNER_IPV6_END: Final = "@th,400,32"
_NETWORK6: Final = f"0x{int(GUEST_NETWORK6.network_address) >> 32:024x}"


def relay_rules(
    public_interface: str,
    forbidden: Sequence[str],
    entries: Iterable[Forwarding],
    *,
    mtu: int = GUEST_MTU,
    connections_max: int = CONNECTIONS_MAX,
    overlay: str | None = None,
) -> str:
    """Render the whole table; loading it again leaves established connections alone.

    A host can speak for exactly the guests that are on it: after a move the former host's frames are dropped, as are
    those of a host that somebody has broken out to. `mtu` is the guests', in octets; `connections_max` bounds what one
    guest has open, each family by itself. Through the link `overlay`, if there is one, hosts reach each other.
    """
    return f"""\
add table inet {TABLE}
flush table inet {TABLE}
add set inet {TABLE} owners {{ typeof ip saddr . {_INNER_SOURCE} . {_INNER_IPV4_SOURCE}; }}
flush set inet {TABLE} owners
{_add(entries)}
add set inet {TABLE} open {{ type ipv4_addr; size {GUEST_NETWORK.num_addresses}; flags dynamic; }}
add set inet {TABLE} open6 {{ type ipv6_addr; size {GUEST_NETWORK.num_addresses}; flags dynamic; }}
table inet {TABLE} {{
{_ARRIVING}
{_passing(public_interface, forbidden, connections_max, overlay)}
{_shrinking(mtu)}
  chain behind {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname "{public_interface}" ip saddr {GUEST_NETWORK} counter masquerade
    oifname "{public_interface}" ip6 saddr {GUEST_NETWORK6} counter masquerade
  }}
}}
"""


_ARRIVING: Final = f"""\
  chain arriving {{
    type filter hook input priority filter; policy accept;
    udp dport {TUNNEL_PORT} {_INNER_TYPE} 0x0800 \
ip saddr . {_INNER_SOURCE} . {_INNER_IPV4_SOURCE} @owners counter accept
    udp dport {TUNNEL_PORT} {_INNER_TYPE} 0x86dd {_INNER_IPV6_NETWORK} {_NETWORK6} \
ip saddr . {_INNER_SOURCE} . {_INNER_IPV6_END} @owners counter accept
    udp dport {TUNNEL_PORT} {_INNER_TYPE} 0x0806 \
ip saddr . {_INNER_SOURCE} . {_INNER_ARP_SENDER} @owners counter accept
    udp dport {TUNNEL_PORT} counter drop
    iifname "{DEVICE}" ip daddr {GATEWAY} icmp type echo-request limit rate 50/second counter accept
    iifname "{DEVICE}" ip6 daddr {GATEWAY6} icmpv6 type echo-request limit rate 50/second counter accept
    iifname "{DEVICE}" counter drop
  }}"""


def _passing(public_interface: str, forbidden: Sequence[str], connections_max: int, overlay: str | None) -> str:
    closed, closed6 = _closed(forbidden)
    return f"""\
  chain too_many {{
    meta l4proto tcp counter reject with tcp reset
    counter drop
  }}
  chain passing {{
    type filter hook forward priority filter; policy drop;
    iifname "{DEVICE}" oifname "{DEVICE}" counter drop
    {_between(overlay) if overlay else ""}
    iifname "{DEVICE}" ip daddr {{ {closed} }} counter reject with icmp type admin-prohibited
    iifname "{DEVICE}" ip6 daddr {{ {closed6} }} counter reject with icmpv6 type admin-prohibited
    iifname "{DEVICE}" ct state new add @open {{ ip saddr ct count over {connections_max} }} jump too_many
    iifname "{DEVICE}" ct state new add @open6 {{ ip6 saddr ct count over {connections_max} }} jump too_many
    iifname "{DEVICE}" oifname "{public_interface}" ip saddr {GUEST_NETWORK} counter accept
    iifname "{DEVICE}" oifname "{public_interface}" ip6 saddr {GUEST_NETWORK6} counter accept
    iifname "{public_interface}" oifname "{DEVICE}" ct state established,related counter accept
  }}"""


def _between(link: str) -> str:
    """Let hosts reach each other through the hub, each in its own name, which WireGuard has checked."""
    return f'iifname "{link}" oifname "{link}" ip saddr {OVERLAY_NETWORK} ip daddr {OVERLAY_NETWORK} counter accept'


def _shrinking(mtu: int) -> str:
    """Name no longer segment to either side than fits: a network inside a guest may not know of the tunnels."""
    segment, segment6 = mtu - SEGMENT_OCTETS, mtu - SEGMENT6_OCTETS
    return f"""\
  chain shrinking {{
    type filter hook forward priority mangle; policy accept;
    ip version 4 tcp flags syn tcp option maxseg size > {segment} tcp option maxseg size set {segment}
    ip6 version 6 tcp flags syn tcp option maxseg size > {segment6} tcp option maxseg size set {segment6}
  }}"""


def owner_change(before: Forwarding | None, after: Forwarding | None) -> str:
    """Render one entry's change, in one transaction; harmless if it has happened already."""
    # Removing what is not there is an error, adding what is there is none.
    gone = f"{_add([before])}\ndelete element inet {TABLE} owners {{ {_element(before)} }}\n" if before else ""
    return gone + (f"{_add([after])}\n" if after else "")


def _add(entries: Iterable[Forwarding]) -> str:
    elements = ", ".join(_element(entry) for entry in entries)
    return f"add element inet {TABLE} owners {{ {elements} }}" if elements else ""


def _element(entry: Forwarding) -> str:
    mac = "0x" + entry.address.mac.replace(":", "")
    return f"{entry.host_address} . {mac} . 0x{int(ipaddress.IPv4Address(entry.address.ip)):08x}"


def _closed(forbidden: Sequence[str]) -> tuple[str, str]:
    """Return the networks of both families that are closed; nft refuses intervals that overlap."""
    networks = [ipaddress.ip_network(each) for each in (*NEVER, *NEVER6, *forbidden)]
    ipv4 = ipaddress.collapse_addresses(one for one in networks if isinstance(one, ipaddress.IPv4Network))
    ipv6 = ipaddress.collapse_addresses(one for one in networks if isinstance(one, ipaddress.IPv6Network))
    return ", ".join(map(str, ipv4)), ", ".join(map(str, ipv6))
