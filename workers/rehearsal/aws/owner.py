"""AWS as its owner sees it: moto is asked in EC2's and EventBridge's own words, past the faults.

Nothing is signed: moto takes the service and the region from the credential's scope and believes it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final
from xml.etree import ElementTree as ET

import httpx

from workers.rehearsal.aws.catalogue import REGION, ZONES

Json = dict[str, Any]

ACCOUNT: Final = "123456789012"
"""moto's."""
KEYS: Final = {"AWS_ACCESS_KEY_ID": "AKIAREHEARSAL", "AWS_SECRET_ACCESS_KEY": "of-a-rehearsal"}
IMAGE: Final = "ami-12c6146b"
"""One of those that moto begins with."""
NETWORK: Final = IPv4Network("10.0.0.0/16")
QUEUE: Final = "warnings"
BUCKET: Final = "parks"
SOURCE: Final = "aws.ec2"
WARNING: Final = "EC2 Spot Instance Interruption Warning"
RECOMMENDATION: Final = "EC2 Instance Rebalance Recommendation"
HOST_TAG: Final = "spot-runner:host"
VERSION: Final = "2016-11-15"
CALL_LIMIT_S: Final = 30.0
NONE: Final[Mapping[str, str]] = {}


@dataclass(frozen=True)
class Ec2Instance:
    """One instance that runs."""

    id: str
    host: str
    """By its tag."""
    address: IPv4Address
    user_data: str


class AwsOwner:
    """Asks moto directly. Raises `httpx.HTTPError`."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=CALL_LIMIT_S, trust_env=False)
        self._user_data: dict[str, str] = {}

    # ------------------------------------------------------------ what a deployment finds there

    def furnish(self) -> Sequence[str]:
        """Make a network, a queue with its rule, and a bucket; return the subnets, one in each zone."""
        vpc = _text(self._ec2("CreateVpc", CidrBlock=str(NETWORK)), "vpcId")
        for call, body in _rule():
            self._json(*call, body)
        self._call("s3", "PUT", f"/{BUCKET}", content=_located().encode())
        return [self._subnet(vpc, number, zone) for number, zone in enumerate(ZONES, 1)]

    def _subnet(self, vpc: str, number: int, zone: str) -> str:
        network = str(list(NETWORK.subnets(new_prefix=24))[number])
        return _text(self._ec2("CreateSubnet", VpcId=vpc, CidrBlock=network, AvailabilityZone=zone), "subnetId")

    # ------------------------------------------------------------ its machines

    def running(self) -> Sequence[Ec2Instance]:
        """Return every instance of ours that runs, with what it was told."""
        named = {
            "Filter.1.Name": "instance-state-name",
            "Filter.1.Value.1": "running",
            "Filter.2.Name": "tag-key",
            "Filter.2.Value.1": HOST_TAG,
        }
        return list(self._instances(self._ec2("DescribeInstances", **named)))

    def _instances(self, told: ET.Element) -> Iterator[Ec2Instance]:
        for one in told.findall("./reservationSet/item/instancesSet/item"):
            name = _text(one, "instanceId")
            tags = {_text(tag, "key"): _text(tag, "value") for tag in one.findall("./tagSet/item")}
            address = IPv4Address(_text(one, "privateIpAddress"))
            yield Ec2Instance(name, tags[HOST_TAG], address, self._told(name))

    def _told(self, instance: str) -> str:
        if instance not in self._user_data:
            answer = self._ec2("DescribeInstanceAttribute", InstanceId=instance, Attribute="userData")
            self._user_data[instance] = base64.b64decode(_text(answer, "userData/value")).decode()
        return self._user_data[instance]

    def end(self, instance: str) -> None:
        """Take an instance back, or note that it has switched itself off: either ends it."""
        self._ec2("TerminateInstances", **{"InstanceId.1": instance})

    def warn(self, instance: str) -> None:
        """Let EC2 say on EventBridge that it takes an instance back in two minutes."""
        entry = {
            "Source": SOURCE,
            "DetailType": WARNING,
            "Detail": json.dumps({"instance-id": instance, "instance-action": "terminate"}),
            "Resources": [f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/{instance}"],
        }
        self._json("events", "AWSEvents.PutEvents", {"Entries": [entry]})

    # ------------------------------------------------------------ calls

    def _ec2(self, action: str, **named: str) -> ET.Element:
        answer = self._call("ec2", "POST", "/", data={"Action": action, "Version": VERSION, **named})
        found = ET.fromstring(answer.content)  # noqa: S314 moto's own words
        for one in found.iter():
            one.tag = one.tag.rpartition("}")[2]
        return found

    def _json(self, service: str, target: str, body: Json) -> Json:
        headers = {"X-Amz-Target": target, "Content-Type": "application/x-amz-json-1.1"}
        answer: Json = self._call(service, "POST", "/", headers=headers, content=json.dumps(body).encode()).json()
        return answer

    def _call(
        self,
        service: str,
        method: str,
        path: str,
        headers: Mapping[str, str] = NONE,
        **more: Any,  # noqa: ANN401 httpx's own
    ) -> httpx.Response:
        scope = f"{KEYS['AWS_ACCESS_KEY_ID']}/20260101/{REGION}/{service}/aws4_request"
        signed = {"Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=none"}
        return self._client.request(method, path, headers={**signed, **headers}, **more).raise_for_status()


def queue_url(endpoint: str) -> str:
    """Return how the queue is called, behind this address."""
    return f"{endpoint}/{ACCOUNT}/{QUEUE}"


def _rule() -> Iterator[tuple[tuple[str, str], Json]]:
    """Yield what makes the queue, and the rule that fills it (docs/clouds.md)."""
    pattern = {"source": [SOURCE], "detail-type": [WARNING, RECOMMENDATION]}
    target = {"Id": QUEUE, "Arn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{QUEUE}"}
    yield ("sqs", "AmazonSQS.CreateQueue"), {"QueueName": QUEUE}
    yield ("events", "AWSEvents.PutRule"), {"Name": QUEUE, "EventPattern": json.dumps(pattern), "State": "ENABLED"}
    yield ("events", "AWSEvents.PutTargets"), {"Rule": QUEUE, "Targets": [target]}


def _located() -> str:
    inner = f"<LocationConstraint>{REGION}</LocationConstraint>"
    return f'<CreateBucketConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{inner}</CreateBucketConfiguration>'


def _text(element: ET.Element, path: str) -> str:
    """Return the text at the first place of this name. Raises `LookupError`."""
    found = element.find(f".//{path}")
    if found is None or found.text is None:
        raise LookupError(f"{element.tag} has no {path}")
    return found.text
