"""Links, neighbours and the packet filter of the network namespace that the calling thread is in."""

from __future__ import annotations

import errno
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import ndmsg

from workers.domain.errors import Bug, Unfit

# Loading a rule set takes milliseconds; a machine on which it takes this long is in trouble.
NFT_LIMIT_S: Final = 10.0
# Two of the largest bundles of segments that a kernel passes on at once.
BURST_OCTETS: Final = 2 << 16
QUEUE_LIMIT_S: Final = 0.05
_ROOT_HANDLE: Final = 0x10000
_FOR_EVER: Final = ndmsg.states["permanent"] | ndmsg.states["noarp"]


def apply_rules(rules: str) -> None:
    """Load a rule set in one transaction: all of it holds afterwards, or nothing has changed.

    Raises `Unfit` if this machine cannot (no nft, no right), `Bug` if the rules are wrong.
    """
    try:
        subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True, capture_output=True, timeout=NFT_LIMIT_S)
    except FileNotFoundError as error:
        raise Unfit("nft is not installed; install the package nftables") from error
    except subprocess.CalledProcessError as error:
        if "Operation not permitted" in error.stderr:
            raise Unfit("the packet filter may only be changed by root; start as root") from error
        raise Bug(f"nft refused our rules: {error.stderr.strip()}") from error


def show_rules(*what: str) -> str:
    """Return what `nft -j list …` prints, empty if there is no such thing."""
    answer = subprocess.run(
        ["nft", "-j", "list", *what], text=True, check=False, capture_output=True, timeout=NFT_LIMIT_S
    )
    return answer.stdout if answer.returncode == 0 else ""


def set_sysctl(name: str, value: str, *, optional: bool = False) -> None:
    """Write one kernel setting, named as a path below /proc/sys; an optional one may be unknown to this kernel."""
    path = Path("/proc/sys") / name
    if optional and not path.exists():
        return
    try:
        path.write_text(value)
    except OSError as error:
        raise Unfit(
            f"{path} cannot be set to {value}: {error.strerror}; start as root on a kernel that has it"
        ) from error


@contextmanager
def _gone_is_well() -> Iterator[None]:
    """A tap ends with its last holder, so it may end between the look at it and its removal."""
    try:
        yield
    except NetlinkError as error:
        if error.code != errno.ENODEV:
            raise


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        raise Unfit(f"{what} failed: {error}; root and the kernel's bridge, vxlan and tun are needed") from error


class Links:
    """One conversation with the kernel about links; open it where it is needed, it costs a millisecond."""

    def __init__(self) -> None:
        self._kernel: Any = IPRoute()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kernel.close()

    def index(self, name: str) -> int | None:
        """Return the number of the link with this name, or None."""
        try:
            return socket.if_nametoindex(name)
        except OSError:
            return None

    def needed(self, name: str) -> int:
        """Return the number of a link that must be there."""
        index = self.index(name)
        if index is None:
            raise Unfit(f"there is no network interface {name}")
        return index

    def names(self) -> frozenset[str]:
        """Return the names of all links."""
        return frozenset(link.get("ifname") for link in self._kernel.get_links())

    def uplinks(self) -> frozenset[str]:
        """Return the names of the links by which a default route of any family leaves."""
        families = (socket.AF_INET, socket.AF_INET6)
        routes = [one for kind in families for one in self._kernel.get_default_routes(kind)]
        return frozenset(socket.if_indextoname(one.get("oif")) for one in routes if one.get("oif"))

    def tunnel_ends(self, name: str) -> tuple[str | None, str | None]:
        """Return a tunnel device's own address and the one that it sends to by default."""
        link = self._kernel.get_links(self.needed(name))[0]
        own, other = (link.get(("linkinfo", "data", f"vxlan_{end}")) for end in ("local", "group"))
        return own, other

    def mtu_at(self, address: str) -> int:
        """Return the MTU of the link that has this address. Raises `Unfit` if none has."""
        for one in self._kernel.get_addr(address=address):
            return int(self._kernel.get_links(one["index"])[0].get("mtu"))
        raise Unfit(f"no network interface has the address {address}")

    def limit_rate(self, name: str, mbit: int) -> None:
        """Let no more than this leave through a link; what is too much waits for `QUEUE_LIMIT_S`, then it is lost."""
        with _translated(f"limiting {name}"):
            self._kernel.tc(
                "replace",
                "tbf",
                self.needed(name),
                handle=_ROOT_HANDLE,
                rate=f"{mbit}mbit",
                burst=BURST_OCTETS,
                latency=f"{QUEUE_LIMIT_S * 1000:.0f}ms",
            )

    def ensure(self, name: str, kind: str, **attributes: object) -> int:
        """Make the link unless there is one of this name, and return its number."""
        if self.index(name) is None:
            with _translated(f"making the link {name}"):
                self._kernel.link("add", ifname=name, kind=kind, **attributes)
        return self.needed(name)

    def try_ensure(self, name: str, kind: str) -> bool:
        """Make the link unless there is one; False if this kernel does not know the kind."""
        try:
            if self.index(name) is None:
                self._kernel.link("add", ifname=name, kind=kind)
        except NetlinkError as error:
            if error.code == errno.EOPNOTSUPP:
                return False
            raise Unfit(f"making the link {name} failed: {error}") from error
        return True

    def kind(self, name: str) -> str | None:
        """Return what kind of link this is."""
        link = self._kernel.get_links(self.needed(name))[0]
        kind = link.get(("linkinfo", "kind"))
        return None if kind is None else str(kind)

    def change(self, name: str, **attributes: object) -> None:
        """Change a link that must be there."""
        with _translated(f"changing the link {name}"):
            self._kernel.link("set", index=self.needed(name), **attributes)

    def change_port(self, name: str, **flags: int) -> None:
        """Change what a bridge does with one of its ports."""
        with _translated(f"changing the bridge port {name}"):
            self._kernel.brport("set", index=self.needed(name), **flags)

    def remove(self, name: str) -> None:
        """Remove a link; one that is not there is a success."""
        index = self.index(name)
        if index is not None:
            with _translated(f"removing the link {name}"), _gone_is_well():
                self._kernel.link("del", index=index)

    def ensure_address(self, name: str, address: str, prefix_length: int) -> None:
        """Give a link an address, once."""
        with _translated(f"giving {name} the address {address}"):
            self._kernel.addr("replace", index=self.needed(name), address=address, prefixlen=prefix_length)

    def bind_port(self, name: str, mac: str) -> None:
        """Say that frames to `mac` leave the bridge through this port, for ever."""
        # Not "permanent": to a bridge that word means an address of its own.
        self._station("replace", name, mac, ndmsg.states["noarp"], flags=ndmsg.flags["master"])

    def bind_tunnel(self, name: str, mac: str, host: str) -> None:
        """Say that frames to `mac` leave the tunnel device towards this host; an older entry is replaced at once."""
        self._station("replace", name, mac, _FOR_EVER, flags=ndmsg.flags["self"], dst=host)

    def unbind_tunnel(self, name: str, mac: str, host: str) -> None:
        """Forget where `mac` is."""
        self._station("del", name, mac, _FOR_EVER, flags=ndmsg.flags["self"], dst=host)

    def bind_neighbour(self, name: str, ip: str, mac: str) -> None:
        """Say that `ip` has this MAC, for ever: nothing that is heard on the wire changes it."""
        self._neighbour("replace", name, ip, lladdr=mac, state=ndmsg.states["permanent"])

    def unbind_neighbour(self, name: str, ip: str) -> None:
        """Forget what `ip` has."""
        self._neighbour("del", name, ip)

    def tunnel_stations(self, name: str) -> frozenset[tuple[str, str]]:
        """Return (MAC, host address) of every entry of a tunnel device."""
        entries = self._kernel.fdb("dump", ifindex=self.needed(name))
        return frozenset((entry.get("lladdr"), entry.get("dst")) for entry in entries if entry.get("dst"))

    def neighbours(self, name: str) -> frozenset[tuple[str, str]]:
        """Return (IP, MAC) of every permanent neighbour on a link, of both families."""
        families = (socket.AF_INET, socket.AF_INET6)
        entries = [one for kind in families for one in self._kernel.get_neighbours(kind, ifindex=self.needed(name))]
        return frozenset(
            (entry.get("dst"), entry.get("lladdr"))
            for entry in entries
            if entry["state"] & ndmsg.states["permanent"] and entry.get("lladdr")
        )

    def _station(self, command: str, name: str, mac: str, state: int, **rest: object) -> None:
        with _translated(f"{command} of the station {mac} on {name}"):
            self._kernel.fdb(command, ifindex=self.needed(name), lladdr=mac, state=state, **rest)

    def _neighbour(self, command: str, name: str, ip: str, **rest: object) -> None:
        with _translated(f"{command} of the neighbour {ip} on {name}"):
            self._kernel.neigh(command, ifindex=self.needed(name), dst=ip, **rest)
