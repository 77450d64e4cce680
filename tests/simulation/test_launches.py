"""What the cloud refuses to launch: the timeline says why, and another host is asked for."""

from __future__ import annotations

from datetime import timedelta

from tests.fakes.world import World
from workers.domain.errors import Refused
from workers.domain.events import Happening

SENTENCE = "AWS eu-central-1: CreateFleet: the permission iam:PassRole is missing; add it"


def test_a_launch_that_is_refused_is_told_and_the_job_gets_another_host() -> None:
    world = World()
    world.trouble.lost_calls["cloud", "launch"] = Refused(SENTENCE)
    world.github.queue(1)
    world.until(world.is_quiet, timedelta(minutes=15))
    told = [event for _, event in world.store.timeline() if event.happening is Happening.LAUNCH_REFUSED]
    assert [event.detail for event in told] == [{"because": SENTENCE}]
    launched = [event.host_id for _, event in world.store.timeline() if event.happening is Happening.HOST_LAUNCHED]
    assert launched
    assert told[0].host_id not in launched
    assert world.github.conclusions(1) == ["success"]
