"""The composition root of the control plane: settings in, everything that a worker process needs out."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from workers.app import CLOUD, CONTROL, EVACUATION, BackgroundHints, sending_to
from workers.bootstrap.capacity import capacity_of, offers_of
from workers.bootstrap.clouds import mark, open_clouds
from workers.bootstrap.github import open_github
from workers.bootstrap.github_app import app_login
from workers.bootstrap.looks import Row
from workers.bootstrap.policies import Policies
from workers.bootstrap.recovery import recovery_of
from workers.bootstrap.rounds import Rounds
from workers.bootstrap.stores import open_objects
from workers.bootstrap.surroundings import user_data_of
from workers.clock import SystemClock
from workers.domain.errors import Refused, Unfit
from workers.domain.installation import guests
from workers.domain.names import RunnerId, runner_id
from workers.domain.offer import Assortment
from workers.domain.overlay import Overlay, Station, is_endpoint
from workers.host_client import HostClient
from workers.ports import Clock, Forwarding, Hints, HostApi, Relay, Store
from workers.reconcilers.capacity import Buyer
from workers.reconcilers.clouds import Clouds, Outages
from workers.reconcilers.hosts import HostPolicy, Hosts
from workers.reconcilers.hub import Hub
from workers.reconcilers.jobs import JobPolicy, Jobs
from workers.reconcilers.migrations import Migrations
from workers.reconcilers.parks import Parks
from workers.reconcilers.polls import POLL_INTERVAL
from workers.reconcilers.retention import Retention
from workers.reconcilers.runners import Runners
from workers.reconcilers.stock import Stockroom
from workers.reconcilers.survey import Ours
from workers.reconcilers.sweep import Reconcilers, Sweep
from workers.relay.client import RelayClient
from workers.settings import ControlSettings
from workers.store.repository import SqlStore, open_store

# A hint that meets a lease waits for it: what it tells of may have come after that look had begun.
LEASE_WAIT: Final = timedelta(seconds=1)
# GitHub refuses an App that has more than 100 calls under way, and there are a few worker processes.
REGISTRATIONS_AT_ONCE: Final = 24


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


@dataclass(frozen=True)
class _Market:
    """Where hosts come from, what there is, and who buys."""

    clouds: Clouds
    stock: Stockroom
    buyer: Buyer


def open_rounds(settings: ControlSettings) -> Rounds:
    """Build the control plane and return what looks at its rows. Raises `Unfit` for settings that are not enough."""
    clock = SystemClock()
    store = open_store(settings.database, clock, lease_wait=LEASE_WAIT)
    relay = _relay(settings)
    hints = BackgroundHints(sending_to(settings.redis_url))
    policies = Policies(settings)
    opened, outages = open_clouds(settings, clock, store.hosts_taken_back), Outages(clock)
    stock = Stockroom(opened.sellers, store.catalogues, clock)
    buyer = Buyer(store, hints, clock, capacity_of(settings), policies, offers_of(settings, stock), outages)
    market = _Market(Clouds(opened.clouds, outages), stock, buyer)
    reconcilers = _reconcilers(settings, store, relay, hints, clock, market, policies)
    sweep = Sweep(store, relay, hints, buyer, reconcilers)
    return rounds_of(reconcilers, sweep, lambda: policies.report(store, clock))


def rounds_of(reconcilers: Reconcilers, sweep: Sweep, report: Callable[[], None] = lambda: None) -> Rounds:
    """Say which queue is for which rows."""

    def control() -> Iterator[Row]:
        if reconcilers.recovery is not None:
            yield from reconcilers.recovery.due()
        yield from (("job", str(key)) for key in reconcilers.jobs.due())
        yield from (("runner", key) for key in reconcilers.runners.due())
        yield from (("remark", key) for key in reconcilers.jobs.answers.due())

    def cloud() -> Iterator[Row]:
        yield from (("host", key) for key in reconcilers.hosts.due())
        if reconcilers.stock is not None:
            yield from (("offers", key) for key in reconcilers.stock.due())
        if reconcilers.retention is not None:
            yield from (("retention", key) for key in reconcilers.retention.due())

    return Rounds(
        reconcilers.look_at,
        {EVACUATION: sweep.urgent, CONTROL: control, CLOUD: cloud},
        {CLOUD: sweep.refresh, CONTROL: report},
    )


def _reconcilers(
    settings: ControlSettings,
    store: SqlStore,
    relay: Relay,
    hints: Hints,
    clock: Clock,
    market: _Market,
    policies: Policies,
) -> Reconcilers:
    buyer = market.buyer
    hosts: HostApi = HostClient(settings.home / "worker")
    park_limit = timedelta(seconds=settings.park_limit_s)
    poll_interval = POLL_INTERVAL * settings.recovery_pace
    served = guests(settings.installations_allowed, settings.installations_denied)
    beat_limit = _heartbeat_limit(settings)
    own = mark(settings) + "-"  # so that another deployment's runners in the same place are let alone
    job_policy = JobPolicy(
        policies, beat_limit, settings.hold_limit_s, park_limit, poll_interval, served, runner_id(own)
    )
    github = open_github(settings, clock, runner_id(own))
    ours = Ours(runner_id(own), lambda name: policies().may_share(name), served)
    return Reconcilers(
        jobs=Jobs(store, github, hints, clock, buyer, job_policy, lambda: own + secrets.token_hex(5)),
        runners=Runners(store, hosts, github, relay, hints, clock, _beside(), park_limit),
        hosts=Hosts(store, market.clouds, hints, clock, buyer, HostPolicy(user_data_of(settings))),
        migrations=Migrations(store, hosts, relay, hints, clock),
        parks=Parks(store, open_objects(settings, clock), hints, clock, buyer, park_limit),
        hub=_hub(settings, store, relay),
        stock=market.stock,
        retention=Retention(store.attic, clock, timedelta(days=settings.keep_days)),
        recovery=recovery_of(store, github, github.lists, hosts, hints, clock, ours, settings.recovery_pace),
    )


def _beside() -> Executor:
    """Registrations are made while hosts restore: as many at once as rows are looked at."""
    return ThreadPoolExecutor(REGISTRATIONS_AT_ONCE, thread_name_prefix="register")


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


def _heartbeat_limit(settings: ControlSettings) -> timedelta:
    return timedelta(seconds=settings.heartbeat_limit_s)


def _relay(settings: ControlSettings) -> Relay:
    return RelayClient(settings.relay_url, settings.home / "worker") if settings.relay_url else NoRelay()


def check(settings: ControlSettings) -> None:
    """Raise `Unfit` for settings with which no worker could work, before one is started."""
    open_clouds(settings, SystemClock(), lambda _: ())
    app_login(settings)
    guests(settings.installations_allowed, settings.installations_denied)
    _ = settings.github_site
    _ = settings.guest_mtu
    _overlay_endpoint(settings)
    Policies(settings)
    offers_of(settings, Assortment)
    if not settings.package:
        raise Unfit("no package; set SPOT_RUNNER_PACKAGE to the digest of the package that runners start from")
