"""The relay's table in the kernel: a tunnel device, a static station and neighbour per guest, the filter, the NAT."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from workers.domain.names import GATEWAY, GATEWAY_MAC, GUEST_NETWORK
from workers.links import Links, apply_rules, set_sysctl
from workers.ports import Forwarding
from workers.relay.rules import DEVICE, TUNNEL_PORT, owner_change, relay_rules

TUNNEL_ID: Final = 77
# The same as on the hosts: 1500 less VXLAN's 50 and WireGuard's 80.
GUEST_MTU: Final = 1370


class RelayNetwork:
    """The network namespace of the calling thread, made the relay of a deployment. Every call is idempotent."""

    def __init__(self, address: str, public_interface: str, forbidden: Sequence[str]) -> None:
        self._address = address
        self._public_interface = public_interface
        self._forbidden = forbidden

    def hold(self, entries: Iterable[Forwarding]) -> None:
        """Make everything, and hold exactly these entries; connections that are established live on."""
        held = tuple(entries)
        with Links() as links:
            links.needed(self._public_interface)
            apply_rules(relay_rules(self._public_interface, self._forbidden, held))
            self._ensure_device(links)
            _match_stations(links, held)
            _match_neighbours(links, held)
        _set_kernel()

    def change(self, before: Forwarding | None, after: Forwarding | None) -> None:
        """Replace one entry: first where its frames go, then whose frames are taken."""
        with Links() as links:
            if after is not None:
                links.bind_tunnel(DEVICE, after.address.mac, after.host_address)
                links.bind_neighbour(DEVICE, after.address.ip, after.address.mac)
            elif before is not None:
                links.unbind_tunnel(DEVICE, before.address.mac, before.host_address)
                links.unbind_neighbour(DEVICE, before.address.ip)
        apply_rules(owner_change(before, after))

    def _ensure_device(self, links: Links) -> None:
        if links.index(DEVICE) is not None and links.tunnel_ends(DEVICE) != (self._address, None):
            links.remove(DEVICE)
        links.ensure(
            DEVICE,
            "vxlan",
            vxlan_id=TUNNEL_ID,
            vxlan_port=TUNNEL_PORT,
            vxlan_local=self._address,
            vxlan_learning=0,
            address=GATEWAY_MAC,
            mtu=GUEST_MTU,
        )
        set_sysctl(f"net/ipv6/conf/{DEVICE}/disable_ipv6", "1", optional=True)
        links.ensure_address(DEVICE, GATEWAY, GUEST_NETWORK.prefixlen)
        links.change(DEVICE, state="up")


def _match_stations(links: Links, entries: Sequence[Forwarding]) -> None:
    wanted = {(entry.address.mac, entry.host_address) for entry in entries}
    present = links.tunnel_stations(DEVICE)
    kept = {mac for mac, _ in wanted}
    for mac, host in present - wanted:
        if mac not in kept:
            links.unbind_tunnel(DEVICE, mac, host)
    for mac, host in wanted - present:
        links.bind_tunnel(DEVICE, mac, host)


def _match_neighbours(links: Links, entries: Sequence[Forwarding]) -> None:
    wanted = {(entry.address.ip, entry.address.mac) for entry in entries}
    present = links.neighbours(DEVICE)
    for ip, _ in present - wanted:
        links.unbind_neighbour(DEVICE, ip)
    for ip, mac in wanted - present:
        links.bind_neighbour(DEVICE, ip, mac)


def _set_kernel() -> None:
    set_sysctl("net/ipv4/ip_forward", "1")
    # Answer ARP for the gateway alone, and take guests' packets from their own side alone.
    set_sysctl(f"net/ipv4/conf/{DEVICE}/arp_ignore", "1")
    set_sysctl(f"net/ipv4/conf/{DEVICE}/rp_filter", "1")
    set_sysctl(f"net/ipv4/conf/{DEVICE}/send_redirects", "0")
    # What was in flight when a guest moved comes late; to call it invalid would end the connection.
    set_sysctl("net/netfilter/nf_conntrack_tcp_be_liberal", "1", optional=True)
