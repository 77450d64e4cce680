"""`spot-runner doctor` in front of clouds that are not as they should be: each thing is one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.aws_cloud import KEYS, REGION, World
from tests.contract.hetzner.sides import IMAGE_LABELS, TOKEN, hetzner
from workers.bootstrap.doctor import Finding, Grade, cloud_answers, found_by, sources_at
from workers.domain.market import Market, Sources
from workers.domain.overlay import Overlay
from workers.settings import AwsSettings, ControlSettings, HetznerSettings

OUR_POOLS = """
[[pools]]
name = "anywhere"
market = "spot-then-on-demand"

[[pools]]
name = "here"
providers = ["hetzner"]
zones = ["fsn1"]

[[pools]]
name = "both"
providers = ["hetzner", "aws"]
zones = ["fsn1", "eu-central-1a"]
"""


def at_aws(home: Path, aws: World, **changed: object) -> ControlSettings:
    told = AwsSettings(
        region=REGION,
        subnets=aws.rental.subnets,
        instance_types=("m8i.4xlarge",),
        kvm_image=aws.rental.kvm_image,
        control_source=aws.rental.control_source,
        endpoint=aws.site.url,
    )
    return ControlSettings(home=home, package="sha256:00", aws=told.model_copy(update=changed))


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name.upper(), value)


def errors(settings: ControlSettings) -> list[str]:
    return [one.sentence for one in found_by(cloud_answers, settings) if one.grade is Grade.ERROR]


def test_a_cloud_without_quotas_to_read_is_well_but_for_that(aws: World, tmp_path: Path) -> None:
    aws.faults.missing.add("servicequotas:GetServiceQuota")
    owned, doubt = found_by(cloud_answers, at_aws(tmp_path, aws))
    assert owned == Finding(Grade.OK, "aws answers; 0 machines carry our name")
    assert (doubt.grade, "servicequotas:GetServiceQuota is missing" in doubt.sentence) == (Grade.WARNING, True)


def test_credentials_that_are_wrong_are_one_error(aws: World, tmp_path: Path) -> None:
    aws.faults.strangers.add(KEYS["aws_access_key_id"])
    (error,) = errors(at_aws(tmp_path, aws))
    assert "AWS does not take our credentials" in error


@pytest.mark.parametrize("permission", ["ec2:RunInstances", "ec2:DescribeInstances"])
def test_a_permission_that_is_missing_is_one_error(aws: World, tmp_path: Path, permission: str) -> None:
    aws.faults.missing.add(permission)
    (error,) = errors(at_aws(tmp_path, aws))
    assert f"the permission {permission} is missing" in error


def test_what_is_wrong_at_one_cloud_hides_nothing_of_another(aws: World, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("wrong")
    settings = at_aws(tmp_path, aws, instance_types=("m99.huge",))
    with hetzner() as place:
        there = HetznerSettings(token_file=tmp_path / "token", endpoint=f"{place.url}/v1")
        both = settings.model_copy(update={"hetzner": there, "overlay": Overlay.WIREGUARD})
        found = errors(both)
    assert ["does not know our token" in one for one in found] == [True, False]
    assert ["m99.huge" in one for one in found] == [False, True]


def test_a_project_at_hetzner_is_well(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    with hetzner() as place:
        place.image(IMAGE_LABELS)
        there = HetznerSettings(token_file=tmp_path / "token", endpoint=f"{place.url}/v1")
        settings = ControlSettings(home=tmp_path, package="sha256:00", hetzner=there, overlay=Overlay.WIREGUARD)
        assert [one.sentence for one in found_by(cloud_answers, settings)] == [
            "hetzner answers; 0 machines carry our name",
            "hetzner would launch a host, as far as it says so without one",
        ]


def test_each_cloud_is_asked_for_what_the_pools_want_of_it(aws: World, tmp_path: Path) -> None:
    (tmp_path / "pools.toml").write_text(OUR_POOLS)
    (tmp_path / "token").write_text(TOKEN)
    there = {"hetzner": HetznerSettings(token_file=tmp_path / "token"), "pools_file": tmp_path / "pools.toml"}
    settings = at_aws(tmp_path, aws).model_copy(update={**there, "overlay": Overlay.WIREGUARD})
    cheap = Sources(market=Market.SPOT_THEN_ON_DEMAND)
    assert sources_at("aws", settings) == (cheap, Sources())
    assert sources_at("hetzner", settings) == (cheap, Sources(zones=("fsn1",)), Sources())
