"""A control plane that makes host images until it is killed. What a builder installs is not played: it switches off.

Few images are wanted, so that most lives find what an earlier one has left in the middle of its work.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

from hcloud import Client

from tests.contract.aws_cloud import client
from workers.clock import SystemClock
from workers.domain.errors import SpotError
from workers.providers.aws.account import Account as AwsAccount
from workers.providers.aws.builder import BUILDER_TAG
from workers.providers.aws.builder import Builder as AwsBuilder
from workers.providers.aws.builder import Order as AwsOrder
from workers.providers.aws.requests import Rental as AwsRental
from workers.providers.hetzner.account import Account as HetznerAccount
from workers.providers.hetzner.account import T
from workers.providers.hetzner.builder import BUILDER_LABEL
from workers.providers.hetzner.builder import Builder as HetznerBuilder
from workers.providers.hetzner.builder import Order as HetznerOrder
from workers.providers.hetzner.requests import Rental as HetznerRental

Tell = Callable[[str], None]

WHAT: Final = "image build"
WANTED: Final = 3
NAP_S: Final = 0.02
# How likely a builder has done its work when it is looked at.
DONE: Final = 0.5
USER_DATA: Final = "#cloud-config\n{}\n"


class Images(Protocol):
    """Host images at one cloud."""

    def make(self, number: int) -> None:
        """Make the image of this number, or find it. Raises `SpotError`."""


def build(images: Images, dice: random.Random) -> None:
    """Make images until the end."""
    while True:
        with suppress(SpotError):
            images.make(dice.randrange(WANTED))
        time.sleep(NAP_S)  # they are all there


def finish(images: Images) -> None:
    """Make every image that was wanted, and with that end what was left. Raises `SpotError`."""
    for number in range(WANTED):
        images.make(number)


class _ToldAws(AwsAccount):
    tell: Tell

    def ask_bluntly(self, call: str, **named: object) -> Any:  # noqa: ANN401 as boto3 answers
        self.tell(WHAT)
        try:
            return super().ask_bluntly(call, **named)
        finally:
            self.tell("-")


@dataclass(frozen=True)
class AtAws:
    """At EC2, as moto has it."""

    url: str
    rental: AwsRental
    image: str
    dice: random.Random
    tell: Tell

    def make(self, number: int) -> None:
        account = _ToldAws(client("ec2", self.url), client("service-quotas", self.url), self.rental)
        account.tell = self.tell
        order = AwsOrder(
            name=f"spot-runner-{number}",
            origin=self.image,
            instance_type=self.rental.instance_types[0],
            subnet=self.rental.subnets[0],
            is_public=False,
            user_data=USER_DATA,
            failed="spot-runner-image: failed",
            tags=self.rental.tags,
        )
        AwsBuilder(account, SystemClock(), self._pass).make(order)

    def _pass(self, _: float) -> None:
        if self.dice.random() < DONE:
            machines = client("ec2", self.url)
            for name in builders_at_aws(machines, ("running",)):
                machines.stop_instances(InstanceIds=[name])


def builders_at_aws(ec2: Any, states: tuple[str, ...]) -> list[str]:  # noqa: ANN401 boto3 makes its classes when it runs
    """Return the ids of the builders in these states."""
    filters = [
        {"Name": "tag-key", "Values": [BUILDER_TAG]},
        {"Name": "instance-state-name", "Values": list(states)},
    ]
    told = ec2.describe_instances(Filters=filters)["Reservations"]
    return [one["InstanceId"] for some in told for one in some["Instances"]]


class _ToldHetzner(HetznerAccount):
    tell: Tell

    def ask_bluntly(self, call: str, function: Callable[[], T], *, is_urgent: bool = False) -> T:
        self.tell(WHAT)
        try:
            return super().ask_bluntly(call, function, is_urgent=is_urgent)
        finally:
            self.tell("-")


@dataclass(frozen=True)
class AtHetzner:
    """At the simulated Hetzner."""

    url: str
    token: str
    rental: Mapping[str, Any]
    dice: random.Random
    tell: Tell

    def make(self, number: int) -> None:
        clock = SystemClock()
        machines = Client(self.token, api_endpoint=f"{self.url}/v1")
        account = _ToldHetzner(Client(self.token, api_endpoint=f"{self.url}/v1"), HetznerRental(**self.rental), clock)
        account.tell = self.tell
        order = HetznerOrder(
            name=f"spot-runner-{number}",
            key=str(number),
            kind="pvm",
            origin="debian-12",
            server_type="cx42",
            location="nbg1",
            user_data=USER_DATA,
        )

        def pass_time(_: float) -> None:
            if self.dice.random() < DONE:
                for server in machines.servers.get_all(label_selector=BUILDER_LABEL, status=["running"]):
                    server.power_off()

        try:
            HetznerBuilder(account, clock, pass_time).make(order)
        finally:
            account.close()
