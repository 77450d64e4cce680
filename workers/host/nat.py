"""A host that gives its guests their way out itself: one bridge, the gateway on it, and NAT.

    guest ─▶ tap ─▶ bridge with the gateway's MAC and address ─▶ [not forbidden] ─▶ NAT ─▶ the host's own way out

The guest sees what it sees behind the relay: the same gateway at the same MAC, on every host. Its connections end with
a move, and at once: the next host knows none of its flows and answers each of their packets with a TCP reset.
"""

from __future__ import annotations

from typing import Final

from workers.domain.names import GATEWAY, GATEWAY6, GATEWAY_MAC, GUEST_NETWORK, GUEST_NETWORK6, GuestAddress
from workers.egress import GuestSide
from workers.links import Links, apply_rules, set_sysctl

BRIDGE: Final = "guests-nat"
TABLE: Final = "spot_nat"


def nat_rules(side: GuestSide) -> str:
    """Render the whole table; loading it again leaves connections alone."""
    unknown = f'iifname "{side.device}" meta l4proto tcp ct state invalid counter reject with tcp reset'
    return f"""\
add table inet {TABLE}
flush table inet {TABLE}
{side.sets(TABLE)}
table inet {TABLE} {{
  chain arriving {{
    type filter hook input priority filter; policy accept;
    iifname "{side.device}" ip daddr {GATEWAY} icmp type echo-request limit rate 50/second counter accept
    iifname "{side.device}" ip6 daddr {GATEWAY6} icmpv6 type echo-request limit rate 50/second counter accept
    iifname "{side.device}" counter drop
  }}
{side.chains("accept", [unknown])}
}}
"""


class HostNat:
    """The way out through this host, in the network namespace of the calling thread. Every call is idempotent."""

    def __init__(self, mtu: int, forbidden: tuple[str, ...], connections_max: int) -> None:
        """`forbidden` are networks that no guest may reach, beside those that none ever may."""
        self._side = GuestSide(BRIDGE, None, forbidden, connections_max, mtu)

    def prepare(self, links: Links) -> None:
        """Make the bridge and its rules; a host without such guests has none of this."""
        apply_rules(nat_rules(self._side))
        links.ensure(BRIDGE, "bridge", address=GATEWAY_MAC, br_stp_state=0, br_mcast_snooping=0, mtu=self._side.mtu)
        for name, value in {"addr_gen_mode": 1, "accept_dad": 0, "accept_ra": 0, "disable_ipv6": 0}.items():
            set_sysctl(f"net/ipv6/conf/{BRIDGE}/{name}", str(value), optional=True)
        links.ensure_address(BRIDGE, GATEWAY, GUEST_NETWORK.prefixlen)
        links.ensure_address(BRIDGE, GATEWAY6, GUEST_NETWORK6.prefixlen)
        links.change(BRIDGE, state="up")
        _set_kernel(links)

    def welcome(self, links: Links, address: GuestAddress) -> None:
        """Say where a guest is: nothing that is heard on the wire changes it."""
        for ip in (address.ip, address.ip6):
            links.bind_neighbour(BRIDGE, ip, address.mac)


def _set_kernel(links: Links) -> None:
    # Whoever forwards hears no routers by default; the host's own way out may have been told by one.
    for name in links.uplinks():
        set_sysctl(f"net/ipv6/conf/{name}/accept_ra", "2", optional=True)
    set_sysctl("net/ipv4/ip_forward", "1")
    set_sysctl("net/ipv6/conf/all/forwarding", "1", optional=True)
    # What began on another host is no connection here, and is answered so.
    set_sysctl("net/netfilter/nf_conntrack_tcp_loose", "0")
    set_sysctl(f"net/ipv4/conf/{BRIDGE}/arp_ignore", "1")
    set_sysctl(f"net/ipv4/conf/{BRIDGE}/rp_filter", "1")
    set_sysctl(f"net/ipv4/conf/{BRIDGE}/send_redirects", "0")
