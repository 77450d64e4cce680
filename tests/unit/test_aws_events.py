"""EC2's warnings, in the words in which EventBridge hands them on (Amazon EC2 User Guide), and whoever tells first."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.fakes.clock import FakeClock
from tests.fakes.hints import LossyHints
from tests.fakes.store import MemoryStore
from tests.unit.planning.rows import a_host
from workers.bootstrap.listening import Listening
from workers.domain.errors import BadInput, LeaseLost, SpotError
from workers.domain.events import Happening
from workers.domain.host import Host, HostState
from workers.domain.messages import NoticeKind
from workers.domain.notice import Announcement, noticed
from workers.providers.aws.events import Told, announcement
from workers.reconcilers.notices import Notices

AT = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)
END = AT + timedelta(minutes=2)
HOST = replace(a_host(), cloud="aws", instance_id="i-1")
WARNING = {
    "version": "0",
    "id": "12345678-1234-1234-1234-123456789012",
    "detail-type": "EC2 Spot Instance Interruption Warning",
    "source": "aws.ec2",
    "account": "123456789012",
    "time": "2026-11-23T04:00:00Z",
    "region": "eu-central-1",
    "resources": ["arn:aws:ec2:eu-central-1b:instance/i-1"],
    "detail": {"instance-id": "i-1", "instance-action": "terminate"},
}
RECOMMENDATION = WARNING | {"detail-type": "EC2 Instance Rebalance Recommendation", "detail": {"instance-id": "i-1"}}
TOLD = Announcement("i-1", NoticeKind.INTERRUPTION, END)


def test_a_warning_comes_two_minutes_before_the_end() -> None:
    assert announcement(json.dumps(WARNING)) == TOLD
    assert announcement(json.dumps(RECOMMENDATION)) == Announcement("i-1", NoticeKind.REBALANCE, AT)


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ("no json", "body"),
        ("{}", "detail-type"),
        (json.dumps(WARNING | {"detail-type": "EC2 Instance State-change Notification"}), "detail-type"),
        (json.dumps(WARNING | {"time": "2026-11-23T04:00:00"}), "time"),
        (json.dumps(WARNING | {"detail": {}}), "detail.instance-id"),
    ],
)
def test_what_is_no_warning_is_said_to_be_none(body: str, place: str) -> None:
    with pytest.raises(BadInput, match=rf"event: {place}: .*docs/clouds\.md"):
        announcement(body)


class Scene:
    def __init__(self, *hosts: Host) -> None:
        self.clock = FakeClock(AT + timedelta(seconds=1))
        self.store = MemoryStore(self.clock)
        for host in hosts:
            self.store.hosts.add(host)
        self.hints = LossyHints(random.Random(1))
        self.notices = Notices(self.store, self.hints, self.clock)

    def happened(self) -> list[dict[str, object]]:
        told = [event for _, event in self.store.timeline() if event.happening is Happening.HOST_NOTICE]
        return [dict(one.detail) for one in told]

    def host(self) -> Host:
        found = self.store.hosts.get(HOST.id)
        assert found is not None
        return found


def test_an_event_that_comes_first_drains_the_host_and_again_changes_nothing() -> None:
    scene = Scene(HOST)
    scene.notices.hear(TOLD, "aws")
    scene.notices.hear(TOLD, "aws")
    assert (scene.host().state, scene.host().deadline_at) == (HostState.DRAINING, END)
    assert scene.happened() == [{"kind": "interruption", "seconds_left": 119.0, "by": "event"}]
    assert ("host", HOST.id) in list(scene.hints.taken())


def test_an_event_that_comes_second_changes_nothing_even_if_it_says_an_earlier_end() -> None:
    exact = END + timedelta(seconds=0.9)
    scene = Scene(noticed(HOST, exact))
    scene.notices.hear(TOLD, "aws")
    assert scene.host().deadline_at == exact
    assert scene.happened() == []


def test_the_hosts_own_word_after_the_event_is_no_news_unless_the_end_is_nearer() -> None:
    after = noticed(HOST, END)
    assert noticed(after, END + timedelta(seconds=0.9)) == after
    assert noticed(after, END - timedelta(seconds=1)).deadline_at == END - timedelta(seconds=1)


def test_a_recommendation_is_written_down_and_moves_nothing() -> None:
    scene = Scene(HOST)
    scene.notices.hear(Announcement("i-1", NoticeKind.REBALANCE, AT), "aws")
    assert scene.host() == HOST
    assert [one["kind"] for one in scene.happened()] == ["rebalance"]


@pytest.mark.parametrize(
    "host",
    [
        replace(HOST, instance_id="i-2"),
        replace(HOST, cloud="local"),
        replace(HOST, state=HostState.TERMINATED),
    ],
)
def test_an_instance_that_is_not_ours_is_let_alone(host: Host) -> None:
    scene = Scene(host)
    scene.notices.hear(TOLD, "aws")
    assert scene.host() == host
    assert scene.happened() == []


# ---------------------------------------------------------------- the queue's listener


class Queue:
    """Two messages, of which the first is nothing that we know."""

    def __init__(self) -> None:
        self.left = [Told("first", None), Told("second", TOLD)]

    def received(self) -> Iterator[Told]:
        yield from list(self.left)

    def done(self, told: Told) -> None:
        self.left.remove(told)


@pytest.mark.parametrize("error", [LeaseLost("another has it"), None])
def test_what_could_not_be_written_down_stays_in_the_queue(error: SpotError | None) -> None:
    queue, heard = Queue(), list[Announcement]()

    def hear(told: Announcement) -> None:
        heard.append(told)
        if error is not None:
            raise error

    Listening(queue, hear).once()
    assert heard == [TOLD]
    assert [one.receipt for one in queue.left] == ([] if error is None else ["second"])
