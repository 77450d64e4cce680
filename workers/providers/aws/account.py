"""One account in one region, as far as we look at it: calls with their errors translated, and what is read once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, Self

import boto3
from botocore import exceptions as unsent
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from workers.domain.errors import BadInput, Barred, Refused, SpotError, Unreachable
from workers.domain.market import SpotPool
from workers.providers.aws.answers import Answer, error_of
from workers.providers.aws.requests import DEPLOYMENT_TAG, Image, Kind, Rental, Subnet, template_name, template_request

# A fleet answers when it has bought. The caller's lease ends after ten seconds; whoever looks next finds the instance.
CONNECT_LIMIT_S: Final = 3.0
READ_LIMIT_S: Final = 8.0
ARCHITECTURE: Final = "x86_64"
NESTED: Final = "nested-virtualization"
EVERYWHERE: Final = "0.0.0.0/0"
MBIT_PER_GBIT: Final = 1000
_VENDORS: Final = {"Intel": "GenuineIntel", "AMD": "AuthenticAMD"}
_WITHOUT: Final = (unsent.NoCredentialsError, unsent.PartialCredentialsError, unsent.CredentialRetrievalError)
_UNANSWERED: Final = (unsent.ConnectionError, unsent.HTTPClientError)
EXISTS: Final = frozenset({"InvalidLaunchTemplateName.AlreadyExistsException", "InvalidGroup.Duplicate"})
ALLOWED_ALREADY: Final = frozenset({"InvalidPermission.Duplicate"})


class AnsweredError(Exception):
    """EC2 said no; the code is not translated yet."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.code)
        self.answer = answer


class Account:
    """What this deployment rents from. What is read once is read again after a restart only."""

    def __init__(self, ec2: Any, quotas: Any, rental: Rental) -> None:  # noqa: ANN401 boto3 makes its classes when it runs
        self._ec2, self._quotas, self.rental = ec2, quotas, rental
        self._templates: set[str] = set()
        self._images: dict[str, Image] = {}

    @classmethod
    def open(cls, rental: Rental, endpoint: str | None = None) -> Self:
        """Use the credentials that boto3 finds by itself. Raises `BadInput`."""
        if endpoint is None and rental.region not in known_regions():
            raise BadInput(
                f"aws_region: {rental.region!r} is no region that boto3 knows; name one such as eu-central-1"
            )
        limits = Config(connect_timeout=CONNECT_LIMIT_S, read_timeout=READ_LIMIT_S, retries={"total_max_attempts": 1})
        try:
            ec2, quotas = (
                boto3.client(name, region_name=rental.region, endpoint_url=endpoint, config=limits)
                for name in ("ec2", "service-quotas")
            )
        except (BotoCoreError, ValueError) as error:
            raise BadInput(f"AWS {rental.region}: {_sentence(error)}") from error
        return cls(ec2, quotas, rental)

    # ------------------------------------------------------------ calls

    def ask(self, call: str, **named: object) -> Any:  # noqa: ANN401 as boto3 answers
        """Make one call. Raises the port's errors."""
        try:
            return self.ask_bluntly(call, **named)
        except AnsweredError as error:
            raise self.error_of(error.answer) from error.__cause__

    def ask_bluntly(self, call: str, **named: object) -> Any:  # noqa: ANN401 as boto3 answers
        """Make one call. Raises `AnsweredError` for what EC2 refuses, the port's errors without an answer."""
        return called(self.rental.region, call, getattr(self._ec2, call), named)

    def every(self, call: str, key: str, **named: object) -> Iterator[Any]:
        """Yield what stands under this key on every page of a call. Raises the port's errors."""
        pages = iter(self._ec2.get_paginator(call).paginate(**named))
        while True:
            try:
                page = called(self.rental.region, call, lambda: next(pages, None), {})
            except AnsweredError as error:
                raise self.error_of(error.answer) from error.__cause__
            if page is None:
                return
            yield from page[key]

    def error_of(self, answer: Answer) -> SpotError:
        """Return the port's error for an answer."""
        return error_of(answer, self.rental.region, self._quota)

    def quota(self, code: str) -> float:
        """Return how much of something the account may have. Raises the port's errors."""
        region, named = self.rental.region, {"ServiceCode": "ec2", "QuotaCode": code}
        try:
            told = called(region, "get_service_quota", self._quotas.get_service_quota, named)
        except AnsweredError as error:
            raise error_of(error.answer, region, service="servicequotas") from error.__cause__
        return float(told["Quota"]["Value"])

    def _quota(self, code: str) -> str | None:
        try:
            return f"{self.quota(code):g}"
        except (SpotError, KeyError):
            return None

    def spot_price(self, pool: SpotPool) -> float | None:
        """Return what an hour in this pool costs now in US dollars, None if it cannot be read."""
        try:
            told = self.ask(
                "describe_spot_price_history",
                InstanceTypes=[pool.instance_type],
                AvailabilityZone=pool.zone,
                ProductDescriptions=["Linux/UNIX"],
                MaxResults=1,  # the latest comes first
            )["SpotPriceHistory"]
            return float(told[0]["SpotPrice"]) if told else None
        except (SpotError, ValueError):
            return None

    # ------------------------------------------------------------ what is read once

    @cached_property
    def kinds(self) -> Sequence[Kind]:
        """The instance types of the settings, in their order. Raises `Refused` naming one that there is not."""
        wanted = self.rental.instance_types
        found = self.every("describe_instance_types", "InstanceTypes", InstanceTypes=list(wanted))
        by_name = {one["InstanceType"]: _kind(one) for one in found}
        foreign = [name for name, kind in by_name.items() if not kind.is_x86_64]
        if foreign:
            raise Refused(f"AWS {self.rental.region}: {', '.join(sorted(foreign))}: arm64 is not built yet; name "
                          "x86_64 types in SPOT_RUNNER_AWS_INSTANCE_TYPES")  # fmt: skip
        return [by_name[name] for name in wanted]

    @cached_property
    def subnets(self) -> Sequence[Subnet]:
        """The subnets of the settings, in their order."""
        wanted = list(self.rental.subnets)
        found = {one["SubnetId"]: one for one in self.every("describe_subnets", "Subnets", SubnetIds=wanted)}
        vpcs = {one["VpcId"] for one in found.values()}
        if len(vpcs) > 1:
            raise Refused(f"AWS {self.rental.region}: the subnets of SPOT_RUNNER_AWS_SUBNETS lie in {len(vpcs)} VPCs; "
                          "name subnets of one, because its hosts share a security group")  # fmt: skip
        tables = list(
            self.every("describe_route_tables", "RouteTables", Filters=[{"Name": "vpc-id", "Values": sorted(vpcs)}])
        )
        return [
            Subnet(
                name,
                found[name]["AvailabilityZone"],
                found[name]["VpcId"],
                is_public=_is_public(name, tables),
                zone_id=found[name].get("AvailabilityZoneId", ""),
            )
            for name in wanted
        ]

    @cached_property
    def group(self) -> str:
        """The security group of hosts: the one of the settings, or else ours, which is made when it is missing."""
        if self.rental.security_group is not None:
            return self.rental.security_group
        name, vpc = f"spot-runner-{self.rental.deployment}-hosts", self.subnets[0].vpc
        found = self._group_named(name, vpc) or self._make_group(name, vpc)
        for rule in _rules(self.rental, found):
            self._unless(ALLOWED_ALREADY, "authorize_security_group_ingress", GroupId=found, IpPermissions=[rule])
        return found

    def image(self, name: str) -> Image:
        """Return what instances boot. Raises `Refused` for an image that there is not, or of another architecture."""
        if name not in self._images:
            found = self.ask("describe_images", ImageIds=[name])["Images"]
            told: dict[str, Any] = found[0] if found else {}
            if told.get("Architecture") != ARCHITECTURE:
                raise Refused(f"AWS {self.rental.region}: the image {name} is {told.get('Architecture', 'not there')}, "
                              f"not {ARCHITECTURE}; name one that `spot-runner image build` has made")  # fmt: skip
            devices: dict[str, Any] = {
                one.get("DeviceName"): one.get("Ebs", {}) for one in told.get("BlockDeviceMappings", ())
            }
            root = told["RootDeviceName"]
            self._images[name] = Image(name, root, devices.get(root, {}).get("VolumeSize", 0))
        return self._images[name]

    # ------------------------------------------------------------ what is made once

    def template(self, content: Mapping[str, Any]) -> str:
        """Return the name of the launch template that says this; it is made when it is missing."""
        name = template_name(self.rental, content)
        if name not in self._templates:
            self._unless(EXISTS, "create_launch_template", **template_request(self.rental, content))
            self._templates.add(name)
        return name

    def forget_templates(self) -> None:
        """Somebody has deleted one: make sure of each again."""
        self._templates.clear()

    def _group_named(self, name: str, vpc: str) -> str | None:
        filters = [{"Name": "group-name", "Values": [name]}, {"Name": "vpc-id", "Values": [vpc]}]
        found = self.ask("describe_security_groups", Filters=filters)["SecurityGroups"]
        return found[0]["GroupId"] if found else None

    def _make_group(self, name: str, vpc: str) -> str:
        tags = [{"Key": DEPLOYMENT_TAG, "Value": self.rental.deployment}]
        made = self._unless(
            EXISTS,
            "create_security_group",
            GroupName=name,
            VpcId=vpc,
            Description="spot-runner hosts: called by the control plane and by each other only",
            TagSpecifications=[{"ResourceType": "security-group", "Tags": tags}],
        )
        found = made["GroupId"] if made else self._group_named(name, vpc)
        if found is None:
            raise Unreachable(f"AWS {self.rental.region}: the security group {name} is not to be seen yet")
        return str(found)

    def _unless(self, allowed: frozenset[str], call: str, **named: object) -> Any:  # noqa: ANN401 as boto3 answers
        """Make one call that may have been made before, then None."""
        try:
            return self.ask_bluntly(call, **named)
        except AnsweredError as error:
            if error.answer.code in allowed:
                return None
            raise self.error_of(error.answer) from error.__cause__


def called(region: str, call: str, function: Callable[..., Any], named: Mapping[str, object]) -> Any:  # noqa: ANN401 as boto3 answers
    """Make one call. Raises `AnsweredError` for what AWS refuses, the port's errors without an answer."""
    place = f"AWS {region}: {_api(call)}"
    try:
        return function(**named)
    except ClientError as error:
        said = error.response.get("Error", {})
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
        raise AnsweredError(Answer(_api(call), said.get("Code", "?"), said.get("Message", ""), status)) from error
    except _WITHOUT as error:
        raise Barred(
            f"{place}: boto3 finds no credentials; give the control plane's instance a role, or set AWS_PROFILE"
        ) from error
    except (*_UNANSWERED, ResponseParserError) as error:  # what answers there may be no part of AWS
        raise Unreachable(f"{place}: {_sentence(error)}") from error
    except BotoCoreError as error:
        raise Refused(f"{place}: {_sentence(error)}") from error


def known_regions() -> frozenset[str]:
    """Return every region that boto3 knows."""
    session = boto3.session.Session()
    partitions = session.get_available_partitions()
    return frozenset(name for one in partitions for name in session.get_available_regions("ec2", one))


def _api(call: str) -> str:
    return "".join(word.capitalize() for word in call.split("_"))


def _sentence(error: Exception) -> str:
    remedy = "; correct AWS_PROFILE" if isinstance(error, unsent.ProfileNotFound) else ""
    return f"{str(error).rstrip('.')}{remedy}"


def _kind(told: Mapping[str, Any]) -> Kind:
    processor = told.get("ProcessorInfo", {})
    return Kind(
        name=told["InstanceType"],
        vcpus=told["VCpuInfo"]["DefaultVCpus"],
        memory_mib=told["MemoryInfo"]["SizeInMiB"],
        is_metal=told.get("BareMetal", False),
        has_nested=NESTED in processor.get("SupportedFeatures", ()),
        is_x86_64=ARCHITECTURE in processor.get("SupportedArchitectures", ()),
        vendor=_VENDORS.get(processor.get("Manufacturer", "")),
        network_mbit=_line(told.get("NetworkInfo", {})),
    )


def _line(told: Mapping[str, Any]) -> int | None:
    """Return what an instance may always send, not only for some minutes, as "up to" means."""
    speeds = [
        one["BaselineBandwidthInGbps"] for one in told.get("NetworkCards", ()) if "BaselineBandwidthInGbps" in one
    ]
    return int(sum(speeds) * MBIT_PER_GBIT) if speeds else None


def _is_public(subnet: str, tables: Sequence[Mapping[str, Any]]) -> bool:
    """Say whether this subnet's way out is an internet gateway. The VPC's main table is for those without their own."""
    bound = [(table, one) for table in tables for one in table.get("Associations", ())]
    own = next((table for table, one in bound if one.get("SubnetId") == subnet), None)
    main = next((table for table, one in bound if one.get("Main")), None)
    routes = (own or main or {}).get("Routes", ())
    return any(
        one.get("DestinationCidrBlock") == EVERYWHERE and str(one.get("GatewayId", "")).startswith("igw-")
        for one in routes
    )


def _rules(rental: Rental, group: str) -> Iterator[dict[str, Any]]:
    """Yield who may call a host: its like on every port, as moves choose theirs, and the control plane on one."""
    yield {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}
    source = rental.control_source
    if source is not None:
        who: dict[str, Any] = {"IpRanges": [{"CidrIp": source}]}
        if source.startswith("sg-"):
            who = {"UserIdGroupPairs": [{"GroupId": source}]}
        yield {"IpProtocol": "tcp", "FromPort": rental.host_port, "ToPort": rental.host_port, **who}
