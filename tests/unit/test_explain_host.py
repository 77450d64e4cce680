"""A host's way to READY in words: each stage with its seconds, and what stood in the way."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from tests.contract.store_rows import START, a_host
from workers.bootstrap.explain_host import host_lines
from workers.domain.events import Event, Happening
from workers.domain.host import HostState
from workers.domain.names import HostId

H = HostId("spot-host-a")


def test_each_stage_is_told_with_what_it_took() -> None:
    host = replace(a_host(H, state=HostState.READY), requested_at=START)
    moments = {
        Happening.HOST_REQUESTED: 0.0,
        Happening.HOST_LAUNCHED: 1.0,
        Happening.HOST_RUNNING: 4.0,
        Happening.HOST_REGISTERED: 6.5,
        Happening.HOST_READY: 11.5,
    }
    events = [Event(stage, START + timedelta(seconds=at), host_id=H) for stage, at in moments.items()]
    events[-1] = replace(events[-1], detail={"class_measured": 0.25, "packages_verified": 2.5})
    events.insert(3, Event(Happening.REGISTRATION_REFUSED, START, host_id=H, detail={"because": "its token was used"}))
    lines = list(host_lines(host, events))
    assert lines[2:] == [
        "launched: +1.0 s",
        "running: +3.0 s",
        "registered: +2.5 s",
        "  class measured: 0.2 s",
        "  packages verified: 2.5 s",
        "ready: +5.0 s",
        "READY 7.5 s after it was running",
        "registration refused: its token was used",
    ]
