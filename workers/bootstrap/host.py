"""`spot-runner host`: from a machine that knows one token to a host that proves itself READY.

user data ─▶ certificate, overlay (once) ─▶ network ─▶ adopt what runs ─▶ { API, heartbeat, notices, proof }
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import structlog

from workers.bootstrap.registration import Standing, ensure_registered, patiently
from workers.clock import SystemClock
from workers.domain.errors import SpotError, Unreachable
from workers.domain.messages import Heartbeat, HeartbeatAnswer, RegistrationAnswer, RenewalRequest
from workers.domain.names import HostId
from workers.host.acceleration import choose_acceleration
from workers.host.control import ControlClient
from workers.host.daemon import keep_beating, make_host_app
from workers.host.dead_man import LOOK_INTERVAL_S, DeadMan, power_off_daemon, power_off_machine
from workers.host.engine import Engine, EngineParts
from workers.host.fetching import Fetcher
from workers.host.guest import GuestChannel
from workers.host.measuring import measure_host_class
from workers.host.network import HostNetwork
from workers.host.notices import HETZNER, IMDS_V2, MetadataService, Notices, NoticeWatcher
from workers.host.packages import PackageShelf
from workers.host.proofs import Proofs
from workers.host.readiness import Readiness
from workers.host.told import FileMetadata, UserData
from workers.host.transfers import Transfers
from workers.host.tunnels import Tunnels
from workers.identity import CERTIFICATE, make_csr, next_csr, write_next
from workers.listener import Identity, open_port, require_root, run_until_told, serve
from workers.settings import HostSettings, MetadataKind, PowersOff
from workers.telemetry import start_logging

# A certificate lives for 24 hours; many renewals may fail before it ends.
RENEWAL_INTERVAL_S: Final = 8 * 3600.0
RENEWAL_RETRY_S: Final = 60.0

_PATHS: Final = {MetadataKind.EC2: IMDS_V2, MetadataKind.HETZNER: HETZNER}

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
    metadata = _metadata(settings)
    told = await patiently(metadata.user_data)
    directory = settings.host_home / "identity"
    control = ControlClient(told.control_url, directory)
    standing = await ensure_registered(control, directory, told, metadata, settings.overlay_port)
    listening = open_port(standing.address, settings.listen_port)
    network = await asyncio.to_thread(_network, settings, told, standing)
    await asyncio.to_thread(network.prepare)
    await asyncio.to_thread(network.adopt)
    choice = choose_acceleration(settings.accel, has_pvm_kernel=settings.is_pvm)
    began = time.monotonic()
    host_class = await asyncio.to_thread(measure_host_class, choice.acceleration)
    stages_s = {"class_measured": time.monotonic() - began}
    _log.info("host_class_measured", acceleration=choice.acceleration.value, reason=choice.reason)
    shelf = PackageShelf(settings.package_store, settings.package_cache, host_class)
    objects = Transfers(told.control_url, directory)
    fetcher = Fetcher(settings.package_store, control, objects)
    engine = Engine(
        EngineParts(
            host_id=told.host_id,
            address=standing.address,
            home=settings.host_home / "engine",
            make_csr=make_csr,
            shelf=shelf,
            network=network,
            control=control,
            objects=objects,
            connect_guest=GuestChannel.connect,
            bring=lambda package: fetcher.fetch(package, shelf.path(package)),
            wake_limit_s=settings.wake_limit_s,
        )
    )
    await engine.adopt()
    proofs = Proofs(settings.host_home / "proofs.json", host_class)
    readiness = Readiness(engine, host_class, proofs, allow_tcg=settings.allow_tcg, stages_s=stages_s)
    try:
        beating = _Beating(readiness, standing.tunnels, _dead_man(settings, engine))
        await _serve(settings, told.host_id, engine, beating, control, metadata, listening)
    finally:
        await engine.release()


async def _serve(
    settings: HostSettings,
    host_id: HostId,
    engine: Engine,
    beating: _Beating,
    control: ControlClient,
    metadata: Notices,
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
        group.create_task(beating.dead_man.watch(min(LOOK_INTERVAL_S, settings.silence_limit_s / 10)))


def _metadata(settings: HostSettings) -> MetadataService | FileMetadata:
    kind = settings.metadata_kind
    if kind is MetadataKind.FILE:
        return FileMetadata(settings.bootstrap_file)
    return MetadataService(settings.metadata_url, _PATHS[kind])


def _network(settings: HostSettings, told: UserData, standing: Standing) -> HostNetwork:
    return HostNetwork(
        standing.address,
        standing.surroundings.relay_address,
        standing.surroundings.guest_mtu,
        settings.guest_mbit,
        _closed_to_guests(settings, told),
        settings.guest_connections_max,
        standing.tunnels.name if standing.tunnels else None,
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
    dead_man: DeadMan

    def status(self) -> Heartbeat:
        heartbeat = self.readiness.heartbeat()
        return heartbeat if self.tunnels is None else self.tunnels.told(heartbeat)

    async def hear(self, answer: HeartbeatAnswer) -> None:
        self.dead_man.hear()
        self.readiness.want(answer.packages)
        if self.tunnels is not None:
            await asyncio.to_thread(self.tunnels.take, answer.peers)


def _dead_man(settings: HostSettings, engine: Engine) -> DeadMan:
    power_off = power_off_machine if settings.power_off is PowersOff.MACHINE else power_off_daemon
    return DeadMan(engine, power_off, timedelta(seconds=settings.silence_limit_s))


async def keep_renewed(
    renew: Callable[[RenewalRequest], Awaitable[RegistrationAnswer]],
    host_id: HostId,
    directory: Path,
    interval_s: float = RENEWAL_INTERVAL_S,
) -> None:
    """Renew the certificate for ever; a renewal that fails is tried again soon, and nothing else depends on it yet.

    An interval begins with the certificate and not with the daemon, which may be started again at any time.
    """
    wait = max(0.0, interval_s - await asyncio.to_thread(_age_s, directory / CERTIFICATE))
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


def _age_s(certificate: Path) -> float:
    """Return how long ago it was written; a clock that was put back makes it fresh."""
    return max(0.0, time.time() - certificate.stat().st_mtime)


def _raise_ours(group: BaseExceptionGroup[BaseException]) -> None:
    """Raise the first error that is a sentence for people, if there is one."""
    ours = group.subgroup(SpotError)
    while ours is not None and isinstance(first := ours.exceptions[0], BaseExceptionGroup):
        ours = first
    if ours is not None:
        raise ours.exceptions[0] from group
