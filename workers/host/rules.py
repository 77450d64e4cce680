"""The host's packet filter as text: what a guest, its monitor and a migration may send. Pure.

    guest ─▶ tap ─[table of the tap: only itself, only to the gateway]─▶ bridge ─▶ tunnel ─▶ relay
                                                                            never: host, metadata, other guests

Every text is a transaction that may be loaded again at any time: it empties its table and fills it anew, so the
rules never drift from what is meant, and no packet sees an empty table.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

from workers.domain.names import (
    FIRST_USER,
    GATEWAY,
    GATEWAY6,
    GATEWAY_MAC,
    GUEST_NETWORK,
    NUMBERS_MAX,
    GuestAddress,
)
from workers.domain.overlay import OVERLAY_NETWORK

BRIDGE: Final = "guests"
TUNNEL: Final = "vx-relay"
TUNNEL_PORT: Final = 4789
MIGRATION_PORTS: Final = (49152, 49999)
TABLE: Final = "spot_host"
# A guest asks for its gateway's MAC now and then; more than this is a flood.
ARP_PER_SECOND: Final = 20
# What one guest may send, and be sent, in a second: enough for any download, and a flood leaves room for the others.
GUEST_MBIT: Final = 1000
# Beside what the kernel's bucket holds anyway, which is a second's worth.
BURST_KBYTES: Final = 128
# Beside the gateway's, no guest needs an address that leads to its own machine, to the cloud or to many at once.
NEVER: Final = ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")
# Loopback, addresses that stand for IPv4 ones, everything that is not routed (metadata: fd00:ec2::254), many at once.
NEVER6: Final = ("::/8", "fc00::/6")
# TCP, UDP, ICMP and fragments of them: a packet that begins with another header may hide what it carries. As numbers,
# because nft looks names up in /etc/protocols, and a small machine has none.
CARRIED6: Final = "{ 6, 17, 58, 44 }"
# Multicast groups, then routers, neighbours, redirects: a guest's only neighbour is written down on both sides.
LINK_LOCAL_TALK: Final = "{ 130-132, 133-137, 143 }"

_PORTS: Final = f"{MIGRATION_PORTS[0]}-{MIGRATION_PORTS[1]}"
_MONITORS: Final = f"{FIRST_USER}-{FIRST_USER + NUMBERS_MAX - 1}"


class Approach(NamedTuple):
    """One monitor's way to its peer."""

    user: int
    peer_address: str
    port: int


def tap_name(number: int) -> str:
    """Name the tap of the runner with this number."""
    return f"tap{number}"


def tap_number(name: str) -> int | None:
    """Return the runner's number if this is the name of a guest's tap."""
    number = name.removeprefix("tap")
    return int(number) if number != name and number.isdecimal() else None


def tap_rules(number: int, address: GuestAddress, mbit: int = GUEST_MBIT) -> str:
    """Render what one guest may send: ARP for its gateway and IP through it, all in its own name, so much a second.

    Everything else is dropped: foreign MAC, IP or ARP senders, neighbour and router messages of IPv6, VLAN tags, DHCP
    answers, frames to anything but the gateway, the announcement that a monitor makes after a move.
    """
    table = f"netdev spot_{tap_name(number)}"
    return f"""\
add table {table}
flush table {table}
table {table} {{
  chain guest {{
    type filter hook ingress device "{tap_name(number)}" priority -500; policy drop;
    ether saddr != {address.mac} counter drop
    ether daddr {{ ff:ff:ff:ff:ff:ff, {GATEWAY_MAC} }} ether type arp arp htype 1 arp ptype ip \
arp saddr ether {address.mac} arp saddr ip {address.ip} arp daddr ip {GATEWAY} \
limit rate {ARP_PER_SECOND}/second counter accept
    ether daddr != {GATEWAY_MAC} counter drop
    ether type != {{ ip, ip6 }} counter drop
    ip saddr != {address.ip} counter drop
    ip daddr {{ {", ".join(NEVER)} }} counter drop
    ip daddr {GUEST_NETWORK} ip daddr != {GATEWAY} counter drop
    ip6 saddr != {address.ip6} counter drop
    ip6 daddr {{ {", ".join(NEVER6)} }} ip6 daddr != {GATEWAY6} counter drop
    ip6 nexthdr != {CARRIED6} counter drop
    icmpv6 type {LINK_LOCAL_TALK} counter drop
    udp sport {{ 67, 547 }} counter drop
    limit rate over {mbit * 125} kbytes/second burst {BURST_KBYTES} kbytes counter drop
    ether type {{ ip, ip6 }} counter accept
    counter drop
  }}
}}
"""


def no_tap_rules(number: int) -> str:
    """Render the removal of one tap's table, whether it is there or not."""
    table = f"netdev spot_{tap_name(number)}"
    return f"add table {table}\ndelete table {table}\n"


def host_rules(
    relay_address: str | None,
    admitted: Mapping[int, str],
    approached: Collection[Approach] = (),
    overlay: str | None = None,
) -> str:
    """Render what protects the host itself, its migrations and the cloud's metadata service.

    `admitted` holds, for each migration port that is open, the address of the one peer that may use it; `approached`
    whom our own monitors may call, each the peer of its own migration and nobody else. `overlay` names the link through
    which addresses of the overlay come, each checked by WireGuard; from anywhere else they are believed of nobody.
    """
    return f"""\
add table inet {TABLE}
flush table inet {TABLE}
{_sets(admitted, approached)}
table inet {TABLE} {{
  chain before {{
    type filter hook prerouting priority raw; policy accept;
    iifname {{ "{BRIDGE}", "{TUNNEL}", "tap*" }} counter drop
  }}
  chain arriving {{
    type filter hook input priority filter; policy accept;
    iifname {{ "{BRIDGE}", "{TUNNEL}", "tap*" }} counter drop
    {_checked(overlay) if overlay else ""}
    {f"udp dport {TUNNEL_PORT} ip saddr {relay_address} counter accept" if relay_address else ""}
    udp dport {TUNNEL_PORT} counter drop
    tcp dport {_PORTS} ip saddr . tcp dport @admitted counter accept
    tcp dport {_PORTS} counter drop
  }}
  chain passing {{
    type filter hook forward priority filter; policy accept;
    iifname {{ "{BRIDGE}", "{TUNNEL}", "tap*" }} counter drop
    oifname {{ "{BRIDGE}", "{TUNNEL}", "tap*" }} counter drop
  }}
  chain leaving {{
    type filter hook output priority filter; policy accept;
    ip daddr 169.254.169.254 meta skuid != 0 counter reject with icmp type admin-prohibited
    ip6 daddr fd00:ec2::254 meta skuid != 0 counter reject with icmpv6 type admin-prohibited
    meta skuid . ip daddr . tcp dport @approached counter accept
    meta skuid {_MONITORS} tcp sport {_PORTS} tcp flags & (syn | ack) != syn counter accept
    meta skuid {_MONITORS} counter reject with icmpx type admin-prohibited
  }}
}}
"""


def _checked(link: str) -> str:
    ours = f'iifname != {{ "lo", "{link}" }}'
    return f"{ours} ip saddr {OVERLAY_NETWORK} counter drop\n    {ours} ip daddr {OVERLAY_NETWORK} counter drop"


def _sets(admitted: Mapping[int, str], approached: Collection[Approach]) -> str:
    coming = [f"{peer} . {port}" for port, peer in sorted(admitted.items())]
    going = [f"{one.user} . {one.peer_address} . {one.port}" for one in sorted(approached)]
    return f"""\
add set inet {TABLE} admitted {{ type ipv4_addr . inet_service; }}
flush set inet {TABLE} admitted
{_add("admitted", coming)}
add set inet {TABLE} approached {{ typeof meta skuid . ip daddr . tcp dport; }}
flush set inet {TABLE} approached
{_add("approached", going)}"""


def _add(which: str, elements: Sequence[str]) -> str:
    return f"add element inet {TABLE} {which} {{ {', '.join(elements)} }}" if elements else ""
