"""The relay's packet filter as text: whose frames it takes, where they may go, and the constant address. Pure.

host ──VXLAN──▶ [owners: this host, this MAC, this IP] ──▶ guests ──▶ [not forbidden] ──▶ NAT ──▶ public interface
                                                             never: relay, other guests, forbidden networks
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final

from workers.domain.names import GATEWAY, GUEST_NETWORK
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

# Bit offsets behind the UDP header's start: 8 octets UDP, 8 octets VXLAN, then the guest's frame.
_INNER_SOURCE: Final = "@th,176,48"
_INNER_TYPE: Final = "@th,224,16"
_INNER_IPV4_SOURCE: Final = "@th,336,32"
_INNER_ARP_SENDER: Final = "@th,352,32"


def relay_rules(public_interface: str, forbidden: Sequence[str], entries: Iterable[Forwarding]) -> str:
    """Render the whole table; loading it again leaves established connections alone.

    A host can speak for exactly the guests that are on it: after a move the former host's frames are dropped, as are
    those of a host that somebody has broken out to.
    """
    closed = ", ".join(_collapsed((*NEVER, *forbidden)))
    return f"""\
add table inet {TABLE}
flush table inet {TABLE}
add set inet {TABLE} owners {{ typeof ip saddr . {_INNER_SOURCE} . {_INNER_IPV4_SOURCE}; }}
flush set inet {TABLE} owners
{_add(entries)}
table inet {TABLE} {{
  chain arriving {{
    type filter hook input priority filter; policy accept;
    udp dport {TUNNEL_PORT} {_INNER_TYPE} 0x0800 \
ip saddr . {_INNER_SOURCE} . {_INNER_IPV4_SOURCE} @owners counter accept
    udp dport {TUNNEL_PORT} {_INNER_TYPE} 0x0806 \
ip saddr . {_INNER_SOURCE} . {_INNER_ARP_SENDER} @owners counter accept
    udp dport {TUNNEL_PORT} counter drop
    iifname "{DEVICE}" ip daddr {GATEWAY} icmp type echo-request limit rate 50/second counter accept
    iifname "{DEVICE}" counter drop
  }}
  chain passing {{
    type filter hook forward priority filter; policy drop;
    iifname "{DEVICE}" oifname "{DEVICE}" counter drop
    iifname "{DEVICE}" ip daddr {{ {closed} }} counter reject with icmp type admin-prohibited
    iifname "{DEVICE}" oifname "{public_interface}" ip saddr {GUEST_NETWORK} counter accept
    iifname "{public_interface}" oifname "{DEVICE}" ct state established,related counter accept
  }}
  chain behind {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname "{public_interface}" ip saddr {GUEST_NETWORK} counter masquerade
  }}
}}
"""


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


def _collapsed(networks: Iterable[str]) -> list[str]:
    # nft refuses intervals that overlap.
    return [str(network) for network in ipaddress.collapse_addresses(ipaddress.IPv4Network(each) for each in networks)]
