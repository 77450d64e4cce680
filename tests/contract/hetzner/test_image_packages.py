"""Packages in an image that is made at the simulated Hetzner; the command is a process of its own, as its builder's is.

No kernel for Hetzner is pinned here, so the process is handed versions in which one is.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from tests.contract.aws_server import running_moto
from tests.contract.bucket import BUCKET, ELSEWHERE, at_home, bucket, environment, objects
from tests.contract.hetzner.sides import TOKEN, Hetzner, hetzner
from tests.contract.hetzner.test_image_builder import left, switches_off
from tests.contract.played_builder import CHECKOUT, Played, command, ended, make_package, until
from workers.domain.names import PackageDigest
from workers.domain.published import INDEX, PART_BYTES, Index, Part, index_bytes, object_name
from workers.host.packages import verify

T = TypeVar("T")

HUGE = PackageDigest("sha256:" + "1" * 64)
BUILD = """
import sys
from tests.unit.test_image_orders import with_kernels_of_ones_own
from workers.bootstrap.image_hetzner import HetznerWish, run_build_hetzner
from workers.domain.errors import SpotError
from workers.settings import ControlSettings
wish = HetznerWish("pvm", "mine", None, "https://git.example.org/x.git", "a" * 40, (), tuple(sys.argv[1:]))
try:
    run_build_hetzner(ControlSettings(), wish, with_kernels_of_ones_own())
except SpotError as error:
    sys.exit(f"spot-runner: {error}")
"""


@dataclass(frozen=True)
class Deployment:
    """A bucket with a package in it, and a project."""

    moto: str
    place: Hetzner
    told: dict[str, str]
    digest: PackageDigest

    def build(self, *packages: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", BUILD, *(packages or (self.digest,))],
            env={**os.environ, "PYTHONPATH": f"{CHECKOUT}:{CHECKOUT / 'runner-vm'}", **self.told},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def user_data(self) -> str:
        """Wait for the builder and return what it is told."""

        def look() -> str | None:
            project = self.place.simulation.project
            with project.lock:
                return next((one.user_data for one in project.servers.values() if one.status == "running"), None)

        return self.until(look) or ""

    def until(self, look: Callable[[], T]) -> T:
        """Let time pass at Hetzner until there is something."""

        def later() -> T:
            self.place.pass_time(1)
            return look()

        return until(later)

    def ended(self, building: subprocess.Popen[str]) -> tuple[int, str, str]:
        """Let time pass at Hetzner until the command has ended."""
        try:
            self.until(lambda: building.poll() is not None)
        finally:
            building.kill()
        return ended(building)

    def left(self) -> tuple[int, int, int]:
        """Return how many builders, images and vouchers there are."""
        return (*left(self.place), len(objects(self.moto, "vouchers/")))


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    yield from running_moto()


@pytest.fixture
def deployment(moto: str, tmp_path: Path) -> Iterator[Deployment]:
    digest, path = make_package(tmp_path)
    (token := tmp_path / "token").write_text(TOKEN)
    token.chmod(0o600)
    with hetzner() as place, bucket(moto) as (_, url):
        told = environment(url)
        publishing = command(["package", "publish", str(path)], {**told, "SPOT_RUNNER_OBJECTS_REGION": ELSEWHERE})
        code, _, complained = ended(publishing)
        assert code == 0, complained
        there = {
            "TOKEN_FILE": str(token),
            "SERVER_TYPES": json.dumps(["cx42"]),
            "LOCATIONS": json.dumps(["nbg1"]),
            "ENDPOINT": f"{place.url}/v1",
        }
        told |= {f"SPOT_RUNNER_HETZNER_{name}": value for name, value in there.items()}
        yield Deployment(moto, place, told, digest)


@pytest.mark.timeout(300)
def test_a_published_package_is_in_the_snapshot_and_no_voucher_is_left(deployment: Deployment, tmp_path: Path) -> None:
    building, played = deployment.build(), Played(tmp_path / "machine")
    assert played.run(deployment.user_data()) == 0, played.console
    verify(played.shelf / f"{deployment.digest.replace(':', '-')}.package", deployment.digest)
    assert not played.voucher.exists()
    switches_off(deployment.place)
    code, said, complained = deployment.ended(building)
    assert (code, complained) == (0, "")
    assert deployment.left() == (0, 1, 0)
    assert deployment.ended(deployment.build())[:2] == (0, said), "the URLs are others, and the snapshot is the same"
    assert deployment.left() == (0, 1, 0)


@pytest.mark.timeout(300)
def test_a_build_that_is_told_to_end_leaves_neither_builder_nor_voucher(deployment: Deployment) -> None:
    building = deployment.build()
    deployment.user_data()
    assert deployment.left() == (1, 0, 1)
    building.send_signal(signal.SIGTERM)
    assert deployment.ended(building)[0] == 128 + signal.SIGTERM
    assert deployment.left() == (0, 0, 0)


@pytest.mark.timeout(300)
def test_what_a_killed_build_leaves_is_ended_by_the_next(deployment: Deployment) -> None:
    building = deployment.build()
    deployment.user_data()
    building.kill()
    deployment.ended(building)
    assert deployment.left() == (1, 0, 1)
    former = set(deployment.place.simulation.project.servers)
    building = deployment.build()
    deployment.until(lambda: former != set(deployment.place.simulation.project.servers))
    deployment.user_data()
    switches_off(deployment.place)
    assert deployment.ended(building)[0] == 0
    assert deployment.left() == (0, 1, 0)


def test_packages_that_the_server_s_disk_has_no_room_for_are_refused(deployment: Deployment) -> None:
    """Of the parts of this one each is the same, so that it takes no room here."""
    content = bytes(PART_BYTES)
    index = Index(HUGE, (Part(len(content), hashlib.sha256(content).hexdigest()),) * 5000)
    for name, written in ((index.parts[0].sha256, content), (INDEX, index_bytes(index))):
        at_home(deployment.moto).put_object(Bucket=BUCKET, Key=object_name(HUGE, name), Body=written)
    deployment.told["SPOT_RUNNER_HETZNER_SERVER_TYPES"] = '["cpx11"]'
    code, said, complained = deployment.ended(deployment.build(HUGE))
    assert (code, said) == (1, "")
    assert (
        "the disk of a cpx11: 38146 MiB are too few, since the system needs 2048 and the packages 40000" in complained
    )
    assert "name a larger one first in SPOT_RUNNER_HETZNER_SERVER_TYPES" in complained
    assert deployment.left() == (0, 0, 0)


def test_what_cannot_be_baked_in_is_refused_before_anything_is_started(deployment: Deployment) -> None:
    for package, says in (
        ("/var/cache/p.package", "run `spot-runner package publish /var/cache/p.package`"),
        ("sha256:" + "0" * 64, "it is not in the object store"),
    ):
        code, said, complained = deployment.ended(deployment.build(deployment.digest, package))
        assert (code, said, says in complained) == (1, "", True)
    assert deployment.left() == (0, 0, 0)
