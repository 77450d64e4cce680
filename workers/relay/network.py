"""The relay's table in the kernel: a tunnel device, a static station and neighbour per guest, the filter, the NAT."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from workers.domain.names import GATEWAY, GATEWAY6, GATEWAY_MAC, GUEST_NETWORK, GUEST_NETWORK6
from workers.domain.overlay import GUEST_MTU
from workers.egress import CONNECTIONS_MAX
from workers.links import Links, apply_rules, set_sysctl
from workers.ports import Forwarding
from workers.relay.rules import DEVICE, TUNNEL_PORT, OverlaySide, owner_change, relay_rules

TUNNEL_ID: Final = 77


class RelayNetwork:
    """The network namespace of the calling thread, made the relay of a deployment. Every call is idempotent."""

    def __init__(
        self,
        address: str,
        public_interface: str,
        forbidden: Sequence[str],
        mtu: int = GUEST_MTU,
        connections_max: int = CONNECTIONS_MAX,
        overlay: OverlaySide | None = None,
    ) -> None:
        """`mtu` is the guests', in octets; `connections_max` bounds what one guest has open.

        `overlay` is its WireGuard link if this relay is the hub of one.
        """
        self._address = address
        self._public_interface = public_interface
        self._forbidden = forbidden
        self._mtu = mtu
        self._connections_max = connections_max
        self._overlay = overlay

    def hold(self, entries: Iterable[Forwarding]) -> None:
        """Make everything, and hold exactly these entries; connections that are established live on."""
        held = tuple(entries)
        with Links() as links:
            links.needed(self._public_interface)
            apply_rules(self._rules(held))
            self._ensure_device(links)
            _match_stations(links, held)
            _match_neighbours(links, held)
        _set_kernel(self._public_interface)

    def change(self, before: Forwarding | None, after: Forwarding | None) -> None:
        """Replace one entry: first where its frames go, then whose frames are taken."""
        with Links() as links:
            if after is not None:
                links.bind_tunnel(DEVICE, after.address.mac, after.host_address)
                for ip in _ips(after):
                    links.bind_neighbour(DEVICE, ip, after.address.mac)
            elif before is not None:
                links.unbind_tunnel(DEVICE, before.address.mac, before.host_address)
                for ip in _ips(before):
                    links.unbind_neighbour(DEVICE, ip)
        apply_rules(owner_change(before, after))

    def _rules(self, entries: Sequence[Forwarding]) -> str:
        return relay_rules(
            self._public_interface,
            self._forbidden,
            entries,
            mtu=self._mtu,
            connections_max=self._connections_max,
            overlay=self._overlay,
        )

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
            mtu=self._mtu,
        )
        _let_ipv6_be_static()
        links.ensure_address(DEVICE, GATEWAY, GUEST_NETWORK.prefixlen)
        links.ensure_address(DEVICE, GATEWAY6, GUEST_NETWORK6.prefixlen)
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
    wanted = {(ip, entry.address.mac) for entry in entries for ip in _ips(entry)}
    present = links.neighbours(DEVICE)
    for ip, _ in present - wanted:
        links.unbind_neighbour(DEVICE, ip)
    for ip, mac in wanted - present:
        links.bind_neighbour(DEVICE, ip, mac)


def _ips(entry: Forwarding) -> tuple[str, str]:
    return entry.address.ip, entry.address.ip6


def _let_ipv6_be_static() -> None:
    """Take no address but the gateway's, ask nobody whether it is taken, and believe no router on the guests' side."""
    for name, value in {"addr_gen_mode": 1, "accept_dad": 0, "accept_ra": 0, "disable_ipv6": 0}.items():
        set_sysctl(f"net/ipv6/conf/{DEVICE}/{name}", str(value), optional=True)


def _set_kernel(public_interface: str) -> None:
    set_sysctl("net/ipv4/ip_forward", "1")
    # Whoever forwards hears no routers by default; the relay's own way out may have been told by one.
    set_sysctl(f"net/ipv6/conf/{public_interface}/accept_ra", "2", optional=True)
    set_sysctl("net/ipv6/conf/all/forwarding", "1", optional=True)
    # Answer ARP for the gateway alone, and take guests' packets from their own side alone.
    set_sysctl(f"net/ipv4/conf/{DEVICE}/arp_ignore", "1")
    set_sysctl(f"net/ipv4/conf/{DEVICE}/rp_filter", "1")
    set_sysctl(f"net/ipv4/conf/{DEVICE}/send_redirects", "0")
    # What was in flight when a guest moved comes late; to call it invalid would end the connection.
    set_sysctl("net/netfilter/nf_conntrack_tcp_be_liberal", "1", optional=True)
