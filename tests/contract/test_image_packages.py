"""Packages in images that are made at a cloud: `spot-runner image build` against moto and the simulated Hetzner.

The command is a process of its own, and so is what its builder runs: the lines of its script that fetch packages.
"""

from __future__ import annotations

import base64
import hashlib
import json
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from images.builder import FAILED, VOUCHER
from images.order import DISK_MIB_MIN
from tests.contract.aws_cloud import REGION, TYPES, Site, open_site
from tests.contract.aws_server import running_moto
from tests.contract.bucket import BUCKET, ELSEWHERE, Door, at_home, bucket, environment, objects
from tests.contract.played_builder import Played, command, ended, make_package, until
from workers.domain.names import PackageDigest
from workers.domain.published import INDEX, object_name
from workers.domain.user_data import USER_DATA_MAX
from workers.host.packages import verify
from workers.providers.aws.builder import BUILDER_TAG

UNFIT = 2


@dataclass(frozen=True)
class Deployment:
    """A bucket with a package in it, and a cloud."""

    moto: str
    site: Site
    door: Door
    told: dict[str, str]
    packages: tuple[PackageDigest, ...]
    revision: str
    """Of the program that goes into the image: each test makes one of its own."""

    def build(self, *words: str, package: str | None = None, **told: str) -> subprocess.Popen[str]:
        """Begin to make an image; `words` are more words of the command."""
        where = {
            "SPOT_RUNNER_AWS_REGION": REGION,
            "SPOT_RUNNER_AWS_SUBNETS": json.dumps(self.site.subnets),
            "SPOT_RUNNER_AWS_INSTANCE_TYPES": json.dumps(TYPES),
            "SPOT_RUNNER_AWS_ENDPOINT": self.site.url,
        }
        what = ("--kernel", "kvm", "--source", "debian-12-kvm", "--base-image", self.site.image)
        program = ("--repository", "https://git.example.org/spot-runner.git", "--revision", self.revision)
        chosen = ("--package", package or self.packages[0])
        set_ones = {name: value for name, value in {**self.told, **where, **told}.items() if value}
        return command(["image", "build", "--cloud", "aws", *what, *program, *chosen, *words], set_ones)

    def builders(self) -> list[dict[str, Any]]:
        """Return what still costs something."""
        filters = [
            {"Name": "tag-key", "Values": [BUILDER_TAG]},
            {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]},
        ]
        found = self.site.direct.describe_instances(Filters=filters)["Reservations"]
        return [one for some in found for one in some["Instances"]]

    def user_data(self) -> str:
        """Wait for the builder and return what it is told."""
        (builder,) = until(self.builders)
        told = self.site.direct.describe_instance_attribute(InstanceId=builder["InstanceId"], Attribute="userData")
        return base64.b64decode(told["UserData"]["Value"]).decode()

    def switch_off(self) -> None:
        self.site.direct.stop_instances(InstanceIds=[one["InstanceId"] for one in self.builders()])

    def left(self) -> tuple[list[str], list[str]]:
        """Return the builders and the vouchers that are left."""
        return [one["InstanceId"] for one in self.builders()], objects(self.moto, "vouchers/")


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    yield from running_moto()


@pytest.fixture(scope="module")
def site(moto: str) -> Iterator[Site]:
    with open_site(moto) as found:
        yield found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[PackageDigest, Path], ...]:
    home = tmp_path_factory.mktemp("packages")
    return make_package(home, 1), make_package(home, 2)


@pytest.fixture
def deployment(
    moto: str, site: Site, made: tuple[tuple[PackageDigest, Path], ...], request: pytest.FixtureRequest
) -> Iterator[Deployment]:
    site.faults.forget()
    revision = hashlib.sha256(request.node.name.encode()).hexdigest()[:40]
    with bucket(moto) as (door, url):
        told = environment(url)
        for _, path in made:
            publishing = command(["package", "publish", str(path)], {**told, "SPOT_RUNNER_OBJECTS_REGION": ELSEWHERE})
            code, _, complained = ended(publishing)
            assert code == 0, complained
        yield Deployment(moto, site, door, told, tuple(digest for digest, _ in made), revision)


@pytest.fixture
def played(tmp_path: Path) -> Played:
    return Played(tmp_path / "machine")


@pytest.mark.timeout(300)
def test_a_published_package_is_in_the_image_and_no_voucher_is_left(deployment: Deployment, played: Played) -> None:
    building = deployment.build("--package", deployment.packages[1])
    told = deployment.user_data()
    assert len(told.encode()) <= USER_DATA_MAX
    assert len(objects(deployment.moto, "vouchers/")) == 1
    assert played.run(told) == 0, (played.root / "said").read_text()
    for digest in deployment.packages:
        verify(played.shelf / f"{digest.replace(':', '-')}.package", digest)
    assert not played.voucher.exists(), "the image must not bring it along"
    assert "Signature" not in played.arguments + (played.root / "said").read_text()
    assert f"--voucher {played.root}{VOUCHER}" in played.arguments
    deployment.switch_off()
    code, said, complained = ended(building)
    assert (code, complained) == (0, "")
    assert said.startswith("ami-")
    assert deployment.left() == ([], [])
    again = ended(deployment.build("--package", deployment.packages[1], "--package", deployment.packages[0]))
    assert again[:2] == (0, said), "the URLs are others, and the order, and the image is the same"
    assert deployment.left() == ([], [])


@pytest.mark.timeout(300)
def test_a_build_that_fails_leaves_no_voucher(deployment: Deployment) -> None:
    building = deployment.build()
    deployment.user_data()
    deployment.site.direct.terminate_instances(InstanceIds=[one["InstanceId"] for one in deployment.builders()])
    code, said, complained = ended(building)
    assert (code, said) == (UNFIT, "")
    assert "has ended before its work was done; build again" in complained
    assert deployment.left() == ([], [])


@pytest.mark.timeout(300)
def test_a_build_that_is_told_to_end_leaves_neither_builder_nor_voucher(deployment: Deployment) -> None:
    building = deployment.build()
    deployment.user_data()
    assert deployment.left()[1] != []
    building.send_signal(signal.SIGTERM)
    assert ended(building)[0] == 128 + signal.SIGTERM
    assert deployment.left() == ([], [])


@pytest.mark.timeout(300)
def test_what_a_killed_build_leaves_is_ended_by_the_next(deployment: Deployment, played: Played) -> None:
    building = deployment.build()
    deployment.user_data()
    building.kill()
    ended(building)
    builders, vouchers = deployment.left()
    assert (len(builders), len(vouchers)) == (1, 1)
    building = deployment.build()
    until(lambda: deployment.left()[0] not in ([], builders))
    assert played.run(deployment.user_data()) == 0
    deployment.switch_off()
    assert ended(building)[0] == 0
    assert deployment.left() == ([], [])


@pytest.mark.timeout(300)
def test_a_builder_that_cannot_fetch_says_why_on_its_console(deployment: Deployment, played: Played) -> None:
    building = deployment.build()
    told = deployment.user_data()
    building.send_signal(signal.SIGTERM)
    ended(building)
    assert played.run(told) != 0, "the voucher is gone, so its URL leads nowhere"
    (line,) = played.console.splitlines()
    assert line.startswith(f"{FAILED} at: the runners' packages: spot-runner: voucher: it has expired, or the build is")
    assert "NoSuchKey" in line
    assert "Signature" not in line


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--package", "/var/cache/p.package"), "run `spot-runner package publish /var/cache/p.package`, and name the"),
        (("--package", "sha256:zero"), "'sha256:zero' is no digest"),
        (("--package", "sha256:" + "0" * 64), "it is not in the object store; run `spot-runner package publish sha256"),
        (
            ("--disk-mib", str(DISK_MIB_MIN + 10)),
            "2058 MiB are too few, since the system needs 2048 and the packages 1",
        ),
    ],
)
def test_what_cannot_be_baked_in_is_refused_before_anything_is_started(
    deployment: Deployment, words: tuple[str, ...], says: str
) -> None:
    code, said, complained = ended(deployment.build(*words))
    assert (code, said, complained.count("\n")) == (UNFIT, "", 1)
    assert says in complained
    assert ("PUT", f"/{BUCKET}/vouchers/") not in [(m, path[: len(BUCKET) + 11]) for m, path in deployment.door.asked]
    assert deployment.left() == ([], [])


def test_a_package_that_is_not_whole_in_the_store_is_refused(deployment: Deployment) -> None:
    digest = deployment.packages[0]
    part = next(one for one in objects(deployment.moto, object_name(digest, INDEX)[:-5]) if not one.endswith(INDEX))
    at_home(deployment.moto).delete_object(Bucket=BUCKET, Key=part)
    code, _, complained = ended(deployment.build())
    assert (code, "it is not whole in the object store" in complained) == (UNFIT, True)
    assert deployment.left() == ([], [])


def test_packages_in_a_directory_are_not_for_a_builder(deployment: Deployment) -> None:
    code, _, complained = ended(deployment.build(SPOT_RUNNER_OBJECTS_BUCKET=""))
    assert (code, "set SPOT_RUNNER_OBJECTS_BUCKET" in complained) == (UNFIT, True)
