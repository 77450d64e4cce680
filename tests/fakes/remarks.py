"""What is to be said beside commits, and what that and budgets need to know, in memory."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from workers.domain.host import Host
from workers.domain.job import Job
from workers.domain.names import HostId, JobId
from workers.domain.remark import Remark
from workers.ports import Clock

if TYPE_CHECKING:
    from tests.fakes.store import MemoryShelf


class MemoryRemarks:
    clock: Clock
    jobs: MemoryShelf[JobId, Job]
    hosts: MemoryShelf[HostId, Host]

    def __init__(self) -> None:
        self._remarks_lock = threading.RLock()
        self._remarks: dict[str, tuple[Remark, datetime | None]] = {}

    def owe(self, remark: Remark) -> None:
        with self._remarks_lock:
            if self._remarks.get(remark.key, (None,))[0] != remark:
                self._remarks[remark.key] = (remark, self.clock.now())

    def owed(self) -> Sequence[str]:
        now = self.clock.now()
        due = [(at, key) for key, (_, at) in self._remarks.items() if at is not None and at <= now]
        return [key for _, key in sorted(due)]

    def take_remark(self, key: str, limit: timedelta) -> Remark | None:
        with self._remarks_lock:
            if key not in self.owed():
                return None
            remark = self._remarks[key][0]
            self._remarks[key] = (remark, self.clock.now() + limit)
            return remark

    def settle_remark(self, remark: Remark) -> None:
        with self._remarks_lock:
            if self._remarks.get(remark.key, (None,))[0] == remark:
                self._remarks[remark.key] = (remark, None)

    def hosts_paid(self, since: datetime) -> Sequence[Host]:
        paid = [row for row in self.hosts.rows.values() if row.price is not None]
        return [row for row in paid if row.ended_at is None or row.ended_at > since]

    def jobs_of_run(self, repository: str, run_id: int) -> Sequence[Job]:
        mine = [row for row in self.jobs.rows.values() if (row.repository, row.run_id) == (repository, run_id)]
        return sorted(mine, key=lambda row: (row.queued_at, row.id))
