"""How a machine that was told three things becomes a host, once in its life; later starts find what came of it.

user data ─▶ key made here ─▶ register ─▶ certificate, surroundings, place on the overlay ─▶ kept on disk
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol, TypeVar

import structlog

from workers.domain.errors import TryLater, Unreachable
from workers.domain.messages import RegistrationRequest, Surroundings
from workers.domain.overlay import VXLAN_OCTETS, Overlay
from workers.host.control import ControlClient
from workers.host.told import UserData, keep_surroundings, kept_surroundings
from workers.host.tunnels import Tunnels
from workers.identity import HOSTS_CA, Leaf, make_csr, write_leaf
from workers.wireguard import Wireguard

T = TypeVar("T")

# A machine may be up before its cloud's metadata, and before a control plane that is being restarted.
PATIENCE_S: Final = 60.0
RETRY_INTERVAL_S: Final = 1.0

_log: Final = structlog.get_logger()


class Addresses(Protocol):
    """What the cloud says of the machine's addresses. Raises `Unreachable` while it says nothing."""

    async def local_address(self) -> str:
        """Return the machine's own."""

    async def public_address(self) -> str | None:
        """Return the one at which everybody reaches it, None if it has none."""


@dataclass(frozen=True)
class Standing:
    """Where a registered host stands."""

    surroundings: Surroundings
    tunnels: Tunnels | None
    address: str
    """At which its daemon answers."""


async def ensure_registered(
    control: ControlClient, directory: Path, told: UserData, addresses: Addresses, overlay_port: int
) -> Standing:
    """Get the certificate, once in this machine's life; a restarted daemon finds it in `directory`.

    Raises `Refused` with the control plane's sentence, `Unreachable` after `PATIENCE_S`, `Unfit`.
    """
    address = await patiently(addresses.local_address)
    link = Wireguard(told.host_id, directory)
    if not (directory / HOSTS_CA).exists():
        await _register(control, directory, told, addresses, link, overlay_port)
    surroundings = kept_surroundings(directory)
    if surroundings.overlay is Overlay.PLAIN:
        return Standing(surroundings, None, address)
    tunnels = Tunnels(link, directory, overlay_port, surroundings.guest_mtu + VXLAN_OCTETS)
    return Standing(surroundings, tunnels, await asyncio.to_thread(tunnels.open))


async def _register(
    control: ControlClient, directory: Path, told: UserData, addresses: Addresses, link: Wireguard, overlay_port: int
) -> None:
    key, csr = make_csr(told.host_id)
    address, public = await patiently(addresses.local_address), await patiently(addresses.public_address)
    request = RegistrationRequest(told.host_id, told.token, csr, address, wireguard_key=link.public_key, up_s=_up_s())
    if public is not None:
        request = replace(request, endpoint=f"{public}:{overlay_port}")
    answer = await patiently(lambda: control.register(request, told.control_ca_sha256))
    surroundings = answer.surroundings or Surroundings()
    keep_surroundings(directory, surroundings)
    if answer.place is not None:
        Tunnels(link, directory, overlay_port, surroundings.guest_mtu + VXLAN_OCTETS).keep(answer.place)
    # Last, since this is what says that all of it is there.
    write_leaf(directory, Leaf(answer.certificate, key), answer.control_ca, answer.hosts_ca)
    _log.info("host_registered", host=told.host_id, address=address)


def _up_s() -> tuple[float, ...]:
    """Return for how long the kernel and this process have run."""
    kernel_s = float(Path("/proc/uptime").read_text().split()[0])
    began_ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return kernel_s, kernel_s - began_ticks / os.sysconf("SC_CLK_TCK")


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until there is an answer, for `PATIENCE_S` at most; then raise what was wrong last."""
    loop = asyncio.get_running_loop()
    until = loop.time() + PATIENCE_S
    while True:
        try:
            return await ask()
        except TryLater as error:
            if loop.time() >= until:
                raise Unreachable(f"gave up after {PATIENCE_S:.0f} s: {error}") from error
            await asyncio.sleep(RETRY_INTERVAL_S)
