"""EC2's warnings in an SQS queue, as moto plays it.

The words are those that EventBridge hands on (tests/unit/test_aws_events.py). The rule that fills it is tried in
test_aws_stack.py; that EC2 says anything only an account shows.
"""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime, timedelta

import pytest

from tests.contract.aws_cloud import REGION, client
from tests.unit.test_aws_events import RECOMMENDATION, WARNING
from workers.domain.errors import Refused, Unreachable
from workers.domain.messages import NoticeKind
from workers.providers.aws.events import NOTICE, EventQueue

AT = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)


@pytest.fixture
def url(moto: str) -> str:
    """An empty queue."""
    made: str = client("sqs", moto).create_queue(QueueName=f"warnings-{secrets.token_hex(3)}")["QueueUrl"]
    return made


def test_a_warning_is_heard_until_it_was_written_down(moto: str, url: str) -> None:
    sqs = client("sqs", moto)
    queue = EventQueue(sqs, url, REGION)
    for one in (WARNING, RECOMMENDATION, WARNING | {"detail-type": "EC2 Instance State-change Notification"}):
        sqs.send_message(QueueUrl=url, MessageBody=json.dumps(one))
    heard = {one.announcement.kind: one for one in queue.received(wait_s=5) if one.announcement}
    assert set(heard) == {NoticeKind.INTERRUPTION, NoticeKind.REBALANCE}
    warning = heard[NoticeKind.INTERRUPTION].announcement
    assert warning is not None
    assert warning.instance_id == "i-1"
    assert abs(warning.deadline_at - AT - NOTICE) < timedelta(seconds=1)
    queue.done(heard[NoticeKind.REBALANCE])
    again = [one.announcement for one in queue.received(wait_s=15)]
    assert [one.kind for one in again if one] == [NoticeKind.INTERRUPTION], "what was not done comes again"


def test_what_is_no_warning_is_told_as_none_and_can_be_taken_away(moto: str, url: str) -> None:
    sqs = client("sqs", moto)
    sqs.send_message(QueueUrl=url, MessageBody="hello")
    queue = EventQueue(sqs, url, REGION)
    (told,) = queue.received(wait_s=5)
    assert told.announcement is None
    queue.done(told)
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert attributes["ApproximateNumberOfMessagesNotVisible"] == "0"


def test_a_queue_that_is_not_there_is_named_by_its_setting(moto: str) -> None:
    queue = EventQueue(client("sqs", moto), f"{moto}/123456789012/nowhere", REGION)
    with pytest.raises(Refused, match=r"ReceiveMessage: .*SPOT_RUNNER_AWS_EVENTS_QUEUE"):
        list(queue.received(wait_s=0))


def test_a_queue_that_does_not_answer_is_unreachable() -> None:
    queue = EventQueue(client("sqs", "http://127.0.0.1:9"), "http://127.0.0.1:9/1/q", REGION)
    with pytest.raises(Unreachable, match="ReceiveMessage"):
        list(queue.received(wait_s=0))
