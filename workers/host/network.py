"""A host's guest network: taps, the bridge that isolates them, the tunnel to the relay, and who may reach a migration.

    open_tap ──▶ (tap filtered, down, off the bridge) ──attach──▶ (on the bridge) ──detach──▶ … ──close──▶ nothing

A tap is on the bridge only while this host owns the guest. It lives as long as somebody holds its descriptor, so it
outlives a restart of the daemon and ends with its monitor. Nothing is learnt from what guests send: every entry is
static, and follows from the runner's number.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import struct
import threading
from collections.abc import Iterable, Iterator
from typing import Any, Final

from workers.domain.errors import Bug, TryLater, Unfit
from workers.domain.names import GATEWAY_MAC, GuestAddress, guest_address, monitor_user
from workers.domain.overlay import GUEST_MTU, VXLAN_OCTETS, GuestNetwork
from workers.egress import CONNECTIONS_MAX
from workers.host import nat
from workers.host.nat import HostNat
from workers.host.rules import (
    BRIDGE,
    GUEST_MBIT,
    MIGRATION_PORTS,
    TABLE,
    TUNNEL,
    TUNNEL_PORT,
    Approach,
    host_rules,
    no_tap_rules,
    tap_name,
    tap_number,
    tap_rules,
)
from workers.links import Links, apply_rules, set_sysctl, show_rules

TUNNEL_ID: Final = 77
# The same on every host, so that a guest that moves meets the same bridge.
BRIDGE_MAC: Final = "52:54:00:77:00:02"

_TUNSETIFF: Final = 0x400454CA
_TUNSETOWNER: Final = 0x400454CC
_IFF_TAP: Final = 0x0002
_IFF_NO_PI: Final = 0x1000
_IFF_VNET_HDR: Final = 0x4000


class HostNetwork:
    """The guest network of one host, in the network namespace of the calling thread.

    Every call is idempotent and blocks for some milliseconds; calls may come from several threads.
    """

    def __init__(
        self,
        address: str,
        relay_address: str | None,
        mtu: int = GUEST_MTU,
        mbit: int = GUEST_MBIT,
        forbidden: Iterable[str] = (),
        connections_max: int = CONNECTIONS_MAX,
        overlay: str | None = None,
    ) -> None:
        """`mtu` is the guests', in octets, and the same in the whole deployment; `mbit` what each may send a second.

        Without a relay the only way out is through this host itself; `forbidden` networks and `connections_max` bound
        the guests that take it. `overlay` names the link on which `address` is, if the deployment has one.
        """
        self.mtu = mtu
        self._nat = HostNat(mtu, tuple(forbidden), connections_max)
        self._address = address
        self._relay_address = relay_address
        self._mbit = mbit
        self._overlay = overlay
        self._admitted: dict[int, str] = {}
        self._approached: frozenset[Approach] = frozenset()
        self._one_at_a_time = threading.Lock()

    def prepare(self) -> None:
        """Make bridge, tunnel and rules, or bring those of an earlier start up to date. Raises `Unfit`."""
        with self._one_at_a_time, Links() as links:
            self._check_path(links)
            self._admitted, self._approached = _admitted_now(), _approached_now()
            self._reserve_ports()
            apply_rules(self._rules())
            self._ensure_bridge(links)
            self._ensure_tunnel(links)
            if links.index(nat.BRIDGE) is not None:
                self._nat.prepare(links)

    def adopt(self) -> frozenset[int]:
        """Return the numbers of the taps that an earlier start left here, with their filters put right again."""
        with self._one_at_a_time, Links() as links:
            numbers = frozenset(number for name in links.names() if (number := tap_number(name)) is not None)
        for number in numbers:
            apply_rules(tap_rules(number, guest_address(number), self._mbit))
        return numbers

    def open_tap(
        self, number: int, address: GuestAddress, user: int, way_out: GuestNetwork = GuestNetwork.RELAY
    ) -> int:
        """Make the guest's tap, with its filter and its place at its bridge but down, and return its descriptor.

        A port that is down neither takes nor gives a frame; everything else is done here, because a guest stands still
        while `attach` works.

        Raises `TryLater` while an earlier monitor still holds the tap, `Unfit` if this machine has no taps.
        """
        if address != guest_address(number):
            raise Bug(f"runner number {number} does not have the address {address.ip}")
        with self._one_at_a_time:
            tap = _make_tap(tap_name(number), user)
            try:
                _silence(tap_name(number))
                apply_rules(tap_rules(number, address, self._mbit))
                self._join_bridge(number, way_out)
            except BaseException:
                os.close(tap)
                raise
            return tap

    def attach(self, number: int) -> None:
        """Put the tap on the bridge: from now on the guest can be heard and reached."""
        with self._one_at_a_time, Links() as links:
            links.change(tap_name(number), state="up")

    def detach(self, number: int) -> None:
        """Cut the tap off from the bridge; one that is not there is a success."""
        name = tap_name(number)
        with self._one_at_a_time, Links() as links:
            if links.index(name) is not None:
                links.change(name, state="down")

    def _join_bridge(self, number: int, way_out: GuestNetwork) -> None:
        name, bridge = tap_name(number), BRIDGE
        with Links() as links:
            if way_out is GuestNetwork.NAT:
                bridge = nat.BRIDGE
                self._nat.prepare(links)
                self._nat.welcome(links, guest_address(number))
            links.change(name, mtu=self.mtu, master=links.needed(bridge), state="down")
            links.limit_rate(name, self._mbit)
            links.change_port(name, isolated=1, learning=0, unicast_flood=0, mcast_flood=0, bcast_flood=0)
            links.bind_port(name, guest_address(number).mac)

    def close(self, number: int) -> None:
        """Remove the tap, whoever holds it, and its rules."""
        with self._one_at_a_time, Links() as links:
            links.remove(tap_name(number))
            apply_rules(no_tap_rules(number))

    def admit(self, port: int, peer_address: str) -> None:
        """Let this peer, and nobody else, reach a migration port."""
        if not MIGRATION_PORTS[0] <= port <= MIGRATION_PORTS[1]:
            raise Bug(f"port {port} is not a migration port")
        with self._one_at_a_time:
            self._admitted[port] = peer_address
            apply_rules(self._rules())

    def dismiss(self, port: int) -> None:
        """Close a migration port again."""
        with self._one_at_a_time:
            self._admitted.pop(port, None)
            apply_rules(self._rules())

    def approach(self, number: int, peer_address: str, ports: Iterable[int]) -> None:
        """Let the monitor of the guest with this number call these ports of its peer, and nobody else."""
        with self._one_at_a_time:
            self._approached |= {Approach(monitor_user(number), peer_address, port) for port in ports}
            apply_rules(self._rules())

    def withdraw(self, number: int) -> None:
        """Let that monitor call nobody any more."""
        user = monitor_user(number)
        with self._one_at_a_time:
            self._approached = frozenset(one for one in self._approached if one.user != user)
            apply_rules(self._rules())

    def _rules(self) -> str:
        return host_rules(self._relay_address, self._admitted, self._approached, self._overlay)

    def _check_path(self, links: Links) -> None:
        """Refuse a path that would cut the guests' packets, or drop them."""
        found, needed = links.mtu_at(self._address), self.mtu + VXLAN_OCTETS
        if found < needed:
            raise Unfit(
                f"the interface with {self._address} carries packets of {found} octets, and guests' packets of "
                f"{self.mtu} need {needed} there; raise its MTU, or lower SPOT_RUNNER_UNDERLAY_MTU"
            )

    def _reserve_ports(self) -> None:
        # Else an outgoing connection of ours may be given such a port, and its answers would be dropped.
        set_sysctl("net/ipv4/ip_local_reserved_ports", "{}-{}".format(*MIGRATION_PORTS))

    def _ensure_bridge(self, links: Links) -> None:
        links.ensure(BRIDGE, "bridge", address=BRIDGE_MAC, br_stp_state=0, br_mcast_snooping=0, mtu=self.mtu)
        _silence(BRIDGE)
        # Else bridged frames pass the IP chains a second time, and a rule there cuts guests off from their relay.
        for family in ("ip", "ip6", "arp"):
            set_sysctl(f"net/bridge/bridge-nf-call-{family}tables", "0", optional=True)
        links.change(BRIDGE, state="up")

    def _ensure_tunnel(self, links: Links) -> None:
        if self._relay_address is None:
            links.remove(TUNNEL)
            return
        ends = (links.tunnel_ends(TUNNEL)) if links.index(TUNNEL) is not None else None
        if ends is not None and ends != (self._address, self._relay_address):
            links.remove(TUNNEL)
        links.ensure(
            TUNNEL,
            "vxlan",
            vxlan_id=TUNNEL_ID,
            vxlan_port=TUNNEL_PORT,
            vxlan_local=self._address,
            vxlan_group=self._relay_address,
            vxlan_learning=0,
            mtu=self.mtu,
        )
        _silence(TUNNEL)
        links.change(TUNNEL, master=links.needed(BRIDGE))
        links.change_port(TUNNEL, isolated=0, learning=0, unicast_flood=0, mcast_flood=0, bcast_flood=1)
        links.bind_port(TUNNEL, GATEWAY_MAC)
        links.change(TUNNEL, state="up")


def _silence(name: str) -> None:
    """Keep the host's own IPv6 from speaking on a guest's wire."""
    set_sysctl(f"net/ipv6/conf/{name}/disable_ipv6", "1", optional=True)


def _make_tap(name: str, user: int) -> int:
    try:
        tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Unfit(
            f"/dev/net/tun cannot be opened: {error.strerror}; the kernel needs tun, and we need root"
        ) from error
    try:
        fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR))
        fcntl.ioctl(tap, _TUNSETOWNER, user)
    except OSError as error:
        os.close(tap)
        if error.errno == errno.EBUSY:
            raise TryLater(f"{name} is still held by an earlier monitor; end it or close the tap") from error
        raise Unfit(f"{name} cannot be made: {error.strerror}; root is needed") from error
    return tap


def _admitted_now() -> dict[int, str]:
    """Read back from the kernel what an earlier start admitted."""
    return {int(port): str(peer) for peer, port in _elements("admitted")}


def _approached_now() -> frozenset[Approach]:
    return frozenset(Approach(int(user), str(peer), int(port)) for user, peer, port in _elements("approached"))


def _elements(which: str) -> Iterator[list[Any]]:
    text = show_rules("set", "inet", TABLE, which)
    for entry in json.loads(text)["nftables"] if text else []:
        for element in entry.get("set", {}).get("elem", []):
            yield element["concat"]
