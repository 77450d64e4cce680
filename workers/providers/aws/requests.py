"""What EC2 is asked for: launch templates and fleets, as plain words of its own API. Pure.

host ──▶ CreateFleet (instant, one instance) ─┬─ template: image, nested or not ─── pools: type x subnet
                                              └─ template: the PVM image, … ─────── pools
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import Any, Final

from workers.domain.market import SpotPool
from workers.domain.names import HostId
from workers.domain.runner import Shape
from workers.domain.user_data import cloud_config

DEPLOYMENT_TAG: Final = "spot-runner:deployment"
HOST_TAG: Final = "spot-runner:host"
# What the kernel, the daemon and each QEMU take beside the memory that guests see.
OWN_MEMORY_MIB: Final = 1024
MIB_PER_GIB: Final = 1024


class Terms(StrEnum):
    """How one instance is paid for, as EC2 says it."""

    SPOT = "spot"
    ON_DEMAND = "on-demand"


class Boot(StrEnum):
    """How guests are accelerated on an instance: it decides the image and what is asked of its processors."""

    METAL = auto()
    """The instance is a whole machine, so KVM works by itself."""
    NESTED = auto()
    """EC2 hands hardware virtualization through."""
    PVM = auto()
    """Neither, so the kernel is one that needs neither."""


@dataclass(frozen=True)
class Rental:
    """What is rented, and as whose."""

    region: str
    deployment: str
    """Marks what is ours in an account that others use, too."""
    subnets: tuple[str, ...]
    instance_types: tuple[str, ...]
    kvm_image: str | None = None
    pvm_image: str | None = None
    instance_profile: str | None = None
    security_group: str | None = None
    """None: one is made."""
    control_source: str | None = None
    """Whom that one lets call hosts: the control plane's security group or network."""
    host_port: int = 8444
    tags: Mapping[str, str] = field(default_factory=dict)
    """More of them, for whoever pays."""


@dataclass(frozen=True)
class Kind:
    """An instance type."""

    name: str
    vcpus: int
    memory_mib: int
    is_metal: bool
    has_nested: bool
    is_x86_64: bool
    vendor: str | None = None
    """As CPUID spells it."""
    network_mbit: int | None = None
    """What it always has; None: not told."""

    def holds(self, spec: Shape) -> bool:
        """Say whether microVMs of this size in all go into one."""
        return self.vcpus >= spec.vcpus and self.memory_mib >= spec.memory_mib + OWN_MEMORY_MIB


@dataclass(frozen=True)
class Subnet:
    """One subnet, which lies in one zone."""

    id: str
    zone: str
    vpc: str
    is_public: bool
    """Its way out is an internet gateway, which serves public addresses only; elsewhere a NAT does."""
    zone_id: str = ""
    """The same zone for every account; its name may be another one's in another."""


@dataclass(frozen=True)
class Image:
    """What instances boot."""

    id: str
    root_device: str
    size_gib: int


@dataclass(frozen=True)
class Pool:
    """Where one instance could come from."""

    kind: Kind
    subnet: Subnet
    boot: Boot

    @property
    def spot(self) -> SpotPool:
        """The pool as the market counts it."""
        return SpotPool(self.kind.name, self.subnet.zone)


def boot_of(kind: Kind, terms: Terms, rental: Rental, refused: Collection[tuple[str, Terms]]) -> Boot | None:
    """Say how guests are accelerated on this type, None if we have no image for it.

    `refused` are the types, with their terms, for which EC2 has refused nested virtualization.
    """
    if rental.kvm_image is not None:
        if kind.is_metal:
            return Boot.METAL
        if kind.has_nested and (kind.name, terms) not in refused:
            return Boot.NESTED
    return Boot.PVM if rental.pvm_image is not None else None


def user_data_of(told: Mapping[str, str]) -> str:
    """Return what the machine is told, as EC2 takes it. Raises `Refused`."""
    return base64.b64encode(cloud_config(told).encode()).decode()


# ---------------------------------------------------------------- the launch template


def template(rental: Rental, image: Image, boot: Boot, group: str, spec: Shape, *, is_public: bool) -> dict[str, Any]:
    """Return what instances have in common: everything but their type, their subnet and what each is told."""
    found: dict[str, Any] = {
        "ImageId": image.id,
        "BlockDeviceMappings": [
            {
                "DeviceName": image.root_device,
                "Ebs": {
                    "Encrypted": True,
                    "VolumeType": "gp3",
                    "VolumeSize": image.size_gib + -(-spec.disk_mib // MIB_PER_GIB),
                    "DeleteOnTermination": True,
                },
            }
        ],
        "NetworkInterfaces": [
            {
                "DeviceIndex": 0,
                "AssociatePublicIpAddress": is_public,
                "DeleteOnTermination": True,
                "Groups": [group],
            }
        ],
        # One hop: what a guest sends has made one already when it leaves the host, so no guest gets an answer.
        "MetadataOptions": {"HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        # A host that ends itself must not go on to cost.
        "InstanceInitiatedShutdownBehavior": "terminate",
        "TagSpecifications": [_tagged(resource, _whose(rental)) for resource in ("volume", "network-interface")],
    }
    if rental.instance_profile is not None:
        key = "Arn" if rental.instance_profile.startswith("arn:") else "Name"
        found["IamInstanceProfile"] = {key: rental.instance_profile}
    if boot is Boot.NESTED:
        found["CpuOptions"] = {"NestedVirtualization": "enabled"}
    return found


def template_name(rental: Rental, content: Mapping[str, Any]) -> str:
    """Name a template after what it says, so that one that is there already is the same."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return f"spot-runner-{rental.deployment}-{digest[:16]}"


def template_request(rental: Rental, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request that makes a template."""
    return {
        "LaunchTemplateName": template_name(rental, content),
        "LaunchTemplateData": content,
        "TagSpecifications": [_tagged("launch-template", _whose(rental))],
    }


# ---------------------------------------------------------------- the fleet


def fleet_request(
    rental: Rental,
    host_id: HostId,
    terms: Terms,
    token: str,
    user_data: str,
    pools: Mapping[str, Sequence[Pool]],
) -> dict[str, Any]:
    """Return the request for one instance out of these pools, each under the name of its launch template."""
    options: dict[str, Any] = {"OnDemandOptions": {"AllocationStrategy": "lowest-price"}}
    if terms is Terms.SPOT:
        options = {
            "SpotOptions": {
                "AllocationStrategy": "price-capacity-optimized",
                "InstanceInterruptionBehavior": "terminate",
            }
        }
    tags = _whose(rental) | {"Name": str(host_id), HOST_TAG: str(host_id)}
    return {
        "Type": "instant",
        "ClientToken": token,
        "TargetCapacitySpecification": {"TotalTargetCapacity": 1, "DefaultTargetCapacityType": terms.value},
        "LaunchTemplateConfigs": [
            {
                "LaunchTemplateSpecification": {
                    "LaunchTemplateName": name,
                    "Version": "1",
                    "LaunchTemplateSpecificationUserData": user_data,
                },
                "Overrides": [{"InstanceType": one.kind.name, "SubnetId": one.subnet.id} for one in some],
            }
            for name, some in pools.items()
        ],
        "TagSpecifications": [_tagged(resource, tags) for resource in ("fleet", "instance")],
        **options,
    }


def instance_request(
    fleet: Mapping[str, Any], content: Mapping[str, Any], override: Mapping[str, str]
) -> dict[str, Any]:
    """Return the request for the instance that a fleet makes by a template with this content, in our name."""
    (face,) = content["NetworkInterfaces"]
    tags = [one for one in fleet["TagSpecifications"] if one["ResourceType"] == "instance"]
    found = {
        **content,
        "MinCount": 1,
        "MaxCount": 1,
        "InstanceType": override["InstanceType"],
        "NetworkInterfaces": [{**face, "SubnetId": override["SubnetId"]}],
        "TagSpecifications": [*content["TagSpecifications"], *tags],
    }
    if fleet["TargetCapacitySpecification"]["DefaultTargetCapacityType"] == Terms.SPOT.value:
        found["InstanceMarketOptions"] = {"MarketType": "spot"}
    return found


def owned_filter(rental: Rental, host_id: HostId | None = None) -> list[dict[str, Any]]:
    """Return what finds our instances, or those of one host."""
    whose = {"Name": f"tag:{DEPLOYMENT_TAG}", "Values": [rental.deployment]}
    if host_id is None:
        return [whose, {"Name": "tag-key", "Values": [HOST_TAG]}]
    return [whose, {"Name": f"tag:{HOST_TAG}", "Values": [str(host_id)]}]


def pools_of(kinds: Iterable[Kind], subnets: Iterable[Subnet], boots: Mapping[str, Boot | None]) -> Iterator[Pool]:
    """Yield every pool that there is an image for, the types in the order of the settings."""
    places = list(subnets)
    for kind in kinds:
        boot = boots[kind.name]
        if boot is not None:
            yield from (Pool(kind, place, boot) for place in places)


def _whose(rental: Rental) -> dict[str, str]:
    return {**rental.tags, DEPLOYMENT_TAG: rental.deployment}


def _tagged(resource: str, tags: Mapping[str, str]) -> dict[str, Any]:
    return {"ResourceType": resource, "Tags": [{"Key": key, "Value": value} for key, value in sorted(tags.items())]}
