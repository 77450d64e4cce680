"""`spot-runner host`: from a machine that knows one token to a host that proves itself READY.

user data ─▶ network ─▶ certificate (once) ─▶ adopt what runs ─▶ { API, heartbeat, notices, proof }
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

import structlog

from workers.clock import SystemClock
from workers.domain.errors import SpotError, TryLater, Unreachable
from workers.domain.messages import RegistrationAnswer, RegistrationRequest, RenewalRequest
from workers.domain.names import HostId
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
from workers.identity import Leaf, make_csr, next_csr, write_leaf, write_next
from workers.listener import Identity, open_port, require_root, run_until_told, serve
from workers.settings import HostSettings
from workers.telemetry import start_logging

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
    address = await _patiently(metadata.local_address)
    listening = open_port(address, settings.listen_port)
    network = HostNetwork(
        address,
        told.relay_address or None,
        told.guest_mtu,
        settings.guest_mbit,
        await asyncio.to_thread(_closed_to_guests, settings, told),
        settings.guest_connections_max,
    )
    await asyncio.to_thread(network.prepare)
    directory = settings.host_home / "identity"
    control = ControlClient(told.control_url, directory)
    await _ensure_registered(control, directory, told, address)
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
        await _serve(settings, HostId(told.host_id), engine, readiness, control, metadata, listening)
    finally:
        await engine.release()


async def _serve(
    settings: HostSettings,
    host_id: HostId,
    engine: Engine,
    readiness: Readiness,
    control: ControlClient,
    metadata: MetadataService,
    listening: socket.socket,
) -> None:
    directory = settings.host_home / "identity"
    identity = Identity(directory / "certificate.pem", directory / "key.pem", directory / "control-ca.pem")
    watcher = NoticeWatcher(metadata, control.notice, SystemClock())
    async with asyncio.TaskGroup() as group:
        group.create_task(serve(make_host_app(engine, readiness.heartbeat), listening, identity))
        group.create_task(
            keep_beating(control.heartbeat, readiness.heartbeat, readiness.want, settings.heartbeat_interval_s)
        )
        group.create_task(keep_renewed(control.renew, host_id, directory))
        group.create_task(watcher.watch(settings.notice_interval_s))
        group.create_task(readiness.prove())


def _closed_to_guests(settings: HostSettings, told: UserData) -> frozenset[str]:
    """Return what guests that leave through this host may not reach: what it was told, and the control plane."""
    url = urlsplit(told.control_url)
    try:
        found = socket.getaddrinfo(url.hostname, url.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unreachable(f"the control plane's name in {told.control_url} is not found: {error}") from error
    return frozenset(settings.guest_forbidden) | {str(ipaddress.ip_network(place[4][0])) for place in found}


async def _ensure_registered(control: ControlClient, directory: Path, told: UserData, address: str) -> None:
    """Get the certificate, once in this machine's life: a restarted daemon finds it."""
    if (directory / "hosts-ca.pem").exists():
        return
    key, csr = make_csr(HostId(told.host_id))
    request = RegistrationRequest(HostId(told.host_id), told.token, csr, address)
    answer = await _patiently(lambda: control.register(request, told.control_ca_sha256))
    write_leaf(directory, Leaf(answer.certificate, key), answer.control_ca, answer.hosts_ca)
    _log.info("host_registered", host=told.host_id, address=address)


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
