"""Instances that a cloud shows, and the machines that stand for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import httpx
import pytest

from workers.bootstrap.offers import read_offers
from workers.domain.names import HostId
from workers.ports import InstanceState
from workers.rehearsal.clouds.mirror import Difference, Mirror, Shown, difference
from workers.rehearsal.clouds.offers import offers
from workers.rehearsal.landlord import Estate, Landlord
from workers.rehearsal.places import Places
from workers.rehearsal.plots import Plot
from workers.settings import MetadataKind

A, B = HostId("spot-host-a"), HostId("spot-host-b")
RUNNING, TERMINATED = InstanceState.RUNNING, InstanceState.TERMINATED
NETWORK = IPv4Network("10.0.0.0/16")


@pytest.mark.parametrize(
    ("shown", "before", "there", "step"),
    [
        ([A], [], {}, Difference(begin=(A,))),
        ([A], [A], {A: RUNNING}, Difference()),
        ([B], [A, B], {A: RUNNING, B: RUNNING}, Difference(end=(A,))),
        ([A], [A], {A: TERMINATED}, Difference(tell=(A,))),
        ([], [A], {A: TERMINATED}, Difference()),
        ([], [A], {}, Difference()),
    ],
    ids=["new", "known", "terminated there", "ended here", "ended on both sides", "forgotten here"],
)
def test_what_is_to_be_done(
    shown: list[HostId], before: list[HostId], there: dict[HostId, InstanceState], step: Difference
) -> None:
    assert difference(shown, before, there) == step


class OneCloud:
    """A cloud whose instances are put there by hand."""

    name = "one"

    def __init__(self) -> None:
        self.instances: list[Shown] = []
        self.is_away = False

    def running(self) -> Sequence[Shown]:
        if self.is_away:
            raise httpx.ConnectError("away")
        return list(self.instances)

    def end(self, shown: Shown) -> None:
        self.instances.remove(shown)


def shown(host_id: HostId) -> Shown:
    return Shown(host_id, Plot(MetadataKind.EC2, f"i-{host_id}", IPv4Address("10.0.1.4"), NETWORK), "told")


def test_a_machine_is_ordered_for_each_instance_once_even_if_the_cloud_is_away_for_a_while() -> None:
    landlord, cloud = Landlord(Estate(Places("mirror"), daemon=(), metadata=())), OneCloud()
    mirror = Mirror(landlord, [cloud])
    cloud.instances.append(shown(A))
    mirror.look()
    cloud.is_away = True
    mirror.look()
    cloud.is_away = False
    mirror.look()
    assert [one.host_id for one in landlord.instances()] == [A]
    assert mirror.shown(A) == ("one", shown(A))
    assert mirror.shown(B) is None


def test_what_ends_while_everything_ends_is_not_begun_anew() -> None:
    landlord, cloud = Landlord(Estate(Places("mirror"), daemon=(), metadata=())), OneCloud()
    landlord.close()
    cloud.instances.append(shown(A))
    Mirror(landlord, [cloud]).look()
    assert landlord.instances() == ()


def test_each_metadata_service_tells_what_its_cloud_tells() -> None:
    behind = shown(A).plot
    assert behind.bodies("told") == {
        "latest/user-data": "told",
        "latest/meta-data/instance-id": f"i-{A}",
        "latest/meta-data/local-ipv4": "10.0.1.4",
    }
    assert behind.inside is not None
    assert (str(behind.inside.gateway), behind.environment) == ("10.0.0.1", {"SPOT_RUNNER_METADATA_KIND": "ec2"})
    server = Plot(MetadataKind.HETZNER, "7", IPv4Address("10.90.0.193"))
    assert (server.inside, server.environment) == (None, {"SPOT_RUNNER_METADATA_KIND": "hetzner"})
    assert server.bodies("told") == {
        "hetzner/v1/userdata": "told",
        "hetzner/v1/metadata/instance-id": "7",
        "hetzner/v1/metadata/public-ipv4": "10.90.0.193",
    }


def test_the_service_takes_the_offers_and_spot_at_aws_is_the_cheapest(tmp_path: Path) -> None:
    file = tmp_path / "offers.json"
    file.write_text(json.dumps(offers()))
    by_price = sorted(read_offers(file), key=lambda one: one.cost)
    assert [(one.cloud, one.is_spot) for one in by_price] == [
        *[("aws", True)] * 2,
        ("hetzner", False),
        *[("aws", False)] * 2,
    ]
