"""The deployment of infra/aws, made by moto's CloudFormation, and the calls that the service makes in it."""

from __future__ import annotations

import ast
import base64
import json
import secrets
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import boto3
import yaml

from tests.contract.aws_cloud import IMAGE, KEYS, REGION, client
from tests.contract.policies import Act

TEMPLATE: Final = Path(__file__).parents[2] / "infra" / "aws" / "spot-runner.yaml"
ACCOUNT: Final = "123456789012"
"""moto's."""
SECRET: Final = "!Ref DatabaseSecret}"
"""moto's CloudFormation makes none, and its IAM takes no policy without a resource."""
GIVEN: Final = {
    "PublicName": "runners.example.org",
    "Source": "https://git.example.org/spot-runner.git",
    "Revision": "0123456789abcdef0123456789abcdef01234567",
    "Package": f"sha256:{'0' * 64}",
    "ControlImage": IMAGE,
    "KeyName": "operator",
    "AdminNetwork": "203.0.113.7/32",
    "InstanceTypes": "m8i.large,m7a.large",
    "KvmImage": IMAGE,
    "PvmImage": IMAGE,
    "FirstZone": f"{REGION}a",
    "SecondZone": f"{REGION}b",
    "ThirdZone": f"{REGION}c",
    "BudgetUsd": "500",
    "BudgetMail": "operator@example.org",
}


@dataclass(frozen=True)
class Stack:
    """One deployment."""

    name: str
    endpoint: str
    outputs: Mapping[str, str]
    """By their descriptions, which are names of settings."""
    resources: Mapping[str, str]
    """Logical name -> what it is called at AWS."""

    def policies(self) -> list[dict[str, Any]]:
        """Return what the control plane's role may do."""
        iam, role = client("iam", self.endpoint), self.resources["ControlRole"]
        names = iam.list_role_policies(RoleName=role)["PolicyNames"]
        told = [iam.get_role_policy(RoleName=role, PolicyName=one)["PolicyDocument"] for one in names]
        # What CloudFormation has made moto tells in Python's words, and boto3 leaves what is no JSON as it is.
        return [dict(ast.literal_eval(one)) if isinstance(one, str) else one for one in told]


def deploy(moto: str, **changed: str) -> Stack:
    """Make a stack; what the template's outputs say is what `Stack.outputs` has."""
    name, given = f"spot-{secrets.token_hex(3)}", GIVEN | changed
    cloudformation = client("cloudformation", moto)
    cloudformation.create_stack(
        StackName=name,
        TemplateBody=TEMPLATE.read_text().replace(SECRET, f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:store}}"),
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    (told,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
    assert told["StackStatus"] == "CREATE_COMPLETE", told
    found = cloudformation.describe_stack_resources(StackName=name)["StackResources"]
    made = {one["LogicalResourceId"]: one["PhysicalResourceId"] for one in found if "PhysicalResourceId" in one}
    _associate(moto, made)
    return Stack(name, moto, {one["Description"]: one["OutputValue"] for one in told["Outputs"]}, made)


def resources() -> Mapping[str, Any]:
    """Return the template's resources; a function is a mapping of its name to what it is given."""
    return dict(yaml.load(TEMPLATE.read_text(), Loader=_Functions)["Resources"])  # noqa: S506 it is a safe one


class _Functions(yaml.SafeLoader):
    """YAML with CloudFormation's short forms."""


def _function(loader: _Functions, suffix: str, node: yaml.Node) -> Any:  # noqa: ANN401 whatever YAML holds
    if isinstance(node, yaml.ScalarNode):
        return {suffix: loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {suffix: loader.construct_sequence(node, deep=True)}
    assert isinstance(node, yaml.MappingNode)
    return {suffix: loader.construct_mapping(node, deep=True)}


_Functions.add_multi_constructor("!", _function)


def _associate(moto: str, made: Mapping[str, str]) -> None:
    """Do what the template says of subnets and routes: moto's CloudFormation notes it where its EC2 does not look."""
    ec2 = client("ec2", moto)
    for one in resources().values():
        if one["Type"] == "AWS::EC2::SubnetRouteTableAssociation":
            subnet, table = (one["Properties"][key]["Ref"] for key in ("SubnetId", "RouteTableId"))
            if subnet in made:
                ec2.associate_route_table(RouteTableId=made[table], SubnetId=made[subnet])


def raw_user_data(stack: Stack) -> str:
    told = client("ec2", stack.endpoint).describe_instance_attribute(
        InstanceId=stack.resources["Control"], Attribute="userData"
    )
    return base64.b64decode(told["UserData"]["Value"]).decode()


def user_data(stack: Stack) -> dict[str, Any]:
    content = raw_user_data(stack)
    assert content.startswith("#cloud-config\n")
    return dict(yaml.safe_load(content))


def written(content: Mapping[str, Any], path: str) -> str:
    (found,) = (one for one in content["write_files"] if one["path"] == path)
    assert found["permissions"] == "0600"
    return str(found["content"])


def environment_of(content: str) -> dict[str, str]:
    """Read an EnvironmentFile as systemd does, whose quotes are a shell's."""
    lines = (shlex.split(line) for line in content.splitlines() if line.strip())
    return dict(one.split("=", 1) for (one,) in lines)


# ---------------------------------------------------------------- what is asked


@dataclass(frozen=True)
class Asked:
    """One call of the service, as boto3 was given it."""

    service: str
    call: str
    given: Mapping[str, Any]


@contextmanager
def recording() -> Iterator[list[Asked]]:
    """Note every call, and every URL that is signed, of clients which are made meanwhile."""
    asked = list[Asked]()

    def note(event_name: str, params: Mapping[str, Any], model: Any, **_: object) -> None:  # noqa: ANN401 botocore's own
        asked.append(Asked(model.service_model.service_name, model.name, json.loads(json.dumps(params, default=str))))

    boto3.setup_default_session(**KEYS, region_name=REGION)
    boto3.DEFAULT_SESSION.events.register("provide-client-params", note)
    try:
        yield asked
    finally:
        boto3.DEFAULT_SESSION = None


def acts(asked: Sequence[Asked], stack: Stack) -> Iterator[Act]:
    """Yield what EC2, SQS and S3 ask IAM for these calls.

    Which resources those are, and that a fleet's instances are the caller's own RunInstances, stands in "Actions,
    resources, and condition keys" of the Service Authorization Reference.
    """
    templates = {one.given["LaunchTemplateName"]: one.given for one in asked if one.call == "CreateLaunchTemplate"}
    for one in asked:
        match one.call:
            case "CreateLaunchTemplate":
                yield from _made("ec2:CreateLaunchTemplate", one.given, one.call)
            case "CreateFleet":
                yield from _fleet(one.given, templates, stack)
            case "RunInstances":
                yield from _made("ec2:RunInstances", one.given, "RunInstances")
                yield Act("ec2:RunInstances", _arn("spot-instances-request/sir-1"))
                yield from _used(
                    "ec2:RunInstances", one.given, [face["SubnetId"] for face in one.given["NetworkInterfaces"]]
                )
            case "TerminateInstances":
                yield Act("ec2:TerminateInstances", _arn("instance/i-1"), _ours("ResourceTag", stack.name))
            case "ReceiveMessage" | "DeleteMessage":
                yield Act(f"sqs:{one.call}", f"arn:aws:sqs:{REGION}:{ACCOUNT}:{one.given['QueueUrl'].split('/')[-1]}")
            case "ListObjectsV2" | "DeleteObjects" | "PutObject" | "GetObject":
                yield from _objects(one)
            case "GetServiceQuota":
                yield Act("servicequotas:GetServiceQuota")
            case _:
                yield Act(f"{one.service}:{one.call}", "*", {"ec2:Region": REGION})


def _objects(asked: Asked) -> Iterator[Act]:
    bucket = f"arn:aws:s3:::{asked.given['Bucket']}"
    if asked.call == "ListObjectsV2":
        yield Act("s3:ListBucket", bucket, {"s3:prefix": asked.given.get("Prefix", "")})
    elif asked.call == "DeleteObjects":
        yield from (Act("s3:DeleteObject", f"{bucket}/{one['Key']}") for one in asked.given["Delete"]["Objects"])
    else:
        yield Act(f"s3:{asked.call}", f"{bucket}/{asked.given['Key']}")


def _fleet(given: Mapping[str, Any], templates: Mapping[str, Mapping[str, Any]], stack: Stack) -> Iterator[Act]:
    yield from _made("ec2:CreateFleet", given, "CreateFleet", {"fleet"})
    yield from _made("ec2:RunInstances", given, "RunInstances", {"instance"})
    yield Act("ec2:RunInstances", _arn("spot-instances-request/sir-1"))
    for config in given["LaunchTemplateConfigs"]:
        content = templates[config["LaunchTemplateSpecification"]["LaunchTemplateName"]]["LaunchTemplateData"]
        yield from _made("ec2:RunInstances", content, "RunInstances", {"volume", "network-interface"})
        for action in ("ec2:CreateFleet", "ec2:RunInstances"):
            yield from _used(action, content, [one["SubnetId"] for one in config["Overrides"]])
            yield Act(action, _arn("launch-template/lt-1"), _ours("ResourceTag", stack.name))


def _used(action: str, content: Mapping[str, Any], subnets: Iterable[str]) -> Iterator[Act]:
    yield from (Act(action, _arn(f"subnet/{one}")) for one in subnets)
    yield from (
        Act(action, _arn(f"security-group/{one}")) for face in content["NetworkInterfaces"] for one in face["Groups"]
    )
    yield Act(action, f"arn:aws:ec2:{REGION}::image/{content['ImageId']}")


def _made(action: str, given: Mapping[str, Any], by: str, kinds: set[str] | None = None) -> Iterator[Act]:
    """Yield that something is made, and that it is tagged; what carries no tags is made without any."""
    tagged = {one["ResourceType"]: one["Tags"] for one in given.get("TagSpecifications", ())}
    for kind in kinds or set(tagged):
        tags = {f"aws:RequestTag/{one['Key']}": one["Value"] for one in tagged.get(kind, ())}
        yield Act(action, _arn(f"{kind}/x-1"), tags)
        if tags:
            yield Act("ec2:CreateTags", _arn(f"{kind}/x-1"), {**tags, "ec2:CreateAction": by})


def _arn(what: str) -> str:
    return f"arn:aws:ec2:{REGION}:{ACCOUNT}:{what}"


def _ours(where: str, stack: str) -> dict[str, str]:
    return {f"aws:{where}/spot-runner:stack": stack}
