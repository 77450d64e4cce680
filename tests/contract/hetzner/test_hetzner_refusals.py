"""What Hetzner refuses, in which words we say it, and how its hour of requests is kept to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from http import HTTPStatus

import pytest
from flask import Flask, Response

from tests.contract.clouds import SPEC, TOLD, A, B, answering
from tests.contract.hetzner.sides import BIG, READONLY, RENTAL, Hetzner, bought, hetzner, plant, rented_from
from tests.fakes.clock import FakeClock
from workers.domain.errors import Barred, NoCapacity, Refused, SpotError, Throttled, Unreachable
from workers.domain.runner import Shape
from workers.providers.hetzner.cloud import Hetzner as HetznerCloud
from workers.providers.hetzner.requests import Rental
from workers.rehearsal.hetzner.faults import FaultKind
from workers.rehearsal.hetzner.records import STATUS_OF

# ---------------------------------------------------------------- what is refused, and in which words


def test_every_error_of_hetzners_says_whether_to_ask_again(stocked: Hetzner, cloud: HetznerCloud) -> None:
    expected = {
        Barred: {"forbidden", "unauthorized", "token_readonly"},
        NoCapacity: {"resource_limit_exceeded"},
        Throttled: {"rate_limit_exceeded", "locked", "conflict"},
        Unreachable: {"server_error", "service_error", "unknown_error", "bad_gateway", "timeout"},
    }
    moves_on = {"resource_unavailable", "placement_error", "maintenance", "unavailable", "uniqueness_error"}
    for code in sorted(set(STATUS_OF) - moves_on):
        kind = next((one for one, codes in expected.items() if code in codes), Refused)
        plant(stocked, FaultKind.ERROR, code=code)
        before = stocked.simulation.rates.admitted
        with pytest.raises(SpotError) as caught:
            cloud.launch(A, SPEC, TOLD)
        assert type(caught.value) is kind, code
        assert str(caught.value).startswith("Hetzner: create server (")
        assert "; " in str(caught.value), "it ends with the remedy"
        assert stocked.simulation.rates.admitted - before <= 6, f"{code} is not repeated inside the call"
    assert bought(stocked) == []


@pytest.mark.parametrize(
    ("token", "sentence"),
    [
        ("wrong", r"find server: .*\(unauthorized\); Hetzner does not know our token; put a valid one into SPOT_"),
        (READONLY, r"\(token_readonly\); our token may only read; put one with read and write into SPOT_"),
    ],
)
def test_a_wrong_token_is_named_by_its_setting_and_never_shown(stocked: Hetzner, token: str, sentence: str) -> None:
    with rented_from(stocked, token=token) as cloud, pytest.raises(Refused, match=sentence) as caught:
        cloud.launch(A, SPEC, TOLD)
    assert token not in str(caught.value)
    assert token not in repr(caught.value.__cause__)


def test_a_limit_is_named_with_how_many_there_are(stocked: Hetzner, cloud: HetznerCloud) -> None:
    stocked.simulation.project.stock.servers_max = 3
    for name in ("one", "two", "three"):
        stocked.created(name)
    with pytest.raises(NoCapacity, match="the limit server_limit is reached with 3 servers in this project; end"):
        cloud.launch(A, SPEC, TOLD)


@pytest.mark.parametrize(
    ("rental", "spec", "sentence"),
    [
        (
            replace(RENTAL, locations=("moon1",)),
            SPEC,
            "not sold in moon1 but in .*; correct SPOT_RUNNER_HETZNER_LOCATIO",
        ),
        (
            replace(RENTAL, server_types=("cx99",)),
            SPEC,
            r"no server type cx99 .*; correct SPOT_RUNNER_HETZNER_SERVER_TY",
        ),
        (replace(RENTAL, server_types=("cax31",)), SPEC, "cax31: arm64 is not built yet; name x86 types"),
        (replace(RENTAL, server_types=("cpx11",)), BIG, "cpx11 holds 8 vCPUs, 14336 MiB .*; name larger types"),
        (RENTAL, Shape(512, 1024, 1024), "no server type holds 512 vCPUs"),
        (replace(RENTAL, image="spot-runner/image=kvm"), SPEC, "no x86 snapshot with the labels .*; build one"),
        (replace(RENTAL, image="77"), SPEC, r"get image 77: .*\(not_found\)"),
        (replace(RENTAL, ssh_key="mine"), SPEC, "SSH key 'mine' not found"),
    ],
)
def test_settings_that_will_not_do_are_named(stocked: Hetzner, rental: Rental, spec: Shape, sentence: str) -> None:
    with rented_from(stocked, rental) as cloud, pytest.raises(Refused, match=sentence):
        cloud.launch(A, spec, TOLD)
    assert bought(stocked) == []


def test_user_data_that_is_too_long_is_refused_before_anything_is_asked(stocked: Hetzner, cloud: HetznerCloud) -> None:
    with pytest.raises(Refused, match=r"user data: 40[0-9]{3} bytes, and clouds take 16384; shorten control_url"):
        cloud.launch(A, SPEC, {**TOLD, "control_url": "x" * 40_000})
    assert bought(stocked) == []


def test_an_ssh_key_keeps_hetzner_from_mailing_passwords(stocked: Hetzner) -> None:
    stocked.simulation.project.ssh_keys.add("mine")
    with rented_from(stocked, replace(RENTAL, ssh_key="mine")) as cloud:
        cloud.launch(A, SPEC, TOLD)


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (HTTPStatus.TOO_MANY_REQUESTS, b"", Throttled),
        (HTTPStatus.BAD_GATEWAY, b"<html>", Unreachable),
        (HTTPStatus.FORBIDDEN, b"<html>", Refused),
        (HTTPStatus.OK, b"<html>", Refused),
        (HTTPStatus.OK, b'{"somethings": []}', Refused),
        (HTTPStatus.OK, b"[]", Refused),
    ],
)
def test_an_answer_in_another_form_is_no_surprise(status: HTTPStatus, body: bytes, error: type[SpotError]) -> None:
    app = Flask(__name__)
    app.get("/<path:_>", endpoint="any")(lambda _: Response(body, status))
    with answering(app) as url:
        cloud = HetznerCloud.open(RENTAL, "token", FakeClock(), url)
        with pytest.raises(error, match="Hetzner: find server"):
            cloud.launch(A, SPEC, TOLD)
        cloud.close()


def test_a_hetzner_that_is_not_there_cannot_be_reached() -> None:
    cloud = HetznerCloud.open(RENTAL, "token", FakeClock(), "http://127.0.0.1:1/v1")
    with pytest.raises(Unreachable, match="no answer"):
        cloud.describe(A)
    cloud.close()


# ---------------------------------------------------------------- an hour's requests


def test_a_launch_asks_little_and_the_next_one_less(stocked: Hetzner, cloud: HetznerCloud) -> None:
    def spent(call: Callable[[], object]) -> int:
        before = stocked.simulation.rates.admitted
        call()
        return stocked.simulation.rates.admitted - before

    assert spent(lambda: cloud.launch(A, SPEC, TOLD)) == 6
    assert spent(lambda: cloud.launch(B, SPEC, TOLD)) == 2
    assert spent(lambda: cloud.describe(A)) == 1
    assert spent(lambda: list(cloud.owned())) == 1
    assert spent(lambda: cloud.terminate(A)) == 2


def test_the_last_requests_of_the_hour_are_kept_for_ending_machines(stocked: Hetzner, cloud: HetznerCloud) -> None:
    cloud.launch(A, SPEC, TOLD)
    stocked.simulation.rates.leave(100)
    assert cloud.describe(A) is not None
    before = stocked.simulation.rates.admitted
    with pytest.raises(Throttled, match=r"99 of 3600 requests of this hour are left") as caught:
        list(cloud.owned())
    assert stocked.simulation.rates.admitted == before, "nobody was asked"
    assert caught.value.at == stocked.clock.now() + timedelta(seconds=202)
    cloud.terminate(A)
    stocked.pass_time(205)
    assert [one.host_id for one in cloud.owned()] == []


def test_when_the_hour_is_used_up_nobody_is_asked_until_it_has_grown_back() -> None:
    with hetzner(requests_per_hour=360) as place, rented_from(place) as cloud:
        place.simulation.rates.leave(0)
        with pytest.raises(Throttled, match="rate_limit_exceeded"):
            cloud.describe(A)
        with pytest.raises(Throttled, match="0 of 360 requests"):
            cloud.describe(A)
        assert place.simulation.rates.refused == 1
        place.pass_time(10)
        assert cloud.describe(A) is None
