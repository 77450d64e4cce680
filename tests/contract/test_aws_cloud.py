"""EC2's adapter over moto's server behind planted faults, beyond what every cloud does.

What moto takes no notice of (a template's processors, metadata options, interfaces, disks and profile) is checked
where the request is made, in tests/unit/test_aws_requests.py; here it is seen that EC2 is asked for exactly that.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace

import pytest

from tests.contract.aws_cloud import TYPES, World
from tests.contract.clouds import SPEC, TOLD, A, B
from workers.domain.errors import NoCapacity, Refused, SpotError, Unreachable
from workers.domain.market import ANYWHERE, Market, Sources, SpotPool
from workers.domain.names import HostId
from workers.domain.user_data import cloud_config
from workers.ports import InstanceState
from workers.providers.aws.answers import NO_CAPACITY
from workers.rehearsal.aws.faults import Fault, Hides, LosesAnswer, Refuses, Sells

C = HostId("spot-host-c")
NESTED, PLAIN = TYPES
ZONES = ("eu-central-1a", "eu-central-1b")
EITHER = Sources(market=Market.SPOT_THEN_ON_DEMAND)
SOLD_OUT = Sells(
    (("InsufficientInstanceCapacity", NESTED, "none left"), ("InsufficientInstanceCapacity", PLAIN, "none"))
)


def overrides(form: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the pools that a fleet was asked for: the type and the launch template."""
    found = []
    for key, value in form.items():
        if key.endswith(".InstanceType"):
            config = key.split(".Overrides.")[0]
            found.append((value, form[f"{config}.LaunchTemplateSpecification.LaunchTemplateName"]))
    return found


# ---------------------------------------------------------------- what is rented


def test_a_host_is_rented_as_spot_from_several_pools_and_carries_whose_and_what(aws: World) -> None:
    made = aws.cloud().launch(A, SPEC, TOLD)
    (fleet,) = aws.faults.asked("CreateFleet")
    assert fleet["SpotOptions.AllocationStrategy"] == "price-capacity-optimized"
    assert fleet["Type"] == "instant"
    assert [kind for kind, _ in overrides(fleet)] == [NESTED, NESTED, PLAIN, PLAIN]
    assert len({template for _, template in overrides(fleet)}) == 2, "one with nested virtualization, one without"
    assert made.machine is not None
    assert (made.machine.region, made.machine.lifecycle, made.machine.instance_type) == ("eu-central-1", "spot", NESTED)
    assert made.machine.zone == ZONES[0]
    (instance,) = aws.instances()
    tags = {one["Key"]: one["Value"] for one in instance["Tags"]}
    expected = {"Name": A, "spot-runner:host": A, "spot-runner:deployment": aws.rental.deployment, "team": "builds"}
    assert expected.items() <= tags.items()
    told = aws.direct.describe_instance_attribute(InstanceId=made.id, Attribute="userData")["UserData"]["Value"]
    assert base64.b64decode(told).decode() == cloud_config(TOLD)


def test_what_the_cloud_says_of_a_host_later_is_what_it_said_at_first(aws: World) -> None:
    cloud = aws.cloud()
    first, later = cloud.launch(A, SPEC, TOLD), cloud.describe(A)
    assert later is not None
    assert first.machine is not None
    assert (later.machine, later.state) == (
        replace(first.machine, usd_per_hour=None, addresses=later.machine.addresses if later.machine else None),
        InstanceState.RUNNING,
    )
    assert first.machine.addresses == ()
    assert later.machine is not None
    assert later.machine.addresses


def test_a_spot_host_is_told_with_what_it_costs_and_no_launch_fails_for_a_price(aws: World) -> None:
    cloud = aws.cloud()
    first, again = cloud.launch(A, SPEC, TOLD), cloud.launch(A, SPEC, TOLD)
    (asked, _) = aws.faults.asked("DescribeSpotPriceHistory")
    assert (asked["InstanceType.1"], asked["AvailabilityZone"]) == (NESTED, ZONES[0])
    assert first.machine is not None
    assert first.machine.usd_per_hour is not None
    assert first.machine.usd_per_hour > 0
    assert again.machine is not None
    assert again.machine.addresses, "which it has only once it is made"
    assert replace(again.machine, addresses=()) == first.machine
    aws.faults.plant("DescribeSpotPriceHistory", Refuses("UnauthorizedOperation", status=403))
    unpriced = cloud.launch(B, SPEC, TOLD)
    assert unpriced.machine is not None
    assert unpriced.machine.usd_per_hour is None


def test_an_instance_that_was_stopped_is_ours_to_end(aws: World) -> None:
    cloud = aws.cloud()
    made = cloud.launch(A, SPEC, TOLD)
    aws.direct.stop_instances(InstanceIds=[made.id])
    assert [(one.host_id, one.state) for one in cloud.owned()] == [(A, InstanceState.STOPPED)]
    cloud.terminate(A)
    assert aws.instances() == []


def test_a_template_is_made_once_and_holds_no_secret(aws: World) -> None:
    cloud = aws.cloud()
    cloud.launch(A, SPEC, TOLD | {"token": "very-secret"})
    cloud.launch(B, SPEC, TOLD)
    aws.cloud().launch(C, SPEC, TOLD)
    made = aws.templates()
    assert len(made) == 2
    for one in made:
        (version,) = aws.direct.describe_launch_template_versions(LaunchTemplateId=one["LaunchTemplateId"])[
            "LaunchTemplateVersions"
        ]
        assert "UserData" not in version["LaunchTemplateData"]


def test_no_host_has_a_public_address_behind_a_nat_and_each_has_one_elsewhere(aws: World) -> None:
    vpc = aws.direct.describe_subnets(SubnetIds=[aws.rental.subnets[0]])["Subnets"][0]["VpcId"]
    aws.cloud().launch(A, SPEC, TOLD)
    gateway = aws.direct.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    aws.direct.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    table = aws.direct.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    aws.direct.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    subnet = aws.direct.create_subnet(VpcId=vpc, CidrBlock="10.0.7.0/24")["Subnet"]["SubnetId"]
    aws.direct.associate_route_table(RouteTableId=table, SubnetId=subnet)
    aws.cloud(subnets=(subnet,)).launch(B, SPEC, TOLD)
    key = "LaunchTemplateData.NetworkInterface.1.AssociatePublicIpAddress"
    assert [one[key] for one in aws.faults.asked("CreateLaunchTemplate")] == ["false", "false", "true", "true"]


def test_hosts_are_called_by_each_other_and_the_control_plane_only(aws: World) -> None:
    aws.cloud().launch(A, SPEC, TOLD)
    aws.cloud().launch(B, SPEC, TOLD)
    (group,) = aws.direct.describe_security_groups(
        Filters=[{"Name": "group-name", "Values": [f"spot-runner-{aws.rental.deployment}-hosts"]}]
    )["SecurityGroups"]
    like, control = sorted(group["IpPermissions"], key=lambda one: str(one["IpProtocol"]))
    assert [one["GroupId"] for one in like["UserIdGroupPairs"]] == [group["GroupId"]]
    assert not like["IpRanges"]
    assert (control["FromPort"], control["ToPort"], control["IpRanges"]) == (8444, 8444, [{"CidrIp": "10.0.9.0/24"}])
    key = "LaunchTemplateData.NetworkInterface.1.SecurityGroupId.1"
    assert {one[key] for one in aws.faults.asked("CreateLaunchTemplate")} == {group["GroupId"]}


def test_a_pool_that_wants_a_zone_gets_it(aws: World) -> None:
    made = aws.cloud().launch(A, SPEC, TOLD, Sources(zones=(ZONES[1],)))
    assert made.machine is not None
    assert made.machine.zone == ZONES[1]
    with pytest.raises(Refused, match=r"no subnet in fsn1; add one to SPOT_RUNNER_AWS_SUBNETS"):
        aws.cloud().launch(B, SPEC, TOLD, Sources(zones=("fsn1",)))


def test_a_host_that_no_type_holds_is_refused(aws: World) -> None:
    with pytest.raises(Refused, match=r"none of m8i\.large, m7a\.large holds 64 vCPUs"):
        aws.cloud().launch(A, replace(SPEC, vcpus=64), TOLD)


def test_anothers_instances_are_let_alone(aws: World) -> None:
    theirs = aws.cloud(deployment=f"{aws.rental.deployment}-of-others")
    theirs.launch(A, SPEC, TOLD)
    ours = aws.cloud()
    ours.terminate(A)
    assert (ours.describe(A), list(ours.owned())) == (None, [])
    found = theirs.describe(A)
    assert found is not None
    assert found.state is InstanceState.RUNNING


def test_what_was_ended_is_told_so_and_is_no_leak(aws: World) -> None:
    cloud = aws.cloud()
    cloud.launch(A, SPEC, TOLD)
    cloud.terminate(A)
    ended = cloud.describe(A)
    assert ended is not None
    assert ended.state is InstanceState.TERMINATED
    assert (list(cloud.owned()), aws.instances()) == ([], [])


def test_whatever_carries_a_hosts_tag_ends_with_it(aws: World) -> None:
    """Two may, if EC2 showed the first of them too late."""
    cloud = aws.cloud()
    first = cloud.launch(A, SPEC, TOLD)
    tags = [{"Key": key, "Value": value} for key, value in (("host", A), ("deployment", aws.rental.deployment))]
    tagged = [{"ResourceType": "instance", "Tags": [one | {"Key": f"spot-runner:{one['Key']}"} for one in tags]}]
    aws.direct.run_instances(ImageId=aws.rental.kvm_image, MinCount=1, MaxCount=1, TagSpecifications=tagged)
    found = cloud.describe(A)
    assert found is not None
    assert found.id == first.id, "the older one is the host's"
    assert [one.host_id for one in cloud.owned()] == [A, A]
    cloud.terminate(A)
    assert aws.instances() == []


# ---------------------------------------------------------------- asked again


def test_a_launch_whose_answer_was_lost_is_found_again(aws: World) -> None:
    aws.faults.plant("CreateFleet", LosesAnswer())
    with pytest.raises(Unreachable, match="CreateFleet"):
        aws.cloud().launch(A, SPEC, TOLD)
    again = aws.cloud().launch(A, SPEC, TOLD | {"token": "another"})
    assert [again.id] == [one["InstanceId"] for one in aws.instances()]


def test_a_launch_that_cannot_be_seen_yet_is_answered_again_by_its_token(aws: World) -> None:
    """EC2 shows an instance by its tags some seconds after it was made."""
    first = aws.cloud().launch(A, SPEC, TOLD)
    aws.faults.plant("DescribeInstances", Hides(), Hides())
    restarted = aws.cloud()
    assert restarted.launch(A, SPEC, TOLD).id == first.id
    with pytest.raises(Unreachable, match="IdempotentParameterMismatch"):
        restarted.launch(A, SPEC, TOLD | {"token": "another"})
    assert restarted.launch(A, SPEC, TOLD | {"token": "another"}).id == first.id
    assert len(aws.instances()) == 1


def test_what_is_sold_out_is_asked_for_by_a_new_token(aws: World) -> None:
    """EC2 answers a token that has given nothing with nothing, for as long as it remembers it."""
    cloud = aws.cloud()
    aws.faults.plant("CreateFleet", SOLD_OUT)
    with pytest.raises(NoCapacity, match=r"m8i\.large.*none left"):
        cloud.launch(A, SPEC, TOLD)
    assert cloud.launch(A, SPEC, TOLD).id
    first, second = aws.faults.asked("CreateFleet")
    assert first["ClientToken"] != second["ClientToken"]


def test_a_restarted_control_plane_gets_past_tokens_that_were_in_vain(aws: World) -> None:
    aws.faults.plant("CreateFleet", SOLD_OUT)
    with pytest.raises(NoCapacity):
        aws.cloud().launch(A, SPEC, TOLD)
    restarted = aws.cloud()
    with pytest.raises(NoCapacity):
        restarted.launch(A, SPEC, TOLD)
    assert restarted.launch(A, SPEC, TOLD).host_id == A


def test_a_template_that_somebody_has_deleted_is_made_again(aws: World) -> None:
    cloud = aws.cloud()
    cloud.launch(A, SPEC, TOLD)
    for one in aws.templates():
        aws.direct.delete_launch_template(LaunchTemplateId=one["LaunchTemplateId"])
    aws.faults.plant("CreateFleet", Refuses("InvalidLaunchTemplateName.NotFoundException", "it is not there"))
    with pytest.raises(SpotError, match="InvalidLaunchTemplateName"):
        cloud.launch(B, SPEC, TOLD)
    assert cloud.launch(B, SPEC, TOLD).host_id == B


# ---------------------------------------------------------------- on which terms


@pytest.mark.parametrize(
    ("code", "whole"),
    [(code, number % 2 == 0) for number, code in enumerate(sorted(NO_CAPACITY | {"MaxSpotInstanceCountExceeded"}))],
)
def test_without_spot_a_pool_that_allows_it_pays_the_full_price(aws: World, code: str, *, whole: bool) -> None:
    fault: Fault = Refuses(code) if whole else Sells(((code, NESTED, "no"), (code, PLAIN, "no")))
    aws.faults.plant("CreateFleet", fault, fault)
    with pytest.raises(NoCapacity, match=code):
        aws.cloud().launch(A, SPEC, TOLD, ANYWHERE)
    made = aws.cloud().launch(B, SPEC, TOLD, EITHER)
    assert made.machine is not None
    assert made.machine.lifecycle == "on-demand"
    assert [
        one["TargetCapacitySpecification.DefaultTargetCapacityType"] for one in aws.faults.asked("CreateFleet")
    ] == [
        "spot",
        "spot",
        "on-demand",
    ]


def test_a_pool_that_wants_no_spot_asks_for_none(aws: World) -> None:
    made = aws.cloud().launch(A, SPEC, TOLD, Sources(market=Market.ON_DEMAND))
    assert made.machine is not None
    assert made.machine.lifecycle == "on-demand"
    assert len(aws.faults.asked("CreateFleet")) == 1


def test_where_neither_is_to_be_had_both_are_told(aws: World) -> None:
    aws.faults.plant("CreateFleet", SOLD_OUT, Refuses("VcpuLimitExceeded", "your current vCPU limit of 32 allows"))
    with pytest.raises(NoCapacity, match=r"InsufficientInstanceCapacity.*L-1216C47A\) of 32 vCPUs"):
        aws.cloud().launch(A, SPEC, TOLD, EITHER)


def test_nothing_is_bought_where_machines_were_taken_back_lately(aws: World) -> None:
    resting = [SpotPool(NESTED, ZONES[0]), SpotPool(PLAIN, ZONES[1])]
    aws.cloud(resting).launch(A, SPEC, TOLD)
    (fleet,) = aws.faults.asked("CreateFleet")
    places = [value for key, value in fleet.items() if key.endswith(".SubnetId")]
    assert len(overrides(fleet)) == len(places) == 2
    assert [kind for kind, _ in overrides(fleet)] == [NESTED, PLAIN]
    assert places == [aws.rental.subnets[1], aws.rental.subnets[0]]


def test_where_every_pool_rests_the_full_price_is_paid_or_else_a_bad_pool_is_used(aws: World) -> None:
    everywhere = [SpotPool(kind, zone) for kind in TYPES for zone in ZONES]
    made = aws.cloud(everywhere).launch(A, SPEC, TOLD, EITHER)
    assert made.machine is not None
    assert made.machine.lifecycle == "on-demand"
    only_spot = aws.cloud(everywhere).launch(B, SPEC, TOLD, ANYWHERE)
    assert only_spot.machine is not None
    assert only_spot.machine.lifecycle == "spot"


# ---------------------------------------------------------------- nested virtualization


@pytest.mark.parametrize("code", ["UnsupportedOperation", "InvalidParameterCombination"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_refusal_of_nested_virtualization_is_remembered(aws: World, code: str, *, whole: bool) -> None:
    cloud = aws.cloud()
    fault: Fault = Refuses(code, "NestedVirtualization") if whole else Sells(((code, NESTED, "NestedVirtualization"),))
    aws.faults.plant("CreateFleet", fault)
    assert cloud.launch(A, SPEC, TOLD).host_id == A
    cloud.launch(B, SPEC, TOLD)
    first, second, third = aws.faults.asked("CreateFleet")
    assert len({template for _, template in overrides(first)}) == 2
    assert len({template for _, template in overrides(second)}) == 1, "at once, and with the PVM image"
    assert overrides(third) == overrides(second), "and it is not asked for again"
    cloud.launch(C, SPEC, TOLD, Sources(market=Market.ON_DEMAND))
    assert len({template for _, template in overrides(aws.faults.asked("CreateFleet")[-1])}) == 2


def test_a_refusal_leaves_nothing_where_there_is_no_pvm_image(aws: World) -> None:
    cloud = aws.cloud(pvm_image=None)
    aws.faults.plant("CreateFleet", Refuses("UnsupportedOperation", "NestedVirtualization"))
    with pytest.raises(NoCapacity, match=r"no image for m8i\.large, m7a\.large as spot.*SPOT_RUNNER_AWS_PVM_IMAGE"):
        cloud.launch(A, SPEC, TOLD)
