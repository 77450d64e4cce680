"""Writes down what a cloud's events say of our instances, for hosts that have not said it themselves."""

from __future__ import annotations

import structlog

from workers.domain.host import Host
from workers.domain.messages import NoticeKind
from workers.domain.notice import Announcement, announced, notice_event
from workers.ports import Clock, Hints, Store

log = structlog.get_logger()


class Notices:
    """Hears one announcement at a time; the same one again changes nothing."""

    def __init__(self, store: Store, hints: Hints, clock: Clock) -> None:
        self._store, self._hints, self._clock = store, hints, clock

    def hear(self, told: Announcement, cloud: str) -> None:
        """Write down what was announced. Raises `TryLater`, mostly because another has the host's lease."""
        host = self._host(told.instance_id, cloud)
        if host is None:
            return  # another deployment's, or one that has ended
        now = self._clock.now()
        left = max(0.0, (told.deadline_at - now).total_seconds())
        event = notice_event(host.id, told.kind, left, now, by="event")
        if told.kind is NoticeKind.REBALANCE:
            self._store.record(event)
            return
        if announced(host, told.deadline_at) != host:
            with self._store.hosts.lease(host.id) as lease:
                after = announced(lease.row, told.deadline_at)
                if after != lease.row:
                    log.info("notice_announced", host=host.id, seconds_left=left)
                    lease.write(after, event)
        self._hints.look_at("host", host.id)  # the evacuation itself sees the deadline within a second

    def _host(self, instance_id: str, cloud: str) -> Host | None:
        mine = (one for one in self._store.hosts.open() if one.instance_id == instance_id and one.cloud == cloud)
        return next(mine, None)
