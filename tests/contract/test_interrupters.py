"""What takes hosts back on demand: the local market's client over the real market, and AWS as moto's server plays it.

moto keeps the experiment and sends no interruption; that a spot instance gets its notice only an account can show
(docs/operating.md has the command).
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.stub import Stubber

from tests.contract.clouds import SPEC, TOLD, A, answering
from tests.unit.planning.rows import a_host
from workers.domain.errors import Refused, SpotError, Throttled, Unreachable
from workers.providers.fis import ACTION, FaultInjection
from workers.providers.local import LocalMarket
from workers.rehearsal.landlord import Estate, Landlord
from workers.rehearsal.market import create_market
from workers.rehearsal.places import Places

ROLE, REGION = "arn:aws:iam::123456789012:role/drill", "eu-central-1"
TWO_MINUTES = timedelta(minutes=2)
HOST = replace(a_host(), id=A, cloud="aws", instance_id="i-0123456789abcdef0")


def client(name: str, endpoint: str) -> Any:  # noqa: ANN401 boto3 makes its classes when it runs
    keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
    limits = Config(retries={"total_max_attempts": 1}, connect_timeout=1, read_timeout=10)
    return boto3.client(name, region_name=REGION, endpoint_url=endpoint, config=limits, **keys)


def test_the_market_takes_back_what_it_has_let() -> None:
    landlord = Landlord(Estate(Places("contract"), daemon=(), metadata=()))
    with answering(create_market(landlord)) as url, closing(LocalMarket(url)) as market:
        market.launch(A, SPEC, TOLD)
        market.take_back(HOST, timedelta(seconds=30))
        (rented,) = landlord._rented.values()
        assert rented.ends_at is not None, "its end is set"


def test_aws_is_asked_for_one_interruption_of_one_instance(moto: str) -> None:
    fis = client("fis", moto)
    FaultInjection(fis, client("sts", moto), ROLE, REGION).take_back(HOST, TWO_MINUTES)
    (listed,) = fis.list_experiments()["experiments"]
    experiment = fis.get_experiment(id=listed["id"])["experiment"]
    (action,), (target,) = experiment["actions"].values(), experiment["targets"].values()
    assert action["actionId"] == ACTION
    assert action["parameters"] == {"durationBeforeInterruption": "PT120S"}
    assert target["resourceType"] == "aws:ec2:spot-instance"
    assert target["resourceArns"] == [f"arn:aws:ec2:{REGION}:123456789012:instance/{HOST.instance_id}"]
    assert experiment["roleArn"] == ROLE
    assert not fis.list_experiment_templates()["experimentTemplates"], "no template is left behind"


@pytest.mark.parametrize("notice", [timedelta(seconds=119), timedelta(minutes=16), timedelta()])
def test_aws_gives_no_other_notice(moto: str, notice: timedelta) -> None:
    injection = FaultInjection(client("fis", moto), client("sts", moto), ROLE, REGION)
    with pytest.raises(Refused, match=r"use --notice-seconds 120\.\.900"):
        injection.take_back(HOST, notice)


def test_a_host_without_an_instance_is_not_taken_back(moto: str) -> None:
    injection = FaultInjection(client("fis", moto), client("sts", moto), ROLE, REGION)
    with pytest.raises(Refused, match="has no instance"):
        injection.take_back(replace(HOST, instance_id=None), TWO_MINUTES)


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("AccessDeniedException", 403, Refused),
        ("ValidationException", 400, Refused),
        ("ThrottlingException", 429, Throttled),
        ("ServiceQuotaExceededException", 402, Throttled),
        ("InternalServerException", 500, Unreachable),
    ],
)
def test_what_aws_answers_is_told_as_ours(moto: str, code: str, status: int, kind: type[SpotError]) -> None:
    fis, sts = client("fis", moto), client("sts", moto)
    with Stubber(fis) as stubbed:
        stubbed.add_client_error("create_experiment_template", code, "no", http_status_code=status)
        with pytest.raises(kind, match=f"AWS answered to create_experiment_template.*{code}"):
            FaultInjection(fis, sts, ROLE, REGION).take_back(HOST, TWO_MINUTES)


def test_no_template_is_left_where_the_experiment_does_not_start(moto: str) -> None:
    fis, sts = client("fis", moto), client("sts", moto)
    with Stubber(fis) as stubbed:
        template = {"experimentTemplate": {"id": "EXT1"}}
        stubbed.add_response("create_experiment_template", template)
        stubbed.add_client_error("start_experiment", "ConflictException", "running", http_status_code=409)
        stubbed.add_response("delete_experiment_template", template)
        with pytest.raises(Refused, match="start_experiment"):
            FaultInjection(fis, sts, ROLE, REGION).take_back(HOST, TWO_MINUTES)
        stubbed.assert_no_pending_responses()


def test_an_account_that_does_not_answer_is_unreachable() -> None:
    nowhere = "http://127.0.0.1:9"
    injection = FaultInjection(client("fis", nowhere), client("sts", nowhere), ROLE, REGION)
    with pytest.raises(Unreachable, match="AWS answered to get_caller_identity"):
        injection.take_back(HOST, TWO_MINUTES)
