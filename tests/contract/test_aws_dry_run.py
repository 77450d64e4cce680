"""What AWS says to a launch before there is one: everything that is wrong is named once, and nothing is changed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.contract.aws_cloud import World, client
from tests.contract.clouds import SPEC, TOLD, A
from workers.domain.errors import Barred, Throttled
from workers.domain.market import Market, Sources
from workers.domain.runner import Shape
from workers.dry_run import Fault
from workers.rehearsal.aws.faults import Refuses, Says

BOTH = (Sources(market=Market.SPOT_THEN_ON_DEMAND),)
PROFILE = "spot-runner-test"


def quota(value: float) -> Says:
    return Says(json.dumps({"Quota": {"Value": value}}), "application/x-amz-json-1.1")


@pytest.fixture
def enough(aws: World) -> World:
    """A deployment in which nothing is wrong: moto has no quotas of EC2."""
    aws.faults.plant("GetServiceQuota", *[quota(32)] * 4)
    return aws


def faults(aws: World, *wanted: Sources, spec: Shape = SPEC, **changed: Any) -> list[Fault]:  # noqa: ANN401 the settings' own types
    return list(aws.dry_run(**changed).faults(spec, wanted or BOTH))


def estate(aws: World) -> tuple[object, ...]:
    """Return all that a launch or an end could change."""
    groups = aws.direct.describe_security_groups()["SecurityGroups"]
    ids = [one["InstanceId"] for one in aws.instances()]
    return aws.templates(), groups, ids, len(aws.direct.describe_fleets()["Fleets"])


@pytest.fixture
def profile(moto: str) -> str:
    iam = client("iam", moto)
    if PROFILE not in {one["InstanceProfileName"] for one in iam.list_instance_profiles()["InstanceProfiles"]}:
        iam.create_instance_profile(InstanceProfileName=PROFILE)
    return PROFILE


def test_where_nothing_is_wrong_nothing_is_said_and_nothing_is_changed(enough: World) -> None:
    before = estate(enough)
    assert faults(enough) == []
    assert estate(enough) == before
    asked = {one["Action"] for one in enough.faults.calls if one.get("DryRun") == "true"}
    assert asked >= {"CreateLaunchTemplate", "CreateSecurityGroup", "CreateFleet", "RunInstances", "TerminateInstances"}


def test_what_was_there_before_stays_as_it_was(enough: World) -> None:
    enough.cloud().launch(A, SPEC, TOLD)
    before = estate(enough)
    assert faults(enough) == []
    assert estate(enough) == before
    (end,) = enough.faults.asked("TerminateInstances")
    assert (end["DryRun"], end["InstanceId.1"]) == ("true", enough.instances()[0]["InstanceId"])


# With a group that is there none is made, so its permission is asked for in a deployment without one.
@pytest.mark.parametrize(
    "permission",
    [
        *("ec2:CreateFleet", "ec2:RunInstances", "ec2:CreateLaunchTemplate", "ec2:CreateTags"),
        *("ec2:CreateSecurityGroup", "ec2:AuthorizeSecurityGroupIngress", "ec2:TerminateInstances"),
        *("ec2:DescribeInstances", "ec2:DescribeInstanceTypes", "ec2:DescribeImages", "ec2:DescribeSubnets"),
        *("ec2:DescribeRouteTables", "ec2:DescribeSecurityGroups", "iam:PassRole"),
    ],
)
def test_each_permission_that_is_missing_is_named_once(enough: World, permission: str, profile: str) -> None:
    if permission != "ec2:CreateSecurityGroup":
        enough.cloud().launch(A, SPEC, TOLD)
    before = estate(enough)
    enough.faults.missing.add(permission)
    certain = [one.sentence for one in faults(enough, instance_profile=profile) if one.is_certain]
    assert len(certain) == 1, certain
    assert f"the permission {permission} is missing; add it to the control plane's role" in certain[0]
    assert estate(enough) == before


def test_all_that_is_missing_is_named_and_not_only_the_first(enough: World) -> None:
    lacking = {"ec2:CreateFleet", "ec2:RunInstances", "ec2:CreateLaunchTemplate", "ec2:CreateSecurityGroup"}
    enough.faults.missing |= lacking
    assert [[one for one in lacking if f" {one} is" in told.sentence] for told in faults(enough)] == [
        ["ec2:CreateSecurityGroup"],
        ["ec2:CreateLaunchTemplate"],
        ["ec2:CreateFleet"],
        ["ec2:RunInstances"],
    ]


def test_what_may_not_be_read_is_named_together_and_the_rest_waits_for_it(enough: World) -> None:
    enough.faults.missing |= {"ec2:DescribeImages", "ec2:DescribeSubnets", "ec2:CreateFleet"}
    told = faults(enough)
    assert [one.is_certain for one in told] == [True, True, False]
    assert "ec2:DescribeImages" in told[0].sentence
    assert "ec2:DescribeSubnets" in told[1].sentence
    assert told[2].sentence.endswith("what a launch needs besides is looked at once all of this may be read")


def test_without_a_host_an_end_that_is_refused_is_a_doubt(enough: World) -> None:
    """A role that is bound to our tag, as the one in the documents is, may end nothing that is not there."""
    enough.faults.missing.add("ec2:TerminateInstances")
    (told,) = faults(enough)
    assert not told.is_certain
    assert "the permission ec2:TerminateInstances is missing" in told.sentence
    assert told.sentence.endswith("no instance to ask about: look again when a host runs")


def test_a_template_that_is_not_there_yet_is_a_doubt_too(enough: World) -> None:
    what = "ec2:CreateFleet on resource: arn:aws:ec2:eu-central-1:123456789012:launch-template/* because no identity-"
    refused = Refuses("UnauthorizedOperation", f"User: x is not authorized to perform: {what}based policy allows", 403)
    enough.faults.plant("CreateFleet", refused, refused)
    (told,) = faults(enough)
    assert not told.is_certain
    assert told.sentence.endswith("the tag of a launch template, which the first launch makes: look again then")


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("TerminateInstances", "InvalidInstanceID.NotFound"),
        ("CreateFleet", "InvalidLaunchTemplateName.NotFoundException"),
        ("CreateLaunchTemplate", "InvalidLaunchTemplateName.AlreadyExistsException"),
        ("CreateSecurityGroup", "InvalidGroup.Duplicate"),
        ("AuthorizeSecurityGroupIngress", "InvalidGroup.NotFound"),
    ],
)
def test_what_is_not_there_before_a_launch_is_no_fault(enough: World, call: str, code: str) -> None:
    enough.faults.plant(call, *[Refuses(code)] * 2)
    assert faults(enough) == []


# ---------------------------------------------------------------- credentials and settings


def test_credentials_that_aws_does_not_know_are_said_once(aws: World) -> None:
    aws.faults.strangers.add("AKIAEXAMPLE")
    with pytest.raises(Barred, match=r"DescribeInstances: AuthFailure: AWS does not take our credentials; correct"):
        faults(aws)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"kvm_image": "ami-00000000"}, "ami-00000000"),
        ({"pvm_image": "ami-00000000"}, "correct SPOT_RUNNER_AWS_KVM_IMAGE or SPOT_RUNNER_AWS_PVM_IMAGE"),
        ({"subnets": ("subnet-0",)}, "correct SPOT_RUNNER_AWS_SUBNETS"),
        ({"instance_types": ("m99.huge",)}, "correct SPOT_RUNNER_AWS_INSTANCE_TYPES"),
        ({"instance_types": ("m7g.large",)}, "m7g.large: arm64 is not built yet"),
        ({"security_group": "sg-0123"}, "correct SPOT_RUNNER_AWS_SECURITY_GROUP"),
        ({"instance_profile": "nobody"}, "RunInstances: "),
    ],
)
def test_a_setting_that_names_what_is_not_there_is_named(enough: World, changed: dict[str, Any], sentence: str) -> None:
    before = estate(enough)
    (told,) = faults(enough, **changed)
    assert told.is_certain
    assert told.sentence.startswith("AWS eu-central-1: ")
    assert sentence in told.sentence
    assert estate(enough) == before


def test_one_wrong_setting_does_not_hide_another(enough: World) -> None:
    told = faults(enough, subnets=("subnet-0",), instance_types=("m99.huge",), kvm_image="ami-00000000")
    assert len(told) == 3


@pytest.mark.parametrize(
    ("wanted", "spec", "sentence"),
    [
        (Sources(zones=("eu-central-1z",)), SPEC, "no subnet in eu-central-1z; add one to SPOT_RUNNER_AWS_SUBNETS"),
        (Sources(), Shape(512, 1024, 1024), "holds 512 vCPUs and 1024 MiB"),
    ],
)
def test_what_pools_want_and_cannot_have_is_said(enough: World, wanted: Sources, spec: Shape, sentence: str) -> None:
    told = [one for one in faults(enough, wanted, spec=spec) if one.is_certain]
    assert [sentence in one.sentence for one in told] == [True]


def test_what_nested_virtualization_is_refused_for_is_no_certain_fault(enough: World) -> None:
    enough.faults.plant("RunInstances", Refuses("UnsupportedOperation", "not for this type"))
    (told,) = faults(enough, Sources())
    assert (told.is_certain, "not for this type" in told.sentence) == (False, True)


# ---------------------------------------------------------------- quotas


@pytest.mark.parametrize(("number", "is_certain"), [(0, True), (1, False)])
def test_a_quota_that_holds_no_host_is_named_with_its_number(aws: World, number: int, *, is_certain: bool) -> None:
    aws.faults.plant("GetServiceQuota", quota(number), quota(32))
    (told,) = faults(aws)
    assert told.is_certain is is_certain
    assert told.sentence == (
        f"AWS eu-central-1: the quota “All Standard Spot Instance Requests” (L-34B43A08) is {number} vCPUs, and a "
        "m8i.large takes 2, so none is to be had as spot; ask for more in Service Quotas, or allow other terms"
    )


def test_quotas_of_terms_that_no_pool_allows_are_not_read(aws: World) -> None:
    aws.faults.plant("GetServiceQuota", quota(0))
    before = aws.faults.counted["GetServiceQuota"]
    (told,) = faults(aws, Sources(market=Market.ON_DEMAND))
    assert "“Running On-Demand Standard instances” (L-1216C47A) is 0 vCPUs" in told.sentence
    assert aws.faults.counted["GetServiceQuota"] - before == 1


def test_a_quota_that_may_not_be_read_is_a_doubt(aws: World) -> None:
    aws.faults.missing.add("servicequotas:GetServiceQuota")
    (told,) = faults(aws)
    assert not told.is_certain
    assert "the permission servicequotas:GetServiceQuota is missing" in told.sentence


def test_what_passes_is_raised_so_that_it_is_asked_again(enough: World) -> None:
    enough.faults.plant("CreateFleet", Refuses("RequestLimitExceeded", status=503))
    with pytest.raises(Throttled, match="CreateFleet"):
        faults(enough)
