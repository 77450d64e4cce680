"""Where guests leave into the internet, as text for nft: what they reach, what they may hold open, the NAT. Pure.

The relay and a host that does the NAT itself have the same rules, each on the device behind which its guests are.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from workers.domain.names import GUEST_NETWORK, GUEST_NETWORK6
from workers.domain.overlay import SEGMENT6_OCTETS, SEGMENT_OCTETS

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


@dataclass(frozen=True)
class GuestSide:
    """One device behind which guests are, and how they leave."""

    device: str
    public_interface: str | None
    """None: by whatever interface the routes say."""
    forbidden: tuple[str, ...]
    """Networks that no guest may reach, beside those that none ever may."""
    connections_max: int
    """What one guest may hold open, each family by itself."""
    mtu: int
    """The guests', in octets."""

    def sets(self, table: str) -> str:
        """Render what remembers who holds how much open; it outlives the rules."""
        size = GUEST_NETWORK.num_addresses
        return f"""\
add set inet {table} open {{ type ipv4_addr; size {size}; flags dynamic; }}
add set inet {table} open6 {{ type ipv6_addr; size {size}; flags dynamic; }}"""

    def chains(self, policy: str, first: Sequence[str] = ()) -> str:
        """Render the chains of a table of the family inet; `first` are rules that come before all others of passing.

        `policy` is what becomes of packets that are nobody's here: `drop` where nothing but guests passes.
        """
        inside, closed, closed6 = f'iifname "{self.device}"', *_closed(self.forbidden)
        out = f'oifname "{self.public_interface}"' if self.public_interface else f'oifname != "{self.device}"'
        back = f'iifname "{self.public_interface}" ' if self.public_interface else ""
        earlier = "\n    ".join(first)
        return f"""\
  chain too_many {{
    meta l4proto tcp counter reject with tcp reset
    counter drop
  }}
  chain passing {{
    type filter hook forward priority filter; policy {policy};
    {earlier}
    {inside} oifname "{self.device}" counter drop
    {inside} ip daddr {{ {closed} }} counter reject with icmp type admin-prohibited
    {inside} ip6 daddr {{ {closed6} }} counter reject with icmpv6 type admin-prohibited
    {inside} ct state new add @open {{ ip saddr ct count over {self.connections_max} }} jump too_many
    {inside} ct state new add @open6 {{ ip6 saddr ct count over {self.connections_max} }} jump too_many
    {inside} {out} ip saddr {GUEST_NETWORK} counter accept
    {inside} {out} ip6 saddr {GUEST_NETWORK6} counter accept
    {back}oifname "{self.device}" ct state established,related counter accept
    {inside} counter drop
    oifname "{self.device}" counter drop
  }}
{self._shrinking()}
  chain behind {{
    type nat hook postrouting priority srcnat; policy accept;
    {out} ip saddr {GUEST_NETWORK} counter masquerade
    {out} ip6 saddr {GUEST_NETWORK6} counter masquerade
  }}"""

    def _shrinking(self) -> str:
        """Name no longer segment to either side than fits: a network inside a guest may not know of the tunnels."""
        segments = {"ip version 4": self.mtu - SEGMENT_OCTETS, "ip6 version 6": self.mtu - SEGMENT6_OCTETS}
        rules = [
            f'    {way} "{self.device}" {family} tcp flags syn tcp option maxseg size > {segment} '
            f"tcp option maxseg size set {segment}"
            for way in ("iifname", "oifname")
            for family, segment in segments.items()
        ]
        return "\n".join(
            ["  chain shrinking {", "    type filter hook forward priority mangle; policy accept;", *rules, "  }"]
        )


def _closed(forbidden: Sequence[str]) -> tuple[str, str]:
    """Return the networks of both families that are closed; nft refuses intervals that overlap."""
    networks = [ipaddress.ip_network(each) for each in (*NEVER, *NEVER6, *forbidden)]
    ipv4 = ipaddress.collapse_addresses(one for one in networks if isinstance(one, ipaddress.IPv4Network))
    ipv6 = ipaddress.collapse_addresses(one for one in networks if isinstance(one, ipaddress.IPv6Network))
    return ", ".join(map(str, ipv4)), ", ".join(map(str, ipv6))
