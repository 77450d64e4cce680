"""The relay's packet filter as text: whose frames it takes, where they may go, and the constant address. Pure.

host ──VXLAN──▶ [owners: this host, this MAC, this IP] ──▶ guests ──▶ [not forbidden] ──▶ NAT ──▶ public interface
                                                             never: relay, other guests, forbidden networks
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from workers.domain.names import GATEWAY, GATEWAY6, GUEST_NETWORK6
from workers.domain.overlay import GUEST_MTU, OVERLAY_NETWORK
from workers.egress import CONNECTIONS_MAX, GuestSide
from workers.ports import Forwarding

DEVICE: Final = "guests"
TUNNEL_PORT: Final = 4789
TABLE: Final = "spot_relay"
# Where a host's daemon answers.
HOST_PORT: Final = 8444
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
    overlay: OverlaySide | None = None,
) -> str:
    """Render the whole table; loading it again leaves established connections alone.

    A host can speak for exactly the guests that are on it: after a move the former host's frames are dropped, as are
    those of a host that somebody has broken out to. `mtu` is the guests', in octets; `connections_max` bounds what one
    guest has open, each family by itself. Through `overlay`, if there is one, hosts reach each other.
    """
    side = GuestSide(DEVICE, public_interface, tuple(forbidden), connections_max, mtu)
    return f"""\
add table inet {TABLE}
flush table inet {TABLE}
add set inet {TABLE} owners {{ typeof ip saddr . {_INNER_SOURCE} . {_INNER_IPV4_SOURCE}; }}
flush set inet {TABLE} owners
{_add(entries)}
{side.sets(TABLE)}
table inet {TABLE} {{
{_arriving(overlay.arriving() if overlay else [])}
{overlay.chains() if overlay else ""}
{side.chains("drop", overlay.passing() if overlay else [])}
}}
"""


def _arriving(first: Sequence[str]) -> str:
    earlier = "\n    ".join(first)
    return f"""\
  chain arriving {{
    type filter hook input priority filter; policy accept;
    {earlier}
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


@dataclass(frozen=True)
class OverlaySide:
    """The hub's own link of the overlay."""

    link: str
    callers: tuple[str, ...] = ()
    """Networks whose machines may call hosts through the hub: the control plane's."""

    def arriving(self) -> list[str]:
        """Believe no address of the overlay that has not come through a tunnel, where WireGuard has checked it."""
        return [f'iifname != {{ "lo", "{self.link}" }} ip saddr {OVERLAY_NETWORK} counter drop']

    def passing(self) -> list[str]:
        """Let hosts reach each other, each in its own name, and the control plane the daemons of all."""
        into = f'oifname "{self.link}" ip daddr {OVERLAY_NETWORK}'
        rules = [f'iifname "{self.link}" {into} ip saddr {OVERLAY_NETWORK} counter accept', *self.arriving()]
        if not self.callers:
            return rules
        callers = f"{{ {', '.join(self.callers)} }}"
        calls = f"ip saddr {callers} {into} tcp dport {HOST_PORT} counter accept"
        answers = f'iifname "{self.link}" ip daddr {callers} ct state established,related counter accept'
        return [*rules, calls, answers]

    def chains(self) -> str:
        """Let callers come in the hub's name: no host needs to know them, or a way to them."""
        if not self.callers:
            return ""
        return f"""\
  chain calling {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname "{self.link}" ip saddr {{ {", ".join(self.callers)} }} counter masquerade
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
