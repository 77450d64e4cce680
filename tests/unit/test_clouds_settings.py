"""Which cloud hosts come from, by the settings."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.fakes.clock import START, FakeClock
from workers.bootstrap.capacity import capacity_of
from workers.bootstrap.clouds import mark, open_clouds, rental
from workers.bootstrap.rented import billing, cloud_names
from workers.domain.errors import BadInput, Unfit
from workers.domain.host import Host
from workers.domain.overlay import Overlay
from workers.planning.paid_time import BY_THE_HOUR, BY_THE_SECOND
from workers.settings import AwsSettings, ControlSettings, HetznerSettings

WHOLE = AwsSettings(
    region="eu-central-1",
    subnets=("subnet-1",),
    instance_types=("m8i.large",),
    kvm_image="ami-1",
    control_source="10.0.9.0/24",
)


def settings(home: Path, aws: AwsSettings, market_url: str | None = None) -> ControlSettings:
    return ControlSettings(home=home, market_url=market_url, aws=aws)


def changed(**fields: object) -> AwsSettings:
    return WHOLE.model_copy(update=fields)


def test_without_a_region_nothing_is_rented_at_aws(tmp_path: Path) -> None:
    nowhere = changed(region=None)
    assert cloud_names(settings(tmp_path, nowhere, "http://127.0.0.1:1")) == ("local",)
    with pytest.raises(Unfit, match="no cloud is configured"):
        cloud_names(settings(tmp_path, nowhere))


def test_hosts_come_from_every_cloud_that_is_set(tmp_path: Path) -> None:
    told = settings(tmp_path, changed(endpoint="http://127.0.0.1:1"), "http://127.0.0.1:1")
    assert cloud_names(settings(tmp_path, WHOLE)) == ("aws",)
    assert cloud_names(told) == ("local", "aws")
    opened = open_clouds(told, FakeClock(), lambda _: ())
    assert [one.name for one in opened.clouds] == ["local", "aws"]
    assert [one.name for one in opened.sellers] == ["aws"], "the local market has no prices"
    capacity = capacity_of(told)
    assert (capacity.cloud, capacity.names) == ("local", ("local", "aws"))


def test_whoever_does_not_want_clouds_to_be_asked_lets_them_choose(tmp_path: Path) -> None:
    told = settings(tmp_path, WHOLE).model_copy(update={"ask_offers": False})
    assert open_clouds(told, FakeClock(), lambda _: ()).sellers == ()


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"subnets": ()}, "SPOT_RUNNER_AWS_SUBNETS"),
        ({"instance_types": ()}, "SPOT_RUNNER_AWS_INSTANCE_TYPES"),
        ({"kvm_image": None}, "SPOT_RUNNER_AWS_KVM_IMAGE"),
        ({"control_source": None}, "SPOT_RUNNER_AWS_CONTROL_SOURCE"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, fields: dict[str, object], name: str) -> None:
    with pytest.raises(Unfit, match=f"AWS eu-central-1: set {name}"):
        cloud_names(settings(tmp_path, changed(**fields)))


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPOT_RUNNER_AWS_REGION", "eu-west-1")
    monkeypatch.setenv("SPOT_RUNNER_AWS_SUBNETS", '["subnet-1", "subnet-2"]')
    monkeypatch.setenv("SPOT_RUNNER_AWS_TAGS", '{"team": "builds"}')
    found = ControlSettings().aws
    assert (found.region, found.subnets, found.tags) == ("eu-west-1", ("subnet-1", "subnet-2"), {"team": "builds"})


def test_a_deployment_is_told_from_another_by_its_authority(tmp_path: Path) -> None:
    first, second = (mark(settings(tmp_path / name, WHOLE)) for name in "ab")
    assert first != second
    assert rental(WHOLE, first).deployment == first
    assert first == mark(settings(tmp_path / "a", WHOLE))


def test_an_unknown_region_is_said_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="aws_region: 'eu-nowhere-7'"):
        open_clouds(settings(tmp_path, changed(region="eu-nowhere-7")), FakeClock(), lambda _: ())


def test_the_breaker_is_asked_of_the_store_as_far_back_as_it_remembers(tmp_path: Path) -> None:
    asked: list[datetime] = []

    def taken_back(since: datetime) -> list[Host]:
        asked.append(since)
        return []

    told = settings(tmp_path, changed(endpoint="http://127.0.0.1:1", rest_interval_min=10, rest_min=20))
    (cloud,) = open_clouds(told, FakeClock(), taken_back).clouds
    assert cloud.name == "aws"
    cloud._resting()  # type: ignore[attr-defined]
    assert asked == [START - timedelta(minutes=30)]


# ---------------------------------------------------------------- Hetzner


def at_hetzner(home: Path, content: str | None = "a-token\n", overlay: Overlay = Overlay.WIREGUARD) -> ControlSettings:
    path = home / "token"
    if content is not None:
        path.write_text(content)
    return ControlSettings(
        home=home, aws=changed(region=None), hetzner=HetznerSettings(token_file=path), overlay=overlay
    )


def test_a_token_file_makes_hetzner_the_cloud_and_its_hours_are_paid_whole(tmp_path: Path) -> None:
    told = at_hetzner(tmp_path)
    opened = open_clouds(told, FakeClock(), lambda _: ())
    assert (cloud_names(told), [one.name for one in opened.clouds]) == (("hetzner",), ["hetzner"])
    assert opened.sellers == (), "it is alone, and nobody says what its currency is worth"
    rated = told.model_copy(update={"usd_rate": 1.1})
    assert [one.name for one in open_clouds(rated, FakeClock(), lambda _: ()).sellers] == ["hetzner"]
    assert (billing("hetzner"), billing("aws"), billing("local")) == (BY_THE_HOUR, BY_THE_SECOND, BY_THE_SECOND)


@pytest.mark.parametrize("token", [None, "", "\n", "two words", "t\u00f6ken", "one\ntwo"])
def test_a_token_file_without_a_token_is_named_and_its_content_is_not(tmp_path: Path, token: str | None) -> None:
    with pytest.raises(Unfit, match="SPOT_RUNNER_HETZNER_TOKEN_FILE") as caught:
        cloud_names(at_hetzner(tmp_path, token))
    assert not (token or "").strip() or (token or "").strip() not in str(caught.value)


def test_hosts_at_hetzner_need_the_overlay(tmp_path: Path) -> None:
    with pytest.raises(Unfit, match=r"Hetzner: .* set SPOT_RUNNER_OVERLAY=wireguard"):
        cloud_names(at_hetzner(tmp_path, overlay=Overlay.PLAIN))


def test_hetzners_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPOT_RUNNER_HETZNER_TOKEN_FILE", "/run/token")
    monkeypatch.setenv("SPOT_RUNNER_HETZNER_LOCATIONS", '["fsn1", "hel1"]')
    found = ControlSettings().hetzner
    assert (found.token_file, found.locations, found.server_types) == (Path("/run/token"), ("fsn1", "hel1"), ())
