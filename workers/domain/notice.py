"""A notice: the cloud takes a machine back, or says that it may soon. Whoever tells it first is heard, and once.

the host's own metadata service ──▶ a word of the host  ┐
├──▶ the host's row: DRAINING, with a deadline
the cloud's events ──▶ a queue ──▶ an announcement      ┘
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from workers.domain.events import Event, Happening
from workers.domain.host import HOST, Host, HostState
from workers.domain.messages import NoticeKind
from workers.domain.names import HostId

# A notice is said again every second; what only the network's delay has moved is no news.
DEADLINE_NEWS: Final = timedelta(milliseconds=200)


@dataclass(frozen=True)
class Announcement:
    """What a cloud's events have said of one instance."""

    instance_id: str
    kind: NoticeKind
    deadline_at: datetime
    """When the machine may be gone; of a recommendation, when it was made."""


def noticed(host: Host, deadline_at: datetime) -> Host:
    """Return the host as it is after a notice: the deadline only ever comes nearer."""
    state = HOST.heard(host.state, HostState.DRAINING)
    if host.deadline_at is not None and deadline_at > host.deadline_at - DEADLINE_NEWS:
        return replace(host, state=state)
    return replace(host, state=state, deadline_at=deadline_at)


def announced(host: Host, deadline_at: datetime) -> Host:
    """Return the host after an announcement; what the host itself was told is more exact, and stays."""
    return host if host.deadline_at is not None else noticed(host, deadline_at)


def notice_event(host_id: HostId, kind: NoticeKind, seconds_left: float, now: datetime, by: str | None = None) -> Event:
    """Return the timeline's entry; `by` is who told, if it was not the host."""
    detail: dict[str, str | float] = {"kind": str(kind), "seconds_left": seconds_left}
    return Event(Happening.HOST_NOTICE, now, host_id=host_id, detail=detail | ({"by": by} if by else {}))
