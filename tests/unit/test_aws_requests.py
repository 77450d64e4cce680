"""What EC2 is asked for, against botocore's own model of the service: moto takes no notice of most of it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import botocore.session
import pytest
from botocore.model import Shape as ModelShape
from botocore.validate import ParamValidator

from workers.domain.errors import Refused
from workers.domain.names import HostId
from workers.domain.runner import Shape
from workers.domain.user_data import USER_DATA_MAX, cloud_config
from workers.providers.aws.requests import (
    Boot,
    Image,
    Kind,
    Pool,
    Rental,
    Subnet,
    Terms,
    boot_of,
    fleet_request,
    template,
    template_request,
    user_data_of,
)

RENTAL = Rental("eu-central-1", "d3ad01", ("subnet-1",), ("m8i.large",), "ami-kvm", "ami-pvm", "profile")
NESTED = Kind("m8i.large", 2, 8192, is_metal=False, has_nested=True, is_x86_64=True)
PLAIN = Kind("m7a.large", 2, 8192, is_metal=False, has_nested=False, is_x86_64=True)
METAL = Kind("m7i.metal-24xl", 96, 393216, is_metal=True, has_nested=False, is_x86_64=True)
ZONE_A = Subnet("subnet-1", "eu-central-1a", "vpc-1", is_public=False)
SPEC = Shape(2, 2048, 4096 + 1)
IMAGE = Image("ami-kvm", "/dev/xvda", 8)
EC2 = botocore.session.get_session().get_service_model("ec2")


def wrong_values(shape: ModelShape, value: Any, place: str) -> Iterator[str]:  # noqa: ANN401 as boto3 takes it
    """Yield where a word is none of those that the service knows; botocore itself lets any pass."""
    if shape.type_name == "structure":
        for key, inner in value.items():
            yield from wrong_values(shape.members[key], inner, f"{place}.{key}")
    elif shape.type_name == "list":
        for number, inner in enumerate(value):
            yield from wrong_values(shape.member, inner, f"{place}[{number}]")
    elif getattr(shape, "enum", None) and value not in shape.enum:
        yield f"{place}: {value}"


def check(operation: str, request: dict[str, Any]) -> None:
    shape = EC2.operation_model(operation).input_shape
    report = ParamValidator().validate(request, shape)
    assert not report.has_errors(), report.generate_report()
    assert list(wrong_values(shape, request, operation)) == []


def made(boot: Boot = Boot.NESTED, *, is_public: bool = False) -> dict[str, Any]:
    return template(RENTAL, IMAGE, boot, "sg-1", SPEC, is_public=is_public)


@pytest.mark.parametrize("boot", Boot)
@pytest.mark.parametrize("is_public", [False, True])
def test_a_template_says_what_ec2_understands(boot: Boot, *, is_public: bool) -> None:
    check("CreateLaunchTemplate", template_request(RENTAL, made(boot, is_public=is_public)))


@pytest.mark.parametrize("terms", Terms)
def test_a_fleet_says_what_ec2_understands(terms: Terms) -> None:
    pools = {"kvm": [Pool(NESTED, ZONE_A, Boot.NESTED)], "pvm": [Pool(PLAIN, ZONE_A, Boot.PVM)]}
    request = fleet_request(RENTAL, HostId("spot-host-a"), terms, "token", user_data_of({"token": "t"}), pools)
    check("CreateFleet", request)
    assert request["Type"] == "instant"
    assert request["TargetCapacitySpecification"]["DefaultTargetCapacityType"] == terms.value
    assert ("SpotOptions" in request) is (terms is Terms.SPOT)


def test_the_check_itself_finds_a_word_that_ec2_does_not_know() -> None:
    request = template_request(RENTAL, made() | {"InstanceInitiatedShutdownBehavior": "hibernate"})
    with pytest.raises(AssertionError, match=r"InstanceInitiatedShutdownBehavior: hibernate"):
        check("CreateLaunchTemplate", request)


def test_guests_get_no_answer_from_the_metadata_service_and_disks_are_encrypted() -> None:
    found = made()
    assert found["MetadataOptions"] == {
        "HttpEndpoint": "enabled",
        "HttpTokens": "required",
        "HttpPutResponseHopLimit": 1,
    }
    (disk,) = found["BlockDeviceMappings"]
    assert disk == {
        "DeviceName": "/dev/xvda",
        "Ebs": {"Encrypted": True, "VolumeType": "gp3", "VolumeSize": 8 + 5, "DeleteOnTermination": True},
    }
    assert found["InstanceInitiatedShutdownBehavior"] == "terminate"


@pytest.mark.parametrize("is_public", [False, True])
def test_only_where_there_is_no_nat_an_address_is_public(*, is_public: bool) -> None:
    (interface,) = made(is_public=is_public)["NetworkInterfaces"]
    assert (interface["AssociatePublicIpAddress"], interface["Groups"]) == (is_public, ["sg-1"])


@pytest.mark.parametrize(("boot", "asked"), [(Boot.NESTED, True), (Boot.PVM, False), (Boot.METAL, False)])
def test_nested_virtualization_is_asked_for_where_it_is_wanted_only(boot: Boot, *, asked: bool) -> None:
    assert made(boot).get("CpuOptions") == ({"NestedVirtualization": "enabled"} if asked else None)


@pytest.mark.parametrize(
    ("kind", "images", "refused", "boot"),
    [
        (NESTED, ("k", "p"), (), Boot.NESTED),
        (NESTED, ("k", "p"), ((NESTED.name, Terms.SPOT),), Boot.PVM),
        (NESTED, ("k", "p"), ((NESTED.name, Terms.ON_DEMAND),), Boot.NESTED),
        (NESTED, ("k", None), ((NESTED.name, Terms.SPOT),), None),
        (NESTED, (None, "p"), (), Boot.PVM),
        (PLAIN, ("k", "p"), (), Boot.PVM),
        (PLAIN, ("k", None), (), None),
        (METAL, ("k", None), ((METAL.name, Terms.SPOT),), Boot.METAL),
        (METAL, (None, "p"), (), Boot.PVM),
    ],
)
def test_what_processors_can_do_chooses_the_image(
    kind: Kind, images: tuple[str | None, str | None], refused: tuple[tuple[str, Terms], ...], boot: Boot | None
) -> None:
    rental = Rental("eu-central-1", "d3ad01", (), (), *images)
    assert boot_of(kind, Terms.SPOT, rental, refused) is boot


def test_a_host_takes_some_memory_for_itself() -> None:
    assert NESTED.holds(Shape(2, 8192 - 1024, 1))
    assert not NESTED.holds(Shape(2, 8192 - 1023, 1))
    assert not NESTED.holds(Shape(3, 1024, 1))


def test_a_machine_is_told_its_user_data_and_no_more_than_ec2_takes() -> None:
    assert base64.b64decode(user_data_of({"token": "t"})).decode() == cloud_config({"token": "t"})
    room = USER_DATA_MAX - len(cloud_config({"token": ""}))
    user_data_of({"token": "t" * room})
    with pytest.raises(Refused, match=rf"user data: {USER_DATA_MAX + 1} bytes, and clouds take {USER_DATA_MAX}"):
        user_data_of({"token": "t" * (room + 1)})
