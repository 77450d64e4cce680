"""A host image at EC2 (moto's): made once, found again, and no builder is left, whatever fails and whenever we die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.contract.aws_cloud import REGION, Site, World, deployed, open_site
from tests.contract.aws_server import running_moto
from tests.fakes.clock import FakeClock
from workers.domain.errors import Refused, SpotError, Unreachable
from workers.providers.aws.account import Account
from workers.providers.aws.builder import BUILDER_TAG, Builder, Order

# Each look costs moto's time.
HURRY = 90


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    yield from running_moto()


@pytest.fixture(scope="module")
def site(moto: str) -> Iterator[Site]:
    with open_site(moto) as found:
        yield found


@pytest.fixture
def world(site: Site) -> World:
    return deployed(site, "images")


def an_order(world: World, name: str) -> Order:
    return Order(
        name=f"spot-runner-{name}",
        origin=world.site.image,
        instance_type="m7a.large",
        subnet=world.site.subnets[0],
        is_public=False,
        user_data="#cloud-config\n{}\n",
        failed="spot-runner-image: failed",
        tags={"team": "builds"},
    )


class Pauses:
    """Time that passes while we wait, in which the builder does its work."""

    def __init__(self, world: World, works: Callable[[dict[str, Any]], None]) -> None:
        self.clock, self._world, self._works = FakeClock(), world, works

    def __call__(self, seconds: float) -> None:
        self.clock.move(timedelta(seconds=HURRY * seconds))
        for one in builders(self._world):
            self._works(one)


def switches_off(world: World) -> Callable[[dict[str, Any]], None]:
    return lambda one: world.direct.stop_instances(InstanceIds=[one["InstanceId"]])


def builders(world: World, name: str | None = None) -> list[dict[str, Any]]:
    """Return every builder that still costs something."""
    told = world.direct.describe_instances(Filters=[{"Name": "tag-key", "Values": [BUILDER_TAG]}])["Reservations"]
    found = [one for some in told for one in some["Instances"] if one["State"]["Name"] != "terminated"]
    tagged = ({tag["Key"]: tag["Value"] for tag in one["Tags"]}[BUILDER_TAG] for one in found)
    return [one for one, tag in zip(found, tagged, strict=True) if name in {None, tag}]


def images(world: World, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.direct.describe_images(
        Owners=["self"], Filters=[{"Name": "name", "Values": [name]}]
    )["Images"]
    return found


def made(world: World, order: Order, works: Callable[[dict[str, Any]], None] | None = None, ec2: object = None) -> str:
    pauses = Pauses(world, works or switches_off(world))
    account = Account(ec2 or world.site.ec2, world.site.quotas, world.rental)
    return Builder(account, pauses.clock, pauses).make(order)


def test_an_image_is_made_of_what_the_builder_became(world: World) -> None:
    order = an_order(world, "made")
    seen: list[dict[str, Any]] = []

    def works(one: dict[str, Any]) -> None:
        seen.append(one)
        switches_off(world)(one)

    name = made(world, order, works)
    (image,) = images(world, order.name)
    assert (image["ImageId"], image["State"]) == (name, "available")
    assert {"Key": "team", "Value": "builds"} in image["Tags"]
    assert builders(world) == []
    assert seen[0]["SubnetId"] == order.subnet
    assert seen[0]["MetadataOptions"]["HttpTokens"] == "required"


def test_asked_again_it_makes_nothing(world: World) -> None:
    order = an_order(world, "again")

    def never(one: dict[str, Any]) -> None:
        raise AssertionError("a builder was started for an image that is there")

    assert made(world, order) == made(world, order, never)
    assert len(images(world, order.name)) == 1


def test_a_builder_that_cannot_do_it_is_ended_and_says_why(world: World) -> None:
    """What moto's console says stands for its last words."""
    words = str(world.direct.get_console_output(InstanceId=some_instance(world)).get("Output", "")).strip()
    assert words, "moto's console says something"
    order = replace(an_order(world, "failed"), failed=words[:20])
    with pytest.raises(Refused, match="the builder of spot-runner-failed says"):
        made(world, order, lambda _: None)
    assert (builders(world, order.name), images(world, order.name)) == ([], [])


def some_instance(world: World) -> str:
    found = world.direct.run_instances(ImageId=world.site.image, MinCount=1, MaxCount=1)["Instances"]
    return str(found[0]["InstanceId"])


def test_a_builder_that_does_not_come_to_an_end_is_ended(world: World) -> None:
    order = an_order(world, "endless")
    with pytest.raises(Unreachable, match=r"not seen within 0:45:00 that the builder has done its work"):
        made(world, order, lambda _: None)
    assert (builders(world), images(world, order.name)) == ([], [])


def test_a_builder_that_somebody_ends_is_not_waited_for(world: World) -> None:
    def ended(one: dict[str, Any]) -> None:
        world.direct.terminate_instances(InstanceIds=[one["InstanceId"]])

    with pytest.raises(Refused, match="has ended before its work was done"):
        made(world, an_order(world, "ended"), ended)


@pytest.mark.parametrize(("minutes", "is_forgotten"), [(80, False), (100, True)])
def test_another_image_s_builder_is_ended_when_nobody_can_be_waiting_for_it(
    world: World, minutes: int, *, is_forgotten: bool
) -> None:
    order, other = an_order(world, f"beside-{minutes}"), f"spot-runner-forgotten-{minutes}"
    tags = [{"ResourceType": "instance", "Tags": [{"Key": BUILDER_TAG, "Value": other}]}]
    world.direct.run_instances(ImageId=world.site.image, MinCount=1, MaxCount=1, TagSpecifications=tags)
    pauses = Pauses(world, switches_off(world))
    pauses.clock.move(datetime.now(UTC) + timedelta(minutes=minutes) - pauses.clock.now())
    Builder(Account(world.site.ec2, world.site.quotas, world.rental), pauses.clock, pauses).make(order)
    left = builders(world, other)
    assert (left == []) is is_forgotten
    world.direct.terminate_instances(InstanceIds=[one["InstanceId"] for one in left] or [some_instance(world)])


class Failing:
    """An EC2 client of which one kind of call fails, before or after it has been carried out."""

    def __init__(self, ec2: Any, call: str, *, carried_out: bool) -> None:  # noqa: ANN401 boto3 makes its classes when it runs
        self._ec2, self._call, self._carried_out, self.left = ec2, call, carried_out, 1

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 as boto3's
        real = getattr(self._ec2, name)
        if name != self._call:
            return real

        def failing(**named: object) -> Any:  # noqa: ANN401 as boto3's
            if not self.left:
                return real(**named)
            self.left -= 1
            if self._carried_out:
                real(**named)
            from botocore.exceptions import ReadTimeoutError  # noqa: PLC0415 - only this fake raises it

            raise ReadTimeoutError(endpoint_url="planted")

        return failing


@pytest.mark.parametrize("call", ["run_instances", "create_image", "get_console_output"])
@pytest.mark.parametrize("carried_out", [False, True], ids=["lost", "answer-lost"])
def test_whatever_fails_no_builder_is_left_and_the_next_call_makes_it(
    world: World, call: str, *, carried_out: bool
) -> None:
    order = an_order(world, f"{call}-{carried_out}")
    with pytest.raises(SpotError):
        made(world, order, ec2=Failing(world.site.ec2, call, carried_out=carried_out))
    assert builders(world) == []
    made(world, order)
    assert (len(images(world, order.name)), builders(world)) == (1, [])


KILLED = """
import os, signal, sys
from datetime import timedelta
from tests.contract.test_aws_images import *
from tests.contract.aws_cloud import client
url, image, subnet, call, when, name = sys.argv[1:]

class Killing:
    def __init__(self, ec2): self._ec2 = ec2
    def __getattr__(self, attribute):
        real = getattr(self._ec2, attribute)
        if attribute != call: return real
        def killing(**named):
            if when == "after": real(**named)
            os.kill(os.getpid(), signal.SIGKILL)
        return killing

from workers.providers.aws.requests import Rental
ec2, clock = client("ec2", url), FakeClock()
account = Account(Killing(ec2), client("service-quotas", url), Rental("eu-central-1", "d", (subnet,), ("m7a.large",)))
def pause(seconds):
    clock.move(timedelta(seconds=seconds))
    for some in ec2.describe_instances(Filters=[{"Name": "tag:" + BUILDER_TAG, "Values": [name]}])["Reservations"]:
        ec2.stop_instances(InstanceIds=[some["Instances"][0]["InstanceId"]])
order = Order(name, image, "m7a.large", subnet, False, "#cloud-config", "spot-runner-image: failed")
Builder(account, clock, pause).make(order)
"""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", ["run_instances", "get_console_output", "create_image", "terminate_instances"])
def test_a_process_that_is_killed_leaves_nothing_that_the_next_does_not_end(
    world: World, moto: str, call: str, when: str
) -> None:
    order = an_order(world, f"killed-{call}-{when}".replace("_", "-"))
    root = Path(__file__).parents[2]
    died = subprocess.run(
        [sys.executable, "-c", KILLED, moto, order.origin, order.subnet, call, when, order.name],
        env={**os.environ, "PYTHONPATH": f"{root}:{root / 'runner-vm'}", "AWS_DEFAULT_REGION": REGION},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr[-2000:]
    made(world, order)
    assert len(images(world, order.name)) == 1
    assert builders(world) == []
