"""Both clouds as the rehearsal plays them, with real namespaces; in place of the host daemon stands one that sleeps."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from tests.contract.aws_cloud import client
from workers.clock import SystemClock
from workers.domain.names import HostId, PackageDigest
from workers.domain.notice import Announcement
from workers.domain.runner import Shape
from workers.domain.user_data import cloud_config
from workers.ports import Cloud, InstanceState
from workers.providers.aws.account import Account
from workers.providers.aws.cloud import Aws
from workers.providers.aws.events import EventQueue
from workers.providers.aws.requests import Rental
from workers.providers.hetzner.cloud import Hetzner
from workers.providers.hetzner.requests import Rental as HetznerRental
from workers.rehearsal import places as at
from workers.rehearsal import remains
from workers.rehearsal.aws.catalogue import KIND, REGION
from workers.rehearsal.aws.owner import IMAGE, queue_url
from workers.rehearsal.clouds.offers import LOCATION, SERVER_TYPE
from workers.rehearsal.clouds.stage import CloudStage
from workers.rehearsal.places import Places
from workers.rehearsal.remains import wait_until
from workers.rehearsal.stage import Kit, Terms
from workers.rehearsal.topology import accepts, nat_of, standing_in

pytestmark = [pytest.mark.root, pytest.mark.timeout(400)]

DAEMON = "#!/bin/sh\nexec sleep 600\n"
SPEC = Shape(vcpus=2, memory_mib=2048, disk_mib=4096)
# moto is a large program, and several start at once.
LIMIT_S = 120.0


def nothing(*_: object) -> None:
    """Stand for what no test here asks of a kit."""


class Clouds:
    """The stage's clouds, and the service's own adapters in the control plane's network."""

    def __init__(self, places: Places, program: Path) -> None:
        self.places = places
        kit = Kit("tcg", "", PackageDigest("sha256:0"), str(program), *[nothing] * 5)  # type: ignore[arg-type]  # see above
        self.stage = CloudStage(places, kit, Terms(0, with_overlay=True))
        (places.state / "keys").mkdir(parents=True)
        self.stage.lay_network(with_window=False)
        self.stage._wait_port(self.stage._open_market(), "internet", str(at.INTERNET_SERVERS), at.MARKET_PORT)

    def aws(self) -> Aws:
        rental = Rental(REGION, "clouds", tuple(self.stage._subnets), (KIND,), IMAGE, security_group="sg-of-hosts")
        return Aws(Account(client("ec2", at.AWS_URL), client("service-quotas", at.AWS_URL), rental))

    def hetzner(self) -> Hetzner:
        rental = HetznerRental("clouds", 51820, locations=(LOCATION,), server_types=(SERVER_TYPE,))
        token = (self.places.state / "keys" / "hetzner").read_text()
        return Hetzner.open(rental, token, SystemClock(), f"{at.HETZNER_URL}/v1")

    def boots(self, host: HostId) -> bool:
        return remains.NETNS.joinpath(self.places.namespace(host)).exists() and accepts(
            self.places.namespace(host), "169.254.169.254", 80
        )

    def read(self, host: HostId, path: str, token: str | None = None) -> httpx.Response:
        with standing_in(self.places.namespace(host)), httpx.Client(trust_env=False, timeout=LIMIT_S) as metadata:
            return metadata.get(
                f"http://169.254.169.254/{path}", headers={"X-aws-ec2-metadata-token": token} if token else {}
            )

    def token(self, host: HostId) -> str:
        with standing_in(self.places.namespace(host)), httpx.Client(trust_env=False, timeout=LIMIT_S) as metadata:
            ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
            return metadata.put("http://169.254.169.254/latest/api/token", headers=ttl).text

    def wait(self, condition: Callable[[], bool]) -> None:
        assert wait_until(condition, LIMIT_S, interval_s=0.2), (self.places.logs / "market.log").read_text()

    def is_gone(self, host: HostId) -> bool:
        names = (self.places.namespace(role) for role in (host, nat_of(host)))
        return not any((remains.NETNS / name).exists() for name in names)


def told(host: HostId) -> dict[str, str]:
    return {"control_url": "https://control", "control_ca_sha256": "ca", "token": f"{host}.secret"}


def state(cloud: Cloud, host: HostId) -> InstanceState | None:
    found = cloud.describe(host)
    return None if found is None else found.state


@pytest.fixture(scope="module")
def clouds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clouds]:
    program = tmp_path_factory.mktemp("image") / "daemon"
    program.write_text(DAEMON)
    program.chmod(0o755)
    places = Places(f"c{os.getpid() % 1000000}")
    with remains.alone(places):
        remains.sweep(places)
        clouds = Clouds(places, program)
        try:
            yield clouds
        finally:
            left = clouds.stage.take_down()
            shutil.rmtree(places.logs)
        assert left == ()


def test_a_machine_at_aws_stands_behind_a_nat_and_goes_with_a_notice_of_both_kinds(clouds: Clouds) -> None:
    host = HostId("spot-host-at-aws")
    with standing_in(clouds.places.namespace("control")):
        cloud = clouds.aws()
        made = cloud.launch(host, SPEC, told(host))
    clouds.wait(lambda: clouds.boots(host))
    token = clouds.token(host)
    assert clouds.read(host, "latest/user-data").status_code == httpx.codes.UNAUTHORIZED
    assert clouds.read(host, "latest/user-data", token).text == cloud_config(told(host))
    assert clouds.read(host, "latest/meta-data/instance-id", token).text == made.id
    with standing_in(clouds.places.namespace("control")):
        seen = cloud.describe(host)
    assert seen is not None
    assert seen.machine is not None
    assert seen.machine.addresses == (clouds.read(host, "latest/meta-data/local-ipv4", token).text,)
    assert clouds.read(host, "latest/meta-data/public-ipv4", token).status_code == httpx.codes.NOT_FOUND
    # It dials out through its NAT, to the object store for example.
    assert accepts(clouds.places.namespace(host), str(at.CLOUDS), at.AWS_PORT)

    clouds.stage.take_away(host, 5)
    with standing_in(clouds.places.namespace("control")):
        (heard,) = EventQueue(client("sqs", at.AWS_URL), queue_url(at.AWS_URL), REGION).received(wait_s=10)
    assert isinstance(heard.announcement, Announcement)
    assert heard.announcement.instance_id == made.id
    assert heard.announcement.deadline_at > datetime.now(UTC) + timedelta(minutes=1)
    clouds.wait(lambda: clouds.is_gone(host))

    def is_terminated() -> bool:
        with standing_in(clouds.places.namespace("control")):
            return state(cloud, host) is InstanceState.TERMINATED

    clouds.wait(is_terminated)


def test_a_machine_at_hetzner_has_the_address_that_its_api_tells_and_ends_when_it_is_deleted(clouds: Clouds) -> None:
    host = HostId("spot-host-at-hetzner")
    with standing_in(clouds.places.namespace("control")), closing(clouds.hetzner()) as cloud:
        made = cloud.launch(host, SPEC, told(host))
    clouds.wait(lambda: clouds.boots(host))
    assert clouds.read(host, "hetzner/v1/userdata").text == cloud_config(told(host))
    assert made.machine is not None
    assert made.machine.addresses == (clouds.read(host, "hetzner/v1/metadata/public-ipv4").text,)
    assert clouds.read(host, "hetzner/v1/metadata/instance-id").text == made.id
    (address,) = made.machine.addresses
    with standing_in(clouds.places.namespace(host)), socket.socket() as own:
        own.bind((address, 0))  # as nobody else can
    assert accepts(clouds.places.namespace(host), str(at.CLOUDS), at.AWS_PORT), "it is an address of this network"
    with standing_in(clouds.places.namespace("control")), closing(clouds.hetzner()) as cloud:
        cloud.terminate(host)
    clouds.wait(lambda: clouds.is_gone(host))
