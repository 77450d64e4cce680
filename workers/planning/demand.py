"""Demand, not orders: runners are made for what waits minus what is booting or idle for the same demand.

    jobs that wait ─┐            same place, pool, labels           ┌─ counted   these two belong together
                    ├──────────────────────────────────────────────▶├─ missing   a runner is to be made
    runners without ┘      those that belong together stay so       ├─ held      a breaker is open: not now
    a job                                                           └─ spare     nobody needs it

The place is the repository, or the organization and a runner group of it if the pool registers its runners there: such
a runner serves every repository of the organization whose jobs have the pool, since each was admitted to the group.

A runner is not bound to the job that it was made for. When GitHub gives it another one, some runner is left over and
some job is left waiting, and the two are brought together before another microVM is started. All workers come to the
same plan from the same rows: the oldest job gets the runner that is furthest.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from workers.domain.breaker import Breaker
from workers.domain.job import Job, JobState
from workers.domain.names import JobId, RunnerId
from workers.domain.runner import DEFAULT_GROUP, Runner, RunnerState, place_of
from workers.planning.fleet import Fleet, is_open
from workers.planning.placement import UNTAKEN, counts_on

_PROGRESS: Final = (RunnerState.IDLE, RunnerState.BOOTING, RunnerState.REQUESTED)
# Whether one of these gets a job is not known yet.
_UNKNOWN: Final = UNTAKEN | {RunnerState.RETIRING}
# Of each run another, so it says nothing about the kind of runner.
_RUN: Final = re.compile(r"(?:^|/)run=[0-9-]*")


@dataclass(frozen=True)
class Demand:
    """What GitHub and the pools tell apart: any runner that is for it serves any job that has it.

    The place names the account. It may have several Apps of ours; which of them told of a job makes no difference.
    """

    place: str
    """`owner/name`, or `owner`: where its runners are registered, in small letters."""
    group_id: int
    """In which runner group."""
    pool: str
    labels: frozenset[str]
    """In small letters, as GitHub compares them."""

    def includes(self, other: Demand) -> bool:
        """Say whether a runner for this one serves the other one, too: it has these labels and more."""
        return other.labels <= self.labels and replace(other, labels=self.labels) == self


@dataclass(frozen=True)
class Balance:
    """What is to be done about every job that waits and every runner that has no job."""

    counted: Mapping[JobId, RunnerId] = field(default_factory=dict)
    """These jobs count on these runners, or are to."""
    missing: tuple[Job, ...] = ()
    """A runner is to be made for each of these, the oldest first."""
    held: Mapping[JobId, Breaker] = field(default_factory=dict)
    """For these none is made now."""
    spare: frozenset[RunnerId] = frozenset()
    """Nobody needs these."""
    deferred: Mapping[JobId, str] = field(default_factory=dict)
    """For these none is made now either, in words for the user: their pool has as many as it may, or their package is
    too old."""


def demand_of(job: Job) -> Demand:
    """Return what a job that is served asks for."""
    terms, labels = job.terms, _labels(job.labels)
    if terms is None:
        return Demand(job.repository.lower(), DEFAULT_GROUP, "", labels)
    place = place_of(job.repository, terms.level).lower()
    return Demand(place, terms.group_id, terms.pool, labels)


def supply_of(runner: Runner) -> Demand:
    """Return what a runner is for."""
    place, labels = runner.place.lower(), _labels(runner.labels)
    return Demand(place, runner.group_id, runner.pool, labels)


def kind_of(row: Job | Runner) -> str:
    """Return what a breaker is for: the demand, whichever run it is of, and the package that its runners start from."""
    demand = demand_of(row) if isinstance(row, Job) else supply_of(row)
    package = row.package if isinstance(row, Runner) else row.terms.package if row.terms is not None else ""
    labels = sorted(short for label in demand.labels if (short := _RUN.sub("", label)))
    place = demand.place if demand.group_id == DEFAULT_GROUP else f"{demand.place}#{demand.group_id}"
    return " ".join([place, demand.pool, package, ",".join(labels)])


def balance(jobs: Iterable[Job], fleet: Fleet, breakers: Mapping[str, Breaker], now: datetime) -> Balance:
    """Say who counts on whom, what is missing and what is left over."""
    waiting = sorted((job for job in jobs if _is_demand(job)), key=lambda job: (job.queued_at, job.id))
    by_id = {runner.id: runner for runner in fleet.runners}
    counted = {job.id: job.runner_id for job in waiting if job.runner_id is not None and _has_hope(job, by_id)}
    free = {runner.id: runner for runner in _free(fleet, set(counted.values()))}
    alone = {job.id: job for job in waiting if job.id not in counted}
    # Whoever was promised to a job a moment ago stays with it.
    for match in (_promised, _of_same_demand, _of_larger_demand):
        for job_id, runner_id in list(match(alone.values(), free.values())):
            counted[job_id] = runner_id
            del alone[job_id], free[runner_id]
    missing, held = _made(alone.values(), _untaken_kinds(fleet) if breakers else set(), breakers, now)
    return Balance(counted, missing, held, frozenset(free))


def _labels(labels: Iterable[str]) -> frozenset[str]:
    return frozenset(label.lower() for label in labels)


def _is_demand(job: Job) -> bool:
    return job.state in {JobState.QUEUED, JobState.PLACED} and job.terms is not None and job.unserved is None


def _has_hope(job: Job, runners: Mapping[RunnerId, Runner]) -> bool:
    return job.state is JobState.PLACED and job.runner_id is not None and counts_on(job, runners.get(job.runner_id))


def _free(fleet: Fleet, taken: set[RunnerId]) -> list[Runner]:
    """Return the runners that will ask GitHub for a job, where they may stay, and on which no job counts."""
    staying = {host.id for host in fleet.hosts if is_open(host)}
    free = [one for one in fleet.runners if one.state in UNTAKEN and one.host_id in staying and one.id not in taken]
    return sorted(free, key=lambda one: (_PROGRESS.index(one.state), one.requested_at, one.id))


def _promised(jobs: Iterable[Job], free: Iterable[Runner]) -> Iterator[tuple[JobId, RunnerId]]:
    """Pair what a worker was about to bring together, or has just brought together, when these rows were read."""
    by_job: dict[JobId, Runner] = {}
    for runner in free:
        by_job.setdefault(runner.job_id, runner)
    for job in jobs:
        promised = by_job.get(job.id)
        if promised is not None and supply_of(promised).includes(demand_of(job)):
            yield job.id, promised.id


def _of_same_demand(jobs: Iterable[Job], free: Iterable[Runner]) -> Iterator[tuple[JobId, RunnerId]]:
    supply = defaultdict(list)
    for runner in reversed(tuple(free)):
        supply[supply_of(runner)].append(runner.id)
    for job in jobs if supply else ():
        if fitting := supply.get(demand_of(job)):
            yield job.id, fitting.pop()


def _of_larger_demand(jobs: Iterable[Job], free: Iterable[Runner]) -> Iterator[tuple[JobId, RunnerId]]:
    """Pair what is left over: GitHub would do so, too, since it only looks for labels that are missing."""
    left = [(runner.id, supply_of(runner)) for runner in free]
    for job in jobs if left else ():
        asked = demand_of(job)
        place = next((place for place, (_, supply) in enumerate(left) if supply.includes(asked)), None)
        if place is not None:
            yield job.id, left.pop(place)[0]


def _untaken_kinds(fleet: Fleet) -> set[str]:
    return {kind_of(runner) for runner in fleet.runners if runner.state in _UNKNOWN}


def _made(
    alone: Iterable[Job], probed: set[str], breakers: Mapping[str, Breaker], now: datetime
) -> tuple[tuple[Job, ...], Mapping[JobId, Breaker]]:
    """Divide the jobs without a runner into those for which one is made and those held back by a breaker.

    Of a kind whose breaker has tripped one probe is made once it is time, and no second beside it.
    """
    missing, held, probed = list[Job](), dict[JobId, Breaker](), set(probed)
    for job in alone:
        breaker = breakers.get(kind_of(job)) if breakers else None
        if breaker is None or breaker.retry_at is None:
            missing.append(job)
        elif breaker.is_open(now) or breaker.id in probed:
            held[job.id] = breaker
        else:
            probed.add(breaker.id)
            missing.append(job)
    return tuple(missing), held
