"""The story with two clouds: EC2 takes the job's host back, has no other, and the job goes on at Hetzner."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from workers.domain.events import Happening
from workers.domain.names import HostId
from workers.rehearsal.aws.catalogue import ON_DEMAND
from workers.rehearsal.clouds.bill import Rented, bill
from workers.rehearsal.clouds.stage import CloudStage
from workers.rehearsal.report import Seen
from workers.rehearsal.screen import Screen
from workers.rehearsal.story import Options, Story

Json = dict[str, Any]

# EC2 says so two minutes before; its event names no other moment.
NOTICE_S: Final = 120.0
# The pool that was chosen, and then whatever else AWS has: after that another cloud is asked.
REFUSED_ORDERS: Final = 2


class CloudStory(Story):
    """One play on a stage with two clouds."""

    owner = "EC2"

    def __init__(self, stage: CloudStage, options: Options, screen: Screen) -> None:
        super().__init__(stage, replace(options, notice_seconds=NOTICE_S, overlay=True), screen)
        self.clouds = stage

    def _interrupt(self, attempts: list[Json]) -> None:
        self.clouds.sell_out(REFUSED_ORDERS)
        self.screen.line("EC2 has no more to sell: whoever asks gets InsufficientInstanceCapacity")
        super()._interrupt(attempts)

    def _seen(self, cold_boot_s: float | None) -> Seen:
        seen = super()._seen(cold_boot_s)
        rented = self._rented(seen.jobs[0][-1])
        return seen if rented is None else replace(seen, clouds=bill(rented))

    def _rented(self, attempt: Json) -> Rented | None:
        """Return what the job was run on, None if it never ran."""
        store, events = self.stage.store, self.watch.follower.seen
        runner = store.runner_named(attempt["runner_name"] or "")
        if runner is None or attempt["started_at"] is None:
            return None
        names = dict.fromkeys(event.host_id for event in events if event.host_id is not None)
        hosts = {name: host for name in names if (host := store.hosts.get(name)) is not None}
        return Rented(
            shape=runner.shape,
            hosts=hosts,
            events=events,
            stays=list(self._stays(runner.id, attempt["started_at"])),
            ended_at=attempt["completed_at"] or time.time(),
            taken_back=self.victim,
            full_prices=ON_DEMAND,
            now=time.time(),
            events_taken=self.clouds.calls().get("DeleteMessage", 0),
        )

    def _stays(self, runner: str, started_at: float) -> Iterator[tuple[HostId, float]]:
        for event in self.watch.follower.seen:
            if event.runner_id != runner or event.host_id is None:
                continue
            if event.happening is Happening.RUNNER_RESTORED:
                yield event.host_id, started_at
            elif event.happening is Happening.MIGRATION_RUNNING:
                yield event.host_id, event.at.timestamp()
