"""`spot-runner host`: from a machine that knows one token to a host that proves itself READY.

user data ─▶ certificate, overlay (once) ─▶ network ─▶ adopt what runs ─▶ { API, heartbeat, notices, proof }
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

import structlog

from workers.clock import SystemClock
from workers.domain.errors import SpotError, TryLater, Unreachable
from workers.domain.messages import Heartbeat, HeartbeatAnswer, RegistrationAnswer, RegistrationRequest, RenewalRequest
from workers.domain.names import HostId
from workers.domain.overlay import VXLAN_OCTETS, Overlay
from workers.host.acceleration import choose_acceleration
from workers.host.control import ControlClient
from workers.host.daemon import keep_beating, make_host_app
from workers.host.engine import Engine, EngineParts
from workers.host.guest import GuestChannel
from workers.host.measuring import measure_host_class
from workers.host.network import HostNetwork
from workers.host.notices import MetadataService, NoticeWatcher, UserData
from workers.host.packages import PackageShelf
from workers.host.proofs import Proofs
from workers.host.readiness import Readiness
from workers.host.transfers import Transfers
from workers.host.tunnels import Tunnels
from workers.identity import Leaf, make_csr, next_csr, write_leaf, write_next
from workers.listener import Identity, open_port, require_root, run_until_told, serve
from workers.settings import HostSettings
from workers.telemetry import start_logging
from workers.wireguard import Wireguard

T = TypeVar("T")

# A machine may be up before its cloud's metadata, and before a control plane that is being restarted.
PATIENCE_S: Final = 60.0
RETRY_INTERVAL_S: Final = 1.0
# A certificate lives for 24 hours; many renewals may fail before it ends.
RENEWAL_INTERVAL_S: Final = 8 * 3600.0
RENEWAL_RETRY_S: Final = 60.0

_log: Final = structlog.get_logger()


def run_host(settings: HostSettings) -> None:
    """Run until told to end; microVMs run on after that. Raises `Unfit`, `BadInput` or `Refused` with one sentence."""
    start_logging("host")
    require_root("spot-runner host")
    try:
        run_until_told(_run(settings))
    except BaseExceptionGroup as group:
        _raise_ours(group)
        raise


async def _run(settings: HostSettings) -> None:
    metadata = MetadataService(settings.metadata_url)
    told = await _patiently(metadata.user_data)
    directory = settings.host_home / "identity"
    control = ControlClient(told.control_url, directory)
    tunnels = _tunnels(settings, told, directory)
    address = await _ensure_registered(control, directory, told, metadata, tunnels, settings.overlay_port)
    listening = open_port(address, settings.listen_port)
    network = await asyncio.to_thread(_network, settings, told, address, tunnels)
    await asyncio.to_thread(network.prepare)
    await asyncio.to_thread(network.adopt)
    choice = choose_acceleration(settings.accel)
    host_class = await asyncio.to_thread(measure_host_class, choice.acceleration)
    _log.info("host_class_measured", acceleration=choice.acceleration.value, reason=choice.reason)
    engine = Engine(
        EngineParts(
            host_id=HostId(told.host_id),
            address=address,
            home=settings.host_home / "engine",
            make_csr=make_csr,
            shelf=PackageShelf(settings.package_store, settings.package_cache, host_class),
            network=network,
            control=control,
            objects=Transfers(told.control_url, directory),
            connect_guest=GuestChannel.connect,
        )
    )
    await engine.adopt()
    readiness = Readiness(
        engine, host_class, Proofs(settings.host_home / "proofs.json", host_class), allow_tcg=settings.allow_tcg
    )
    try:
        await _serve(settings, HostId(told.host_id), engine, _Beating(readiness, tunnels), control, metadata, listening)
    finally:
        await engine.release()


async def _serve(
    settings: HostSettings,
    host_id: HostId,
    engine: Engine,
    beating: _Beating,
    control: ControlClient,
    metadata: MetadataService,
    listening: socket.socket,
) -> None:
    directory = settings.host_home / "identity"
    identity = Identity(directory / "certificate.pem", directory / "key.pem", directory / "control-ca.pem")
    watcher = NoticeWatcher(metadata, control.notice, SystemClock())
    async with asyncio.TaskGroup() as group:
        group.create_task(serve(make_host_app(engine, beating.status), listening, identity))
        group.create_task(keep_beating(control.heartbeat, beating.status, beating.hear, settings.heartbeat_interval_s))
        group.create_task(keep_renewed(control.renew, host_id, directory))
        group.create_task(watcher.watch(settings.notice_interval_s))
        group.create_task(beating.readiness.prove())
        group.create_task(engine.tend())


def _network(settings: HostSettings, told: UserData, address: str, tunnels: Tunnels | None) -> HostNetwork:
    return HostNetwork(
        address,
        told.relay_address or None,
        told.guest_mtu,
        settings.guest_mbit,
        _closed_to_guests(settings, told),
        settings.guest_connections_max,
        tunnels.name if tunnels else None,
    )


def _closed_to_guests(settings: HostSettings, told: UserData) -> frozenset[str]:
    """Return what guests that leave through this host may not reach: what it was told, and the control plane."""
    url = urlsplit(told.control_url)
    try:
        found = socket.getaddrinfo(url.hostname, url.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unreachable(f"the control plane's name in {told.control_url} is not found: {error}") from error
    return frozenset(settings.guest_forbidden) | {str(ipaddress.ip_network(place[4][0])) for place in found}


@dataclass(frozen=True)
class _Beating:
    """What a heartbeat says of this host, and what is done with its answer."""

    readiness: Readiness
    tunnels: Tunnels | None

    def status(self) -> Heartbeat:
        heartbeat = self.readiness.heartbeat()
        return heartbeat if self.tunnels is None else self.tunnels.told(heartbeat)

    async def hear(self, answer: HeartbeatAnswer) -> None:
        self.readiness.want(answer.packages)
        if self.tunnels is not None:
            await asyncio.to_thread(self.tunnels.take, answer.peers)


def _tunnels(settings: HostSettings, told: UserData, directory: Path) -> Tunnels | None:
    if told.overlay is Overlay.PLAIN:
        return None
    return Tunnels(Wireguard(told.host_id, directory), directory, settings.overlay_port, told.guest_mtu + VXLAN_OCTETS)


async def _ensure_registered(
    control: ControlClient,
    directory: Path,
    told: UserData,
    metadata: MetadataService,
    tunnels: Tunnels | None,
    overlay_port: int,
) -> str:
    """Get the certificate, once in this machine's life, and return our address; a restarted daemon finds both."""
    address = await _patiently(metadata.local_address)
    if not (directory / "hosts-ca.pem").exists():
        key, csr = make_csr(HostId(told.host_id))
        request = RegistrationRequest(HostId(told.host_id), told.token, csr, address)
        if tunnels is not None:
            public = await _patiently(metadata.public_address)
            endpoint = None if public is None else f"{public}:{overlay_port}"
            request = replace(request, wireguard_key=tunnels.public_key, endpoint=endpoint)
        answer = await _patiently(lambda: control.register(request, told.control_ca_sha256))
        if tunnels is not None and answer.place is not None:
            tunnels.keep(answer.place)
        write_leaf(directory, Leaf(answer.certificate, key), answer.control_ca, answer.hosts_ca)
        _log.info("host_registered", host=told.host_id, address=address)
    return address if tunnels is None else await asyncio.to_thread(tunnels.open)


async def keep_renewed(
    renew: Callable[[RenewalRequest], Awaitable[RegistrationAnswer]],
    host_id: HostId,
    directory: Path,
    interval_s: float = RENEWAL_INTERVAL_S,
) -> None:
    """Renew the certificate for ever; a renewal that fails is tried again soon, and nothing else depends on it yet."""
    wait = interval_s
    while True:
        await asyncio.sleep(wait)
        try:
            answer = await renew(RenewalRequest(next_csr(host_id, directory)))
        except SpotError as error:
            _log.warning("certificate_not_renewed", host=host_id, because=str(error))
            wait = min(RENEWAL_RETRY_S, interval_s)
        else:
            write_next(directory, answer.certificate)
            _log.info("certificate_renewed", host=host_id)
            wait = interval_s


async def _patiently(ask: Callable[[], Awaitable[T]]) -> T:
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


def _raise_ours(group: BaseExceptionGroup[BaseException]) -> None:
    """Raise the first error that is a sentence for people, if there is one."""
    ours = group.subgroup(SpotError)
    while ours is not None and isinstance(first := ours.exceptions[0], BaseExceptionGroup):
        ours = first
    if ours is not None:
        raise ours.exceptions[0] from group
