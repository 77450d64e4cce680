"""`spot-runner explain`: what labels mean here, what a job gets for them, or why nothing and what to write instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import chain
from typing import Final, assert_never

from rich.console import Console

from workers.bootstrap.plan import open_buyer
from workers.bootstrap.policies import Policies
from workers.clock import SystemClock
from workers.domain.breaker import Breaker
from workers.domain.errors import BadInput, SpotError
from workers.domain.events import Happening
from workers.domain.job import Job, JobEnd, JobState, Rerun
from workers.domain.labels import SERVED, Again, Interrupt, Unserved, reading
from workers.domain.names import JobId
from workers.domain.overlay import GuestNetwork
from workers.domain.pools import MIB_PER_GIB, Origin, Policy, Terms
from workers.domain.runner import Runner, RunnerState
from workers.planning.demand import kind_of
from workers.planning.fleet import is_coming
from workers.planning.reruns import refusal
from workers.planning.serving import judge
from workers.settings import ControlSettings
from workers.store.repository import SqlStore, open_store

SERVED_STATUS: Final = 0
REFUSED_STATUS: Final = 1
COMING_SHOWN: Final = 3

_NETWORKS: Final = {
    GuestNetwork.RELAY: "its connections leave through the relay and survive a move",
    GuestNetwork.NAT: "its connections leave through its host and are reset by a move",
}
_INTERRUPTS: Final = {
    Interrupt.MOVE: "it is moved when its host is taken back",
    Interrupt.RERUN: "it may be stopped and run again when its host is taken back and moving it costs more",
}

_RUNNERS: Final = {
    RunnerState.REQUESTED: "its microVM is to be restored",
    RunnerState.BOOTING: "its microVM is restored and registered at GitHub, which takes its turn",
    RunnerState.IDLE: "it is registered, and GitHub gives it a job",
    RunnerState.BUSY: "it has a job",
    RunnerState.RETIRING: "it is given up",
    RunnerState.STOPPING: "it is being ended",
    RunnerState.GONE: "it has ended",
}
_RERUNS: Final = {
    Again.AUTO: "it is run again if it is lost and holds no deployment",
    Again.ALWAYS: "it is run again if it is lost",
    Again.NEVER: "it is not run again if it is lost",
}


def run_explain(
    settings: ControlSettings, number: int | None, labels: str | None, origin: Origin, installation: int | None = None
) -> int:
    """Explain a job or labels and return the exit status: 0 if they are served. Raises `BadInput`.

    With an installation, jobs of others are as if they were not.
    """
    if (number is None) == (labels is None):
        raise BadInput('explain: name one thing, a job by its number or labels as in --labels "spot-runner/cpu=4"')
    if labels is not None:
        policy = Policies(settings)()
        asked = split_labels(labels)
        decided = judge(asked, origin, policy)
        lines = explained(asked, decided, policy)
    else:
        decided, lines = _of_job(settings, JobId(number or 0), installation)
    console = Console(highlight=False, markup=False, emoji=False)
    for line in lines:
        console.print(printable(line), soft_wrap=True)
    return SERVED_STATUS if isinstance(decided, Terms) else REFUSED_STATUS


def printable(line: str) -> str:
    """Return a line that a terminal only shows: names and labels are whatever somebody wrote into a workflow."""
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in line)


def split_labels(text: str) -> tuple[str, ...]:
    """Return the labels in what stands after `runs-on:`, with or without brackets, commas and quotation marks."""
    inner = text.strip().removeprefix("[").removesuffix("]")
    parts = (part.strip().strip("'\"") for part in inner.split(","))
    return tuple(part for part in parts if part)


def _of_job(
    settings: ControlSettings, number: JobId, installation: int | None
) -> tuple[Terms | Unserved, Iterator[str]]:
    with closing(open_store(settings.database, SystemClock())) as store:
        job = store.jobs.get(number)
        if job is None or installation not in {None, job.installation_id}:
            raise BadInput(f"job {number} is not known here; take the number at the end of the job's address on GitHub")
        policies = Policies(settings)
        decided = _decided(job, policies())
        hindrances = tuple(_hindrances(job, store.tripped()))
        waits = job.state is JobState.QUEUED and isinstance(decided, Terms) and not hindrances
        market = tuple(_market(settings, store, policies, job)) if waits else ()
        runner = store.runners.get(job.runner_id) if job.runner_id is not None else None
        attempts = store.jobs_of_run(job.repository, job.run_id)
    lines = (_job_lines(job, decided, policies()), _runner_lines(job, runner), _rerun_lines(job, attempts))
    return decided, chain(*lines, hindrances, market)


def _decided(job: Job, policy: Policy) -> Terms | Unserved:
    """Return what was decided for a job; only for one that was never judged, what would be."""
    if job.terms is not None:
        return job.terms
    if job.unserved is not None:
        return Unserved(job.unserved, is_ours=reading(job.labels).is_ours)
    return judge(job.labels, Origin(job.repository), policy)


def _job_lines(job: Job, decided: Terms | Unserved, policy: Policy) -> Iterator[str]:
    end = f", {job.end} ({job.conclusion})" if job.end is not None else ""
    yield f"job {job.id} ({job.name}) of {job.repository}, attempt {job.run_attempt}: {job.state}{end}"
    yield from explained(job.labels, decided, policy)
    if job.deferred is not None and job.unserved is None:
        yield f"waits: {job.deferred}"


def _runner_lines(job: Job, runner: Runner | None) -> Iterator[str]:
    if runner is not None:
        at, where = f"{runner.requested_at:%H:%M:%S} UTC", f" on {runner.host_id}" if runner.host_id is not None else ""
        yield f"runner: {runner.id}, asked for at {at}{where}: {_RUNNERS[runner.state]}"
    elif job.runner_id is not None:
        yield f"runner: {job.runner_id}, of which nothing is known any more"


def _rerun_lines(job: Job, attempts: Sequence[Job]) -> Iterator[str]:
    """Yield what becomes of a job that was lost with its host."""
    if job.end is not JobEnd.LOST:
        return
    match job.rerun:
        case Rerun.NONE | Rerun.WANTED:
            because = refusal(job, attempts)
            yield f"rerun: {f'none: {because}' if because is not None else 'as soon as its run has ended at GitHub'}"
        case Rerun.ASKED:
            yield f"rerun: asked of GitHub, as attempt {job.run_attempt + 1}"
        case Rerun.REFUSED:
            because = refusal(job, attempts)
            yield f"rerun: none: {because or 'GitHub refused it; the check beside its commit says how'}"
        case _:
            assert_never(job.rerun)


def _hindrances(job: Job, tripped: Mapping[str, Breaker]) -> Iterator[str]:
    """Yield what of GitHub's keeps a job that is served from a runner."""
    if job.state is JobState.WAITING:
        yield "waits: the rules of its environment hold it back; it gets a runner once GitHub has queued it"
    breaker = tripped.get(kind_of(job))
    if job.state is JobState.QUEUED and breaker is not None and job.deferred != breaker.sentence:
        yield f"held back: {breaker.sentence}"


def _market(settings: ControlSettings, store: SqlStore, policies: Policies, job: Job) -> Iterator[str]:
    """Yield why there is no host for a job that waits for one, and which come."""
    try:
        buyer, _ = open_buyer(settings, store, policies)
        fleet = buyer.fleet()
        found = buyer.balance(fleet)
        if all(one.id != job.id for one in found.missing):
            return
        because = buyer.plan(fleet, found).unmet.get(job.id)
    except SpotError as error:
        yield f"waits: no host can be had: {error}"
        return
    if because is not None:
        yield f"waits: {because}"
    coming = [host for host in fleet.hosts if is_coming(host)]
    for host in coming[:COMING_SHOWN]:
        refused = [one for one in store.timeline_of(host.id) if one.happening is Happening.LAUNCH_REFUSED]
        last = f"; its launch was refused, last because {refused[-1].detail.get('because')}" if refused else ""
        yield f"coming: host {host.id}, asked of {host.cloud} at {host.requested_at:%H:%M:%S} UTC: {host.state}{last}"
    if len(coming) > COMING_SHOWN:
        yield f"coming: {len(coming) - COMING_SHOWN} hosts more"


def explained(labels: tuple[str, ...], decided: Terms | Unserved, policy: Policy) -> Iterator[str]:
    """Yield in words what labels ask for and what comes of it."""
    wish = reading(labels).wish
    yield f"runs-on: {', '.join(labels)}"
    yield f"asks for: {', '.join(f'{key}={value}' for key, value in wish.options.items()) or f'nothing but {SERVED}'}"
    if isinstance(decided, Unserved):
        yield f"refused: {decided.sentence}"
        return
    gib = decided.shape.memory_mib / MIB_PER_GIB
    disk = decided.shape.disk_mib / MIB_PER_GIB
    yield f"pool: {decided.pool}{'' if wish.pool else ', the first that takes it'} (of {len(policy.pools)})"
    yield f"machine: {decided.shape.vcpus} CPUs, {gib:g} GiB of memory, {disk:g} GiB of disk"
    yield f"image: {decided.image}, package {decided.package or 'not set'}"
    yield f"network: {decided.network}, {_NETWORKS[decided.network]}"
    yield f"interrupt: {decided.interrupt}, {_INTERRUPTS[decided.interrupt]}"
    yield f"rerun: {decided.rerun}, {_RERUNS[decided.rerun]}"
    limit = f"{decided.max_minutes}, then its runner is ended" if decided.max_minutes else "no limit but GitHub's"
    yield f"max-minutes: {limit}"
