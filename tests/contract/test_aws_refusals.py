"""What goes wrong at AWS: each of its refusals planted once, and what is made of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.contract.aws_cloud import KEYS, World, client
from tests.contract.clouds import SPEC, TOLD, A
from workers.domain.errors import BadInput, Barred, NoCapacity, Refused, SpotError, Throttled, Unreachable
from workers.providers.aws.account import Account
from workers.providers.aws.answers import THROTTLED
from workers.rehearsal.aws.faults import Fault, Hangs, LosesAnswer, Refuses


@pytest.mark.parametrize(
    ("fault", "error", "sentence"),
    [
        (Refuses("InsufficientInstanceCapacity"), NoCapacity, r"allow more instance types, zones or on-demand"),
        (Refuses("VcpuLimitExceeded", "current vCPU limit of 32 allows"), NoCapacity, r"L-1216C47A\) of 32 vCPUs"),
        (Refuses("MaxSpotInstanceCountExceeded"), NoCapacity, r"L-34B43A08\) is used up.*GetServiceQuota"),
        *((Refuses(code, status=503), Throttled, "slow down") for code in sorted(THROTTLED)),
        (Refuses("AuthFailure", status=401), Barred, r"AWS does not take our credentials; correct those"),
        (Refuses("InvalidClientTokenId", status=403), Barred, r"credentials"),
        (Refuses("SignatureDoesNotMatch", status=403), Barred, r"credentials"),
        (Refuses("ExpiredToken"), Barred, r"credentials"),
        (Refuses("UnauthorizedOperation", "You are not authorized to perform this operation.", 403), Barred,
         r"the permission ec2:CreateFleet is missing"),
        (Refuses("UnauthorizedOperation", "is not authorized to perform: iam:PassRole on resource: x", 403), Barred,
         r"the permission iam:PassRole is missing"),
        (Refuses("InvalidAMIID.NotFound", "The image id '[ami-0]' does not exist"), Refused,
         r"ami-0.*correct SPOT_RUNNER_AWS_KVM_IMAGE"),
        (Refuses("OptInRequired"), Barred, r"enable the region"),
        (Refuses("InvalidParameterValue", "Invalid IAM Instance Profile name"), Refused, r"Invalid IAM"),
        (Refuses("InternalError", status=500), Unreachable, r"the next sweep asks again"),
        (Refuses("Unavailable", status=503), Unreachable, r"the next sweep asks again"),
        (LosesAnswer(), Unreachable, r"AWS eu-central-1: CreateFleet"),
    ],
)  # fmt: skip
def test_each_answer_says_what_to_do(aws: World, fault: Fault, error: type[SpotError], sentence: str) -> None:
    aws.faults.plant("CreateFleet", fault)
    with pytest.raises(error, match=sentence) as told:
        aws.cloud().launch(A, SPEC, TOLD)
    assert type(told.value) is error
    assert str(told.value).startswith("AWS eu-central-1: CreateFleet")
    assert "\n" not in str(told.value)
    assert KEYS["aws_secret_access_key"] not in str(told.value)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"kvm_image": "ami-00000000"}, r"DescribeImages: InvalidAMIID\.NotFound.*ami-00000000.*_KVM_IMAGE"),
        ({"subnets": ("subnet-0",)}, r"DescribeSubnets: InvalidSubnetID\.NotFound.*subnet-0.*_AWS_SUBNETS"),
        ({"instance_types": ("m99.huge",)}, r"InvalidInstanceType.*m99\.huge.*_AWS_INSTANCE_TYPES"),
        ({"instance_types": ("m7g.large",)}, r"m7g\.large: arm64 is not built yet"),
    ],
)
def test_what_is_set_wrong_is_named(aws: World, changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Refused, match=sentence):
        aws.cloud(**changed).launch(A, SPEC, TOLD)
    assert aws.instances() == []


def test_a_call_that_is_not_answered_ends_by_itself(aws: World) -> None:
    hang = Hangs()
    aws.faults.plant("CreateFleet", hang)
    cloud = aws.cloud(ec2=client("ec2", aws.site.url, 1.0))
    with pytest.raises(Unreachable, match=r"CreateFleet.*[Tt]imeout|CreateFleet.*timed out"):
        cloud.launch(A, SPEC, TOLD)
    hang.over.set()


@pytest.mark.parametrize("call", ["DescribeInstances", "TerminateInstances"])
def test_an_end_that_was_not_carried_out_is_told(aws: World, call: str) -> None:
    cloud = aws.cloud()
    cloud.launch(A, SPEC, TOLD)
    aws.faults.plant(call, Refuses("RequestLimitExceeded", status=503))
    with pytest.raises(Throttled, match=call):
        cloud.terminate(A)
    cloud.terminate(A)
    assert aws.instances() == []


def test_an_unknown_region_is_named(aws: World) -> None:
    with pytest.raises(BadInput, match=r"aws_region: 'eu-nowhere-7' is no region"):
        Account.open(replace(aws.rental, region="eu-nowhere-7"))


def test_without_credentials_it_is_said_where_they_come_from(aws: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(Refused, match=r"boto3 finds no credentials; give the control plane's instance a role"):
        Account.open(aws.rental, aws.site.url).ask("describe_instances")
