"""An account at AWS in which hosts may be rented: moto's, with two zones behind one NAT."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import boto3
from botocore.config import Config

from tests.contract.clouds import answering
from workers.domain.market import SpotPool
from workers.providers.aws.account import Account
from workers.providers.aws.cloud import Aws
from workers.providers.aws.dry_run import AwsDryRun, DryAccount
from workers.providers.aws.requests import Rental
from workers.rehearsal.aws.faults import Faults

REGION = "eu-central-1"
KEYS = {"aws_access_key_id": "AKIAEXAMPLE", "aws_secret_access_key": "secret-of-the-test"}
IMAGE = "ami-12c6146b"
"""One of those that moto begins with."""
TYPES = ("m8i.large", "m7a.large")
"""With nested virtualization, and without."""


@dataclass(frozen=True)
class Site:
    """What every test of AWS shares, because moto and boto3 take their time: a server, a network, clients."""

    faults: Faults
    url: str
    subnets: tuple[str, ...]
    image: str
    direct: Any
    """A client that no fault befalls."""
    ec2: Any
    quotas: Any


@dataclass(frozen=True)
class World:
    """One deployment in the account."""

    site: Site
    rental: Rental

    @property
    def faults(self) -> Faults:
        return self.site.faults

    @property
    def direct(self) -> Any:  # noqa: ANN401 boto3 makes its classes when it runs
        return self.site.direct

    def cloud(self, resting: Iterable[SpotPool] = (), ec2: object = None, **changed: Any) -> Aws:  # noqa: ANN401 the settings' own types
        """Open the adapter, with other settings where they are named."""
        pools = tuple(resting)
        account = Account(ec2 or self.site.ec2, self.site.quotas, replace(self.rental, **changed))
        return Aws(account, lambda: pools)

    def dry_run(self, ec2: object = None, **changed: Any) -> AwsDryRun:  # noqa: ANN401 the settings' own types
        """Open what asks whether it would work, with other settings where they are named."""
        return AwsDryRun(DryAccount(ec2 or self.site.ec2, self.site.quotas, replace(self.rental, **changed)))

    def instances(self) -> list[dict[str, Any]]:
        """Return every instance of this deployment that is not terminated."""
        whose = [{"Name": "tag:spot-runner:deployment", "Values": [self.rental.deployment]}]
        told = self.direct.describe_instances(Filters=whose)["Reservations"]
        found = [one for some in told for one in some["Instances"]]
        return [one for one in found if one["State"]["Name"] != "terminated"]

    def templates(self) -> list[dict[str, Any]]:
        """Return this deployment's launch templates."""
        found = self.direct.describe_launch_templates()["LaunchTemplates"]
        return [one for one in found if self.rental.deployment in one["LaunchTemplateName"]]


@contextmanager
def open_site(moto: str) -> Iterator[Site]:
    """Put the faults in front of moto's server, and make a network there."""
    faults, direct = Faults(moto), client("ec2", moto)
    image = direct.describe_images(ImageIds=[IMAGE])["Images"][0]["ImageId"]
    with answering(faults) as url:
        clients = client("ec2", url), client("service-quotas", url)
        yield Site(faults, url, tuple(_subnets(direct)), image, direct, *clients)


def deployed(site: Site, deployment: str) -> World:
    """Open a deployment that has rented nothing yet."""
    site.faults.forget()
    rental = Rental(
        region=REGION,
        deployment=deployment,
        subnets=site.subnets,
        instance_types=TYPES,
        kvm_image=site.image,
        pvm_image=site.image,
        control_source="10.0.9.0/24",
        tags={"team": "builds"},
    )
    return World(site, rental)


def _subnets(ec2: Any) -> Iterator[str]:  # noqa: ANN401 boto3 makes its classes when it runs
    """Make two private subnets, each in a zone of its own, whose way out is a NAT in a public one."""
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    public = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24", AvailabilityZone=f"{REGION}a")["Subnet"]["SubnetId"]
    nat = ec2.create_nat_gateway(SubnetId=public)["NatGateway"]["NatGatewayId"]
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", NatGatewayId=nat)
    for number, zone in enumerate("ab", 1):
        made = ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{number}.0/24", AvailabilityZone=f"{REGION}{zone}")
        ec2.associate_route_table(RouteTableId=table, SubnetId=made["Subnet"]["SubnetId"])
        yield made["Subnet"]["SubnetId"]


def client(name: str, endpoint: str, read_limit_s: float = 60) -> Any:  # noqa: ANN401 boto3 makes its classes when it runs
    limits = Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=read_limit_s)
    return boto3.client(name, region_name=REGION, endpoint_url=endpoint, config=limits, **KEYS)
