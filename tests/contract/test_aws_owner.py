"""AWS as a rehearsal plays it: the service's adapters on one side, the owner of the machines on the other."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from tests.contract.aws_cloud import client
from tests.contract.clouds import SPEC, TOLD, A, answering
from workers.domain.errors import NoCapacity
from workers.domain.market import Sources, SpotPool
from workers.domain.messages import NoticeKind
from workers.domain.user_data import cloud_config
from workers.ports import InstanceState
from workers.providers.aws.account import Account
from workers.providers.aws.cloud import Aws
from workers.providers.aws.events import EventQueue
from workers.providers.aws.requests import Rental
from workers.rehearsal.aws.__main__ import rehearsing
from workers.rehearsal.aws.catalogue import ANSWERS, KIND, REGION, SPOT, ZONES
from workers.rehearsal.aws.faults import Faults
from workers.rehearsal.aws.owner import BUCKET, IMAGE, NETWORK, AwsOwner, queue_url

CHOSEN = Sources(pick=SpotPool(KIND, ZONES[1]))


@dataclass(frozen=True)
class Played:
    """Both sides of one account."""

    url: str
    owner: AwsOwner
    cloud: Aws


@pytest.fixture(scope="module")
def furnished(moto: str) -> Iterator[tuple[str, AwsOwner, tuple[str, ...]]]:
    owner, faults = AwsOwner(moto), Faults(moto, ANSWERS)
    subnets = tuple(owner.furnish())
    with answering(DispatcherMiddleware(faults, {"/_simulator": rehearsing(faults)})) as url:
        yield url, owner, subnets


@pytest.fixture
def played(furnished: tuple[str, AwsOwner, tuple[str, ...]]) -> Played:
    url, owner, subnets = furnished
    rental = Rental(
        region=REGION,
        deployment=secrets.token_hex(3),
        subnets=subnets,
        instance_types=(KIND,),
        kvm_image=IMAGE,
        security_group="sg-of-hosts",
    )
    return Played(url, owner, Aws(Account(client("ec2", url), client("service-quotas", url), rental)))


def test_the_owner_sees_what_was_rented_with_its_user_data_and_ends_it(played: Played) -> None:
    made = played.cloud.launch(A, SPEC, TOLD, CHOSEN)
    machine = made.machine
    assert machine is not None
    assert (machine.zone, machine.lifecycle, machine.usd_per_hour) == (ZONES[1], "spot", SPOT[SpotPool(KIND, ZONES[1])])
    (seen,) = (one for one in played.owner.running() if one.id == made.id)
    assert (seen.host, seen.user_data) == (A, cloud_config(TOLD))
    assert seen.address in NETWORK
    played.owner.end(made.id)
    told = played.cloud.describe(A)
    assert told is not None
    assert told.state is InstanceState.TERMINATED
    assert made.id not in {one.id for one in played.owner.running()}


def test_its_warning_comes_through_eventbridge_and_the_queue(played: Played) -> None:
    played.owner.warn("i-1234")
    queue = EventQueue(client("sqs", played.url), queue_url(played.url), REGION)
    (heard,) = queue.received(wait_s=5)
    assert heard.announcement is not None
    assert (heard.announcement.instance_id, heard.announcement.kind) == ("i-1234", NoticeKind.INTERRUPTION)
    assert heard.announcement.deadline_at > datetime.now(UTC) + timedelta(minutes=1)
    before = httpx.get(f"{played.url}/_simulator/calls", trust_env=False, timeout=30).json()
    queue.done(heard)
    after = httpx.get(f"{played.url}/_simulator/calls", trust_env=False, timeout=30).json()
    assert after["DeleteMessage"] == before.get("DeleteMessage", 0) + 1


def test_sold_out_means_so_many_orders(played: Played) -> None:
    body = {"instance_type": KIND, "times": 2}
    httpx.post(f"{played.url}/_simulator/sold-out", json=body, trust_env=False, timeout=30).raise_for_status()
    for sources in (CHOSEN, Sources()):
        with pytest.raises(NoCapacity, match=f"InsufficientInstanceCapacity: {KIND}: There is no"):
            played.cloud.launch(A, SPEC, TOLD, sources)
    made = played.cloud.launch(A, SPEC, TOLD)
    played.owner.end(made.id)


def test_there_is_a_bucket_behind_the_same_address(played: Played) -> None:
    s3 = client("s3", played.url)
    s3.put_object(Bucket=BUCKET, Key="parks/x", Body=b"sealed")
    assert s3.get_object(Bucket=BUCKET, Key="parks/x")["Body"].read() == b"sealed"
    assert [one["Key"] for one in s3.list_objects_v2(Bucket=BUCKET)["Contents"]] == ["parks/x"]
