"""Opens the clouds that hosts come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from workers.bootstrap.rented import AWS, HETZNER, LOCAL, cloud_names, hetzner_token, usd_rate
from workers.domain.host import Host
from workers.domain.market import SpotPool
from workers.domain.overlay import OVERLAY_PORT
from workers.dry_run import DryRun
from workers.identity import Authority
from workers.planning.resting import RestPolicy, resting
from workers.ports import Clock, Cloud
from workers.providers.aws.account import Account as AwsAccount
from workers.providers.aws.cloud import Aws
from workers.providers.aws.dry_run import AwsDryRun, DryAccount
from workers.providers.aws.offers import AwsSeller
from workers.providers.aws.prices import PriceList
from workers.providers.aws.requests import Rental
from workers.providers.hetzner.account import Account as HetznerAccount
from workers.providers.hetzner.cloud import Hetzner
from workers.providers.hetzner.dry_run import HetznerDryRun
from workers.providers.hetzner.offers import HetznerSeller
from workers.providers.hetzner.requests import Rental as HetznerRental
from workers.providers.local import LocalMarket
from workers.selling import Seller
from workers.settings import AwsSettings, ControlSettings, HostSettings

MARK_LENGTH: Final = 6

TakenBack = Callable[[datetime], Sequence[Host]]
"""Returns the hosts whose notice gave them a deadline after that."""


def mark(settings: ControlSettings) -> str:
    """Return what tells this deployment from another in the same account, at the cloud and at GitHub."""
    return Authority.open(settings.home / "ca").control_ca_sha256[:MARK_LENGTH]


@dataclass(frozen=True)
class Opened:
    """The clouds of a deployment, and what tells their offers."""

    clouds: tuple[Cloud, ...]
    sellers: tuple[Seller, ...]


def open_clouds(settings: ControlSettings, clock: Clock, taken_back: TakenBack) -> Opened:
    """Open the clouds that hosts come from. Raises `Unfit`, or `BadInput` for settings that one does not know."""
    names = cloud_names(settings)
    clouds, sellers = list[Cloud](), list[Seller]()
    if LOCAL in names:
        clouds.append(LocalMarket(settings.market_url or ""))
    if AWS in names:
        aws, seller = _open_aws(settings, clock, taken_back)
        clouds.append(aws)
        sellers.append(seller)
    if HETZNER in names:
        there = _hetzner_account(settings, clock)
        rate = usd_rate(settings)
        clouds.append(Hetzner(there, clock))
        # One that is alone chooses by its own prices, whatever they are in.
        if rate is not None or len(names) > 1:
            sellers.append(HetznerSeller(there, rate))
    return Opened(tuple(clouds), tuple(sellers) if settings.ask_offers else ())


def open_dry_runs(settings: ControlSettings, clock: Clock) -> Iterator[DryRun]:
    """Open what says whether hosts could be launched; the local market has nothing that could be wrong."""
    names = cloud_names(settings)
    if AWS in names:
        yield AwsDryRun(DryAccount.open(rental(settings.aws, mark(settings)), settings.aws.endpoint))
    if HETZNER in names:
        yield HetznerDryRun(_hetzner_account(settings, clock))


def _open_aws(settings: ControlSettings, clock: Clock, taken_back: TakenBack) -> tuple[Aws, AwsSeller]:
    aws = settings.aws
    policy = RestPolicy(
        aws.rest_interruptions, timedelta(minutes=aws.rest_interval_min), timedelta(minutes=aws.rest_min)
    )

    def rest() -> frozenset[SpotPool]:
        now = clock.now()
        return resting(taken_back(now - policy.memory), policy, now)

    account = AwsAccount.open(rental(aws, mark(settings)), aws.endpoint)
    cloud = Aws(account, rest)
    prices = PriceList.open(aws.region or "", aws.on_demand_prices, clock, aws.endpoint)
    disk_mib = max(one.disk_mib for one in settings.host_sizes)
    return cloud, AwsSeller(account, prices, disk_mib, clock, lambda: cloud.refused)


def rental(aws: AwsSettings, deployment: str) -> Rental:
    """Return what is rented at AWS."""
    return Rental(
        region=aws.region or "",
        deployment=deployment,
        subnets=aws.subnets,
        instance_types=aws.instance_types,
        kvm_image=aws.kvm_image,
        pvm_image=aws.pvm_image,
        instance_profile=aws.instance_profile,
        security_group=aws.security_group,
        control_source=aws.control_source,
        host_port=HostSettings.model_fields["listen_port"].default,
        tags=aws.tags,
    )


def _hetzner_account(settings: ControlSettings, clock: Clock) -> HetznerAccount:
    return HetznerAccount.open(_hetzner_rental(settings), hetzner_token(settings), clock, settings.hetzner.endpoint)


def _hetzner_rental(settings: ControlSettings) -> HetznerRental:
    told = settings.hetzner
    return HetznerRental(
        deployment=mark(settings),
        overlay_port=OVERLAY_PORT,
        locations=told.locations,
        server_types=told.server_types,
        image=told.image,
        ssh_key=told.ssh_key,
        currency=settings.currency,
    )
