"""What a plan of evacuation is made from: the rows, the hosts' reports and what earlier moves have measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from workers.domain.host import Host
from workers.domain.job import Job
from workers.domain.messages import Load
from workers.domain.migration import LineSeen, Migration, MigrationPhase
from workers.domain.names import HostId, MigrationId, RunnerId
from workers.domain.runner import Runner, RunnerState
from workers.planning.estimates import NEAR_MIB_S, load_or_guess, move_time
from workers.planning.evacuation import Move, Situation
from workers.planning.fleet import UNDECIDED, Fleet
from workers.planning.lanes import Guest, Target

# A move that takes longer than was thought keeps its lane, and ends any moment.
OVERDUE: Final = timedelta(seconds=1)


@dataclass(frozen=True)
class Known:
    """What the rows do not say."""

    loads: Mapping[RunnerId, Load] = field(default_factory=dict)
    lines: Sequence[LineSeen] = ()
    tried: Mapping[RunnerId, tuple[HostId, ...]] = field(default_factory=dict)
    """Where each runner was sent before, the last one last: those attempts have failed."""
    jobs: Mapping[RunnerId, Job] = field(default_factory=dict)
    """Which job runs on which runner."""


def situation(source: Host, deadline_at: datetime, fleet: Fleet, known: Known, now: datetime) -> Situation:
    """Put together what is known of a host that leaves."""
    return Situation(
        source=source.host_class,
        deadline_at=deadline_at,
        guests=tuple(
            _guest(one, fleet.held.get(one.id), known, now) for one in fleet.runners_of(source.id) if needs_move(one)
        ),
        targets=tuple(_targets(source, fleet, known.lines)),
        under_way=tuple(_ends(source, fleet, known, now)),
        can_park=True,
    )


def needs_move(runner: Runner) -> bool:
    """Say whether a runner on a leaving host waits for a migration: the others are stopped and placed again."""
    return runner.state is RunnerState.BUSY and runner.migration_id is None


def _guest(runner: Runner, held_until: datetime | None, known: Known, now: datetime) -> Guest:
    job = known.jobs.get(runner.id)
    since = (job and job.started_at) or runner.idle_at or runner.requested_at
    return Guest(
        runner_id=runner.id,
        shape=runner.shape,
        load=known.loads.get(runner.id),
        job_age=now - since,
        may_rerun=job is not None and job.may_rerun,
        hold_until=held_until,
        tried=known.tried.get(runner.id, ()),
    )


def _targets(source: Host, fleet: Fleet, lines: Sequence[LineSeen]) -> Iterator[Target]:
    for host in fleet.hosts:
        if host.id != source.id and fleet.takes(host):
            line = line_between(source, host, lines)
            yield Target(host.id, host.host_class, fleet.left(host), host.cloud == source.cloud, line)


def line_between(source: Host, target: Host, lines: Sequence[LineSeen]) -> float | None:
    """Return the best that was measured from this host to that cloud, or else from any host of its cloud."""
    pair = [line for line in lines if (line.source_cloud, line.target_cloud) == (source.cloud, target.cloud)]
    own = [line for line in pair if line.source_id == source.id]
    return max((line.mib_s for line in own or pair), default=None)


def _ends(source: Host, fleet: Fleet, known: Known, now: datetime) -> Iterator[datetime]:
    """Yield when the moves that use this host's line now are expected to end."""
    runners = {one.id: one for one in fleet.runners}
    for row in fleet.migrations:
        if row.source_id == source.id and row.phase in UNDECIDED and row.runner_id in runners:
            runner = runners[row.runner_id]
            load = load_or_guess(known.loads.get(runner.id), runner.shape)
            ends_at = row.planned_at + move_time(load, row.share_mib_s or NEAR_MIB_S)
            yield max(ends_at, now + OVERDUE)


def planned(move: Move, runner: Runner, source: Host, migration_id: MigrationId, now: datetime) -> Migration:
    """Return the row of a migration that is to be."""
    return Migration(
        id=migration_id,
        runner_id=runner.id,
        source_id=source.id,
        target_id=move.target_id,
        phase=MigrationPhase.PLANNED,
        epoch=runner.epoch + 1,
        planned_at=now,
        deadline_at=source.deadline_at or now,
        share_mib_s=move.share_mib_s,
    )
