"""The composition root of the control plane: settings in, everything that a worker process needs out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Final

from workers.app import CLOUD, CONTROL, EVACUATION, BackgroundHints, sending_to
from workers.bootstrap.pools import open_policy
from workers.bootstrap.rounds import Rounds, Row
from workers.bootstrap.stores import open_objects
from workers.clock import SystemClock
from workers.domain.errors import Refused, Unfit
from workers.domain.names import RunnerId
from workers.domain.overlay import HUB_ADDRESS, Overlay, Station, is_endpoint
from workers.domain.runner import Shape
from workers.github import AppGitHub
from workers.host_client import HostClient
from workers.identity import Authority
from workers.planning.capacity import CapacityPolicy
from workers.ports import Clock, Cloud, Forwarding, Hints, HostApi, Relay, Store
from workers.providers.local import LocalMarket
from workers.reconcilers.capacity import Buyer
from workers.reconcilers.hosts import HostPolicy, Hosts
from workers.reconcilers.hub import Hub
from workers.reconcilers.jobs import JobPolicy, Jobs
from workers.reconcilers.migrations import Migrations
from workers.reconcilers.parks import Parks
from workers.reconcilers.runners import Runners
from workers.reconcilers.sweep import Reconcilers, Sweep
from workers.relay.client import RelayClient
from workers.settings import ControlSettings
from workers.store.repository import open_store

# A hint that meets a lease waits for it: what it tells of may have come after that look had begun.
LEASE_WAIT: Final = timedelta(seconds=1)


class NoRelay:
    """A deployment without a relay: its hosts' guests leave through the hosts themselves."""

    def point(self, entry: Forwarding) -> None:
        """There is nothing to point."""

    def forget(self, runner_id: RunnerId, epoch: int) -> None:
        """There is nothing to forget."""

    def replace_all(self, entries: Iterable[Forwarding]) -> None:
        """There is nothing to hold."""

    def admit(self, stations: Iterable[Station]) -> str:
        """Nobody is the hub."""
        raise Refused(f"no relay is set that could let {len(tuple(stations))} hosts into the overlay; set relay_url")


def open_rounds(settings: ControlSettings) -> Rounds:
    """Build the control plane and return what looks at its rows. Raises `Unfit` for settings that are not enough."""
    clock = SystemClock()
    store = open_store(settings.database, clock, lease_wait=LEASE_WAIT)
    relay = _relay(settings)
    hints = BackgroundHints(sending_to(settings.redis_url))
    buyer = Buyer(store, hints, clock, _capacity(settings))
    reconcilers = _reconcilers(settings, store, relay, hints, clock, buyer)
    return rounds_of(reconcilers, Sweep(store, relay, hints, buyer, reconcilers))


def rounds_of(reconcilers: Reconcilers, sweep: Sweep) -> Rounds:
    """Say which queue is for which rows."""

    def control() -> Iterator[Row]:
        yield from (("job", str(key)) for key in reconcilers.jobs.due())
        yield from (("runner", key) for key in reconcilers.runners.due())

    def cloud() -> Iterator[Row]:
        yield from (("host", key) for key in reconcilers.hosts.due())

    return Rounds(
        reconcilers.look_at,
        {EVACUATION: sweep.urgent, CONTROL: control, CLOUD: cloud},
        {CLOUD: sweep.refresh},
    )


def _reconcilers(
    settings: ControlSettings, store: Store, relay: Relay, hints: Hints, clock: Clock, buyer: Buyer
) -> Reconcilers:
    hosts: HostApi = HostClient(settings.home / "worker")
    github = AppGitHub(settings.github_url, settings.github_app_id, _github_key(settings))
    park_limit = timedelta(seconds=settings.park_limit_s)
    job_policy = JobPolicy(open_policy(settings), _heartbeat_limit(settings), settings.hold_limit_s, park_limit)
    return Reconcilers(
        jobs=Jobs(store, github, hints, clock, buyer, job_policy),
        runners=Runners(store, hosts, github, relay, hints, clock, park_limit),
        hosts=Hosts(store, _cloud(settings), hints, clock, buyer, _host_policy(settings)),
        migrations=Migrations(store, hosts, relay, hints, clock),
        parks=Parks(store, open_objects(settings, clock), hints, clock, buyer, park_limit),
        hub=_hub(settings, store, relay),
    )


def _hub(settings: ControlSettings, store: Store, relay: Relay) -> Hub | None:
    endpoint = _overlay_endpoint(settings)
    return None if endpoint is None else Hub(store, relay, endpoint)


def _overlay_endpoint(settings: ControlSettings) -> str | None:
    if settings.overlay is Overlay.PLAIN:
        return None
    endpoint = settings.overlay_endpoint
    if endpoint is None or not is_endpoint(endpoint) or settings.relay_url is None:
        raise Unfit(
            f"overlay: wireguard needs a relay as its hub, and overlay_endpoint is {endpoint!r}; set relay_url, and "
            "overlay_endpoint to the address:port at which every host reaches the relay"
        )
    return endpoint


def _host_policy(settings: ControlSettings) -> HostPolicy:
    user_data = {
        "control_url": settings.host_url,
        "control_ca_sha256": Authority.open(settings.home / "ca").control_ca_sha256,
        "relay_address": _relay_address(settings),
        "overlay": settings.overlay.value,
        "guest_mtu": str(settings.guest_mtu),
    }
    return HostPolicy(user_data)


def _relay_address(settings: ControlSettings) -> str:
    return HUB_ADDRESS if settings.overlay is Overlay.WIREGUARD else settings.relay_address or ""


def _capacity(settings: ControlSettings) -> CapacityPolicy:
    spec = Shape(settings.host_vcpus, settings.host_memory_mib, settings.host_disk_mib)
    return CapacityPolicy(
        _cloud(settings).name, spec, settings.ready_hosts, settings.hosts_max, _heartbeat_limit(settings)
    )


def _heartbeat_limit(settings: ControlSettings) -> timedelta:
    return timedelta(seconds=settings.heartbeat_limit_s)


def _cloud(settings: ControlSettings) -> Cloud:
    if settings.market_url is None:
        raise Unfit("no cloud is configured; set SPOT_RUNNER_MARKET_URL to a spot market")
    return LocalMarket(settings.market_url)


def _relay(settings: ControlSettings) -> Relay:
    return RelayClient(settings.relay_url, settings.home / "worker") if settings.relay_url else NoRelay()


def _github_key(settings: ControlSettings) -> str:
    if settings.github_key_file is None:
        raise Unfit("no GitHub App key; set SPOT_RUNNER_GITHUB_KEY_FILE to the App's private key (PEM)")
    try:
        return settings.github_key_file.read_text()
    except OSError as error:
        raise Unfit(f"SPOT_RUNNER_GITHUB_KEY_FILE cannot be read: {error}") from error


def check(settings: ControlSettings) -> None:
    """Raise `Unfit` for settings with which no worker could work, before one is started."""
    _cloud(settings)
    _github_key(settings)
    _ = settings.guest_mtu
    _overlay_endpoint(settings)
    open_policy(settings)
    if not settings.package:
        raise Unfit("no package; set SPOT_RUNNER_PACKAGE to the digest of the package that runners start from")
