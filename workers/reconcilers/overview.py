"""What a sweep sees of all rows at once, so that it asks for looks only at those that may need something.

A fleet of hundreds has as many rows that need nothing as it has rows; to look at each of them by itself every quarter
of a minute took most of a worker's time. Whatever cannot be told from here is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from workers.domain.host import Host
from workers.domain.job import Job
from workers.domain.messages import RunnerReport
from workers.domain.names import HostId, JobId, RunnerId
from workers.domain.runner import Runner, RunnerState
from workers.planning.running import RunnerSeen, RunnerStep, next_step
from workers.ports import Store

UP: Final = frozenset({RunnerState.IDLE, RunnerState.BUSY})
# The runners of a host that was silent for longer are looked at one by one until it is heard or given up.
HEARD_LIMIT: Final = timedelta(minutes=1)


@dataclass(frozen=True)
class Overview:
    """Every row that has not come to its end, and what each host has just said."""

    read_at: datetime
    jobs: Mapping[JobId, Job]
    runners: Mapping[RunnerId, Runner]
    hosts: Mapping[HostId, Host]
    reports: Mapping[tuple[HostId, RunnerId], RunnerReport]

    def host_of(self, runner: Runner) -> Host | None:
        """Return the host that a runner is on, if its machine has not ended."""
        return self.hosts.get(runner.host_id) if runner.host_id is not None else None

    def is_well(self, runner: Runner) -> bool:
        """Say whether a runner is known to need nothing now; many of which that is not known need nothing, too."""
        host, job = self.host_of(runner), self.jobs.get(runner.job_id)
        if runner.state not in UP or host is None or job is None:
            return False
        report = self.reports.get((host.id, runner.id))
        if report is None:
            return False
        return next_step(RunnerSeen(runner, host, job, report), self.read_at) is RunnerStep.WAIT


def overview(store: Store, now: datetime) -> Overview:
    """Read everything; the rows are not all of one moment, as those of a look are not."""
    reported = store.reported(now - HEARD_LIMIT)
    return Overview(
        now,
        {job.id: job for job in store.jobs.open()},
        {runner.id: runner for runner in store.runners.open()},
        {host.id: host for host in store.hosts.open()},
        {(host_id, one.runner_id): one for host_id, reports in reported.items() for one in reports},
    )
