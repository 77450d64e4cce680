"""infra/aws is deployed into moto, and the service then works in what was made, by the settings that it put out.

What moto does not make (policies of queue and bucket, the bucket's rules, the budget) is read in the template.
"""

from __future__ import annotations

import ast
import json
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.contract.aws_cloud import KEYS, REGION, client
from tests.contract.aws_stack import (
    GIVEN,
    TEMPLATE,
    Asked,
    Stack,
    acts,
    deploy,
    environment_of,
    raw_user_data,
    recording,
    resources,
    user_data,
    written,
)
from tests.contract.clouds import SPEC, TOLD, A
from tests.contract.policies import Act, actions, allows
from tests.unit.test_aws_events import RECOMMENDATION, WARNING
from workers.bootstrap.clouds import open_clouds, open_dry_runs
from workers.bootstrap.stores import open_objects
from workers.clock import SystemClock
from workers.domain.errors import Unfit
from workers.domain.market import Market, Sources
from workers.domain.messages import NoticeKind
from workers.domain.park import ObjectMethod
from workers.dry_run import Fault
from workers.ports import InstanceState
from workers.providers.aws.events import EventQueue
from workers.settings import AwsSettings, ControlSettings

ROOT = Path(__file__).parents[2]
# What these settings are about is not this template's: how long a pool rests, and where the test's own AWS is.
ELSEWHERE = {"endpoint", "rest_interruptions", "rest_interval_min", "rest_min", "on_demand_prices"}
# With a security group of its own the service makes none, and hosts have no role.
NOT_NEEDED = {"control_source", "instance_profile"}
# Every call that the service can make at AWS, and what IAM calls it.
CALLS = {
    "create_fleet": "ec2:CreateFleet",
    "create_launch_template": "ec2:CreateLaunchTemplate",
    "describe_images": "ec2:DescribeImages",
    "describe_instance_types": "ec2:DescribeInstanceTypes",
    "describe_instances": "ec2:DescribeInstances",
    "describe_route_tables": "ec2:DescribeRouteTables",
    "describe_spot_price_history": "ec2:DescribeSpotPriceHistory",
    "describe_subnets": "ec2:DescribeSubnets",
    "get_spot_placement_scores": "ec2:GetSpotPlacementScores",
    "run_instances": "ec2:RunInstances",
    "terminate_instances": "ec2:TerminateInstances",
    "get_products": "pricing:GetProducts",
    "get_service_quota": "servicequotas:GetServiceQuota",
    "receive_message": "sqs:ReceiveMessage",
    "delete_message": "sqs:DeleteMessage",
    "put_object": "s3:PutObject",
    "get_object": "s3:GetObject",
    "delete_objects": "s3:DeleteObject",
    "list_objects_v2": "s3:ListBucket",
}
# Not made where `SPOT_RUNNER_AWS_SECURITY_GROUP` is set, as here; and the last only when an image is made.
UNCALLED = {"create_security_group", "authorize_security_group_ingress", "describe_security_groups", "head_bucket"}
# What the test itself asks.
OWN = {"PutEvents", "ListRolePolicies", "GetRolePolicy"}
# EC2 asks for these too when a fleet is made; of the first `spot-runner doctor` asks itself, by a dry run.
BY_FLEETS = {"ec2:RunInstances", "ec2:CreateTags"}
# `spot-runner doctor` says of these, beside what it says of offers, before anything else needs them.
BY_OFFERS = {"DescribeSpotPriceHistory", "GetSpotPlacementScores", "GetProducts"}


@dataclass(frozen=True)
class Deployed:
    """A stack, and what the service asked AWS while it worked there."""

    stack: Stack
    settings: ControlSettings
    asked: list[Asked]


@pytest.fixture(scope="module")
def stack(moto: str) -> Stack:
    return deploy(moto)


@pytest.fixture
def deployed(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployed]:
    """The service's own environment: the stack's outputs, and where AWS and its credentials are."""
    for name, value in stack.outputs.items():
        if name.startswith("SPOT_RUNNER_"):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("SPOT_RUNNER_AWS_ENDPOINT", stack.endpoint)
    monkeypatch.setenv("SPOT_RUNNER_OBJECTS_ENDPOINT", stack.endpoint)
    monkeypatch.setenv("SPOT_RUNNER_HOME", str(tmp_path))
    for name, value in KEYS.items():
        monkeypatch.setenv(name.upper(), value)
    with recording() as asked:
        yield Deployed(stack, ControlSettings(), asked)


# ---------------------------------------------------------------- the template


@pytest.mark.timeout(600)
def test_cfn_lint_has_nothing_to_say() -> None:
    found = subprocess.run(
        [Path(sys.executable).with_name("cfn-lint"), TEMPLATE], capture_output=True, text=True, timeout=580, check=False
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_the_rule_and_its_queue_are_for_each_other_alone() -> None:
    (statement,) = resources()["EventsPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": "events.amazonaws.com"}
    assert statement["Action"] == "sqs:SendMessage"
    assert statement["Condition"] == {"ArnEquals": {"aws:SourceArn": {"GetAtt": "Warnings.Arn"}}}


def test_nobody_else_sees_parked_guests_and_none_stays() -> None:
    found = resources()
    bucket = found["Parks"]["Properties"]
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule["ServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    *ending, _ = bucket["LifecycleConfiguration"]["Rules"]
    rules = [(one["Prefix"], one["ExpirationInDays"], one["Status"]) for one in ending]
    assert rules == [("parks/", 1, "Enabled"), ("vouchers/", 1, "Enabled")]
    (statement,) = found["ParksPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert (statement["Effect"], statement["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})


def test_what_must_outlive_a_mistake_is_kept() -> None:
    found = resources()
    for name in ("Home", "Database"):
        assert found[name]["DeletionPolicy"] == found[name]["UpdateReplacePolicy"] == "Snapshot"
    assert found["Home"]["Properties"]["Encrypted"] is True
    assert found["Database"]["Properties"]["StorageEncrypted"] is True
    assert found["Database"]["Properties"]["PubliclyAccessible"] is False


def test_nothing_but_the_listeners_is_open_to_the_world() -> None:
    opened = [
        (name, rule["FromPort"])
        for name, one in resources().items()
        if one["Type"] == "AWS::EC2::SecurityGroup"
        for rule in one["Properties"].get("SecurityGroupIngress", ())
        if rule.get("CidrIp") == "0.0.0.0/0"
    ]
    assert opened == [("ControlGroup", 443), ("ControlGroup", 80)]


# ---------------------------------------------------------------- what it puts out


def test_the_outputs_are_the_settings(stack: Stack) -> None:
    known = {f"SPOT_RUNNER_AWS_{name.upper()}" for name in set(AwsSettings.model_fields) - ELSEWHERE - NOT_NEEDED}
    told = {name for name in stack.outputs if name.startswith("SPOT_RUNNER_")}
    assert told == known | {"SPOT_RUNNER_OBJECTS_BUCKET", "SPOT_RUNNER_OBJECTS_REGION"}


def test_the_control_plane_is_told_the_same(stack: Stack) -> None:
    content = user_data(stack)
    environment = environment_of(written(content, "/etc/spot-runner/control.env"))
    assert stack.outputs.items() - environment.items() <= {
        (name, value) for name, value in stack.outputs.items() if not name.startswith("SPOT_RUNNER_")
    }
    fields = {f"SPOT_RUNNER_{name.upper()}" for name in ControlSettings.model_fields}
    assert {one for one in environment if not one.startswith("SPOT_RUNNER_AWS_")} <= fields
    assert environment["SPOT_RUNNER_PUBLIC_URL"] == "https://runners.example.org"
    assert "SPOT_RUNNER_DATABASE_URL" not in environment
    assert content["runcmd"][1][-1] == GIVEN["Revision"]
    install = environment_of(written(content, "/etc/spot-runner/install.env"))
    volume = stack.resources["Home"].replace("-", "")
    assert install["HOME_DEVICE"] == f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{volume}"
    assert len(raw_user_data(stack)) < 16384


def test_with_postgresql_no_password_is_in_any_setting(moto: str) -> None:
    stack = deploy(moto, Store="postgresql", ThirdZone="", Nat="no", PvmImage="", BudgetUsd="0", BudgetMail="")
    environment = environment_of(written(user_data(stack), "/etc/spot-runner/control.env"))
    url = environment["SPOT_RUNNER_DATABASE_URL"]
    assert url.startswith("postgresql+psycopg://spot_runner@")
    assert "passfile=/etc/spot-runner/pgpass&sslmode=verify-full" in url
    assert len(json.loads(stack.outputs["SPOT_RUNNER_AWS_SUBNETS"])) == 2
    assert "SPOT_RUNNER_AWS_PVM_IMAGE" not in stack.outputs
    (database,) = client("rds", moto).describe_db_instances(DBInstanceIdentifier=stack.resources["Database"])[
        "DBInstances"
    ]
    assert (database["Engine"], database["PubliclyAccessible"]) == ("postgres", False)


# ---------------------------------------------------------------- the service in it


def test_a_host_is_rented_found_and_ended_in_what_was_made(deployed: Deployed) -> None:
    stack, settings = deployed.stack, deployed.settings
    (cloud,) = open_clouds(settings, SystemClock(), lambda _: ()).clouds
    made = cloud.launch(A, SPEC, TOLD, Sources(market=Market.SPOT_THEN_ON_DEMAND))
    assert [one.host_id for one in cloud.owned()] == [A]
    seen = cloud.describe(A)
    assert seen is not None
    assert (seen.id, seen.state) == (made.id, InstanceState.RUNNING)
    (instance,) = instances(stack, made.id)
    assert instance["SubnetId"] in {stack.resources[f"{one}Subnet"] for one in ("First", "Second", "Third")}
    assert {"Key": "spot-runner:stack", "Value": stack.name} in instance["Tags"]
    (content, _) = (one.given["LaunchTemplateData"] for one in deployed.asked if one.call == "CreateLaunchTemplate")
    (face,) = content["NetworkInterfaces"]
    assert face["Groups"] == [stack.resources["HostsGroup"]]
    assert face["AssociatePublicIpAddress"] is False, "its way out is the NAT"
    cloud.terminate(A)
    assert list(cloud.owned()) == []


def test_hosts_without_a_nat_have_public_addresses(moto: str, deployed: Deployed) -> None:
    stack = deploy(moto, Nat="no")
    aws = deployed.settings.aws.model_copy(
        update={"subnets": tuple(json.loads(stack.outputs["SPOT_RUNNER_AWS_SUBNETS"]))}
    )
    (cloud,) = open_clouds(deployed.settings.model_copy(update={"aws": aws}), SystemClock(), lambda _: ()).clouds
    cloud.launch(A, SPEC, TOLD)
    (content, _) = (one.given["LaunchTemplateData"] for one in deployed.asked if one.call == "CreateLaunchTemplate")
    assert content["NetworkInterfaces"][0]["AssociatePublicIpAddress"] is True
    cloud.terminate(A)


def test_without_an_output_the_service_says_what_is_missing(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPOT_RUNNER_AWS_SECURITY_GROUP")
    with pytest.raises(Unfit, match="SPOT_RUNNER_AWS_CONTROL_SOURCE, or _SECURITY_GROUP"):
        open_clouds(ControlSettings(), SystemClock(), lambda _: ())


def test_ec2s_warnings_come_through_the_rule_and_nothing_else_does(deployed: Deployed) -> None:
    stack, settings = deployed.stack, deployed.settings
    events = client("events", stack.endpoint)
    for told in (WARNING, RECOMMENDATION, WARNING | {"detail-type": "EC2 Instance State-change Notification"}):
        _put(events, told)
    _put(events, WARNING | {"source": "somebody.else"})
    url = settings.aws.events_queue
    assert url is not None
    queue = EventQueue.open(url, REGION, stack.endpoint)
    heard = list(queue.received(wait_s=5))
    kinds = {one.announcement.kind: one.announcement for one in heard if one.announcement}
    assert len(heard) == len(kinds) == 2
    assert set(kinds) == {NoticeKind.INTERRUPTION, NoticeKind.REBALANCE}
    assert kinds[NoticeKind.INTERRUPTION].instance_id == "i-1"
    assert kinds[NoticeKind.INTERRUPTION].deadline_at > datetime.now(UTC) + timedelta(minutes=1)
    for one in heard:
        queue.done(one)


def test_a_guest_is_parked_in_the_bucket(deployed: Deployed) -> None:
    store, name = open_objects(deployed.settings, SystemClock()), "parks/spot-move-1/memory-000000"
    minute = timedelta(minutes=1)
    with httpx.Client(trust_env=False, timeout=30) as host:
        assert host.put(store.url(ObjectMethod.PUT, name, minute), content=b"sealed").is_success
        assert host.get(store.url(ObjectMethod.GET, name, minute)).content == b"sealed"
    assert store.read(name) == b"sealed"
    assert store.listed("parks/") == {name: 6}
    store.delete([name])
    assert store.listed("parks/") == {}


# ---------------------------------------------------------------- what its role may do


def test_the_table_has_every_call_that_is_written_in_the_adapters() -> None:
    files = [*sorted((ROOT / "workers/providers/aws").glob("*.py")), ROOT / "workers/objects.py"]
    files.remove(ROOT / "workers/providers/aws/builder.py")  # images are made by an administrator, not by the service
    apis = [client(name, "http://127.0.0.1:1") for name in ("ec2", "pricing", "sqs", "s3", "service-quotas")]
    methods = {one for api in apis for one in dir(api) if not one.startswith("_")} - {
        *("close", "exceptions", "meta", "waiter_names", "can_paginate", "get_paginator", "get_waiter"),
        "generate_presigned_url",
    }
    assert set(chain.from_iterable(map(words, files))) & methods == CALLS.keys() | UNCALLED


def test_the_role_may_do_what_the_service_does_and_nothing_else(deployed: Deployed) -> None:
    policies = deployed.stack.policies()
    assert set(actions(policies)) == set(CALLS.values()) | BY_FLEETS
    work(deployed)
    asked = [one for one in deployed.asked if one.call not in OWN]
    called = {one.call for one in asked}
    assert called == {"".join(part.capitalize() for part in name.split("_")) for name in CALLS}
    refused = [one for one in acts(asked, deployed.stack) if not allows(policies, one)]
    assert refused == []
    bucket = f"arn:aws:s3:::{deployed.settings.objects_bucket}"
    assert allows(policies, Act("s3:GetObject", f"{bucket}/packages/x")), "a URL that a host fetches by is signed by us"
    # S3 checks this of whoever reads an object that is not there, and otherwise does not say that it is not.
    assert allows(policies, Act("s3:ListBucket", bucket))


def test_a_dry_run_asks_for_all_that_a_launch_and_an_end_will_need(deployed: Deployed) -> None:
    policies = deployed.stack.policies()
    deployed.asked.clear()
    told = look(deployed.settings)
    dry = {one.call for one in deployed.asked if one.given.get("DryRun")}
    read = {one.call for one in deployed.asked if not one.given.get("DryRun")}
    assert all("GetServiceQuota" in one.sentence and not one.is_certain for one in told), told
    assert all(one.startswith(("Describe", "Get")) for one in read), "it changes nothing"
    assert [one for one in acts(deployed.asked, deployed.stack) if not allows(policies, one)] == []
    deployed.asked.clear()
    work(deployed)
    others = {"sqs", "s3", "events"}
    needed = {one.call for one in deployed.asked if one.service not in others and not one.given.get("DryRun")}
    assert (needed | {"RunInstances"}) - BY_OFFERS - {"GetServiceQuota"} == dry


def test_the_role_may_not_touch_what_is_anothers(stack: Stack) -> None:
    policies = stack.policies()
    place = f"arn:aws:ec2:{REGION}:123456789012:"
    theirs = {"aws:ResourceTag/spot-runner:stack": "another", "aws:RequestTag/spot-runner:stack": "another"}
    made = {"ec2:CreateAction": "RunInstances", "aws:RequestTag/spot-runner:stack": stack.name}
    for act in (
        Act("ec2:TerminateInstances", f"{place}instance/i-1", theirs),
        Act("ec2:TerminateInstances", f"{place}instance/i-1"),
        Act("ec2:RunInstances", f"{place}instance/i-1", theirs),
        Act("ec2:RunInstances", f"{place}subnet/subnet-1"),
        Act("ec2:RunInstances", f"{place}security-group/sg-1"),
        Act("ec2:RunInstances", f"arn:aws:ec2:{REGION}::image/ami-1"),
        Act("ec2:CreateFleet", f"{place}launch-template/lt-1", theirs),
        Act("ec2:CreateTags", f"{place}instance/i-1", {"aws:RequestTag/spot-runner:stack": stack.name}),
        Act("ec2:CreateTags", f"{place}security-group/sg-1", made),
        Act("ec2:DescribeInstances", "*", {"ec2:Region": "us-east-1"}),
        Act("sqs:ReceiveMessage", f"arn:aws:sqs:{REGION}:123456789012:another"),
        Act("s3:GetObject", f"arn:aws:s3:::{stack.resources['Parks']}/elsewhere/x"),
        Act("s3:PutObject", f"arn:aws:s3:::{stack.resources['Parks']}/packages/x"),
        Act("s3:ListBucket", "arn:aws:s3:::another"),
        Act("iam:PassRole", "arn:aws:iam::123456789012:role/any"),
    ):
        assert not allows(policies, act), act


def look(settings: ControlSettings) -> list[Fault]:
    """Do what the doctor does before anything is launched; moto has no quotas of EC2."""
    (dry_run,) = open_dry_runs(settings, SystemClock())
    return list(dry_run.faults(SPEC, [Sources(market=Market.SPOT_THEN_ON_DEMAND)]))


def work(deployed: Deployed) -> None:
    """Do all that the service does at AWS, once."""
    stack, settings = deployed.stack, deployed.settings
    opened = open_clouds(settings, SystemClock(), lambda _: ())
    (cloud,), (seller,) = opened.clouds, opened.sellers
    seller.stock()
    cloud.launch(A, SPEC, TOLD)
    cloud.terminate(A)
    look(settings)
    _put(client("events", stack.endpoint), WARNING)
    queue = EventQueue.open(settings.aws.events_queue or "", REGION, stack.endpoint)
    for one in queue.received(wait_s=5):
        queue.done(one)
    store, name = open_objects(settings, SystemClock()), f"parks/spot-move-{secrets.token_hex(2)}/memory-000000"
    with httpx.Client(trust_env=False, timeout=30) as host:
        assert host.put(store.url(ObjectMethod.PUT, name, timedelta(minutes=1)), content=b"sealed").is_success
    assert store.read(name) == b"sealed"
    store.delete(store.listed("parks/"))


# ---------------------------------------------------------------- how it is read


def words(file: Path) -> Iterator[str]:
    """Yield every name and every text of one word in a file."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.Attribute):
            yield node.attr


def instances(stack: Stack, *ids: str) -> list[dict[str, Any]]:
    told = client("ec2", stack.endpoint).describe_instances(InstanceIds=list(ids))["Reservations"]
    return [one for some in told for one in some["Instances"]]


def _put(events: Any, told: Mapping[str, Any]) -> None:  # noqa: ANN401 boto3 makes its classes when it runs
    entry = {"Source": told["source"], "DetailType": told["detail-type"], "Detail": json.dumps(told["detail"])}
    assert events.put_events(Entries=[entry])["FailedEntryCount"] == 0
