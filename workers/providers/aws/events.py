"""EC2's warnings as they come from an SQS queue, into which EventBridge rules put them.

EC2 ──▶ EventBridge rule ──▶ SQS ──received──▶ announcement ──done──▶ deleted
└── not done: seen again after a few seconds
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal

import boto3
import structlog
from botocore.config import Config
from pydantic import AwareDatetime, BaseModel, Field, ValidationError

from workers.domain.errors import BadInput
from workers.domain.messages import NoticeKind
from workers.domain.notice import Announcement
from workers.providers.aws.account import AnsweredError, called
from workers.providers.aws.answers import error_of

# Of the warning; EC2 says it two minutes before, and the event itself names no moment of the end.
NOTICE: Final = timedelta(minutes=2)
# The queue holds the call until something comes, so that it is asked a few times a minute and heard at once.
WAIT_S: Final = 10
# What could not be written down is heard again after so long.
HIDDEN_S: Final = 5
AT_ONCE: Final = 10
CONNECT_LIMIT_S: Final = 3.0
INTERRUPTION: Final = "EC2 Spot Instance Interruption Warning"
REBALANCE: Final = "EC2 Instance Rebalance Recommendation"

log: Final = structlog.get_logger(__name__)


class _Detail(BaseModel):
    instance_id: str = Field(alias="instance-id")


class _Event(BaseModel):
    """What EventBridge puts into the queue."""

    detail_type: Literal["EC2 Spot Instance Interruption Warning", "EC2 Instance Rebalance Recommendation"] = Field(
        alias="detail-type"
    )
    time: AwareDatetime
    detail: _Detail


@dataclass(frozen=True)
class Told:
    """One message; None: it is nothing that we know."""

    receipt: str
    announcement: Announcement | None


class EventQueue:
    """Reads one queue. Raises `Unreachable`, `Throttled` or `Refused`."""

    def __init__(self, sqs: Any, url: str, region: str) -> None:  # noqa: ANN401 boto3 makes its classes when it runs
        self._sqs, self._url, self._region = sqs, url, region

    @classmethod
    def open(cls, url: str, region: str, endpoint: str | None = None) -> EventQueue:
        """Use the credentials that boto3 finds by itself."""
        limits = Config(
            connect_timeout=CONNECT_LIMIT_S, read_timeout=WAIT_S + CONNECT_LIMIT_S, retries={"total_max_attempts": 1}
        )
        return cls(boto3.client("sqs", region_name=region, endpoint_url=endpoint, config=limits), url, region)

    def received(self, wait_s: int = WAIT_S) -> Iterator[Told]:
        """Yield what has come, waiting so long for the first."""
        answer = self._ask(
            "receive_message", MaxNumberOfMessages=AT_ONCE, WaitTimeSeconds=wait_s, VisibilityTimeout=HIDDEN_S
        )
        for message in answer.get("Messages", ()):
            yield Told(message["ReceiptHandle"], _announcement(message["Body"]))

    def done(self, told: Told) -> None:
        """Let this one not come again."""
        self._ask("delete_message", ReceiptHandle=told.receipt)

    def _ask(self, call: str, **named: object) -> Any:  # noqa: ANN401 as boto3 answers
        try:
            return called(self._region, call, getattr(self._sqs, call), {"QueueUrl": self._url, **named})
        except AnsweredError as error:
            raise error_of(error.answer, self._region, service="sqs") from error.__cause__


def announcement(body: str) -> Announcement:
    """Return what a message says. Raises `BadInput`."""
    try:
        event = _Event.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"]) or "body"
        raise BadInput(
            f"event: {place}: {first['msg']}; only the rule of docs/clouds.md is to fill this queue"
        ) from error
    if event.detail_type == INTERRUPTION:
        return Announcement(event.detail.instance_id, NoticeKind.INTERRUPTION, event.time + NOTICE)
    return Announcement(event.detail.instance_id, NoticeKind.REBALANCE, event.time)


def _announcement(body: str) -> Announcement | None:
    try:
        return announcement(body)
    except BadInput as error:
        log.warning("event_dropped", because=str(error))
        return None
