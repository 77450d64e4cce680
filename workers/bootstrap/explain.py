"""`spot-runner explain`: what labels mean here, what a job gets for them, or why nothing and what to write instead."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Final

from rich.console import Console

from workers.bootstrap.pools import open_policy
from workers.clock import SystemClock
from workers.domain.errors import BadInput
from workers.domain.job import Job
from workers.domain.labels import SERVED, Interrupt, Unserved, reading
from workers.domain.names import JobId
from workers.domain.overlay import GuestNetwork
from workers.domain.pools import MIB_PER_GIB, Origin, Policy, Terms
from workers.planning.serving import judge
from workers.settings import ControlSettings
from workers.store.repository import open_store

SERVED_STATUS: Final = 0
REFUSED_STATUS: Final = 1

_NETWORKS: Final = {
    GuestNetwork.RELAY: "its connections leave through the relay and survive a move",
    GuestNetwork.NAT: "its connections leave through its host and are reset by a move",
}
_INTERRUPTS: Final = {
    Interrupt.MOVE: "it is moved when its host is taken back",
    Interrupt.RERUN: "it may be stopped and run again when its host is taken back and moving it costs more",
}


def run_explain(settings: ControlSettings, number: int | None, labels: str | None, origin: Origin) -> int:
    """Explain a job or labels and return the exit status: 0 if they are served. Raises `BadInput`."""
    if (number is None) == (labels is None):
        raise BadInput('explain: name one thing, a job by its number or labels as in --labels "spot-runner/cpu=4"')
    if labels is not None:
        policy = open_policy(settings)
        asked = split_labels(labels)
        decided = judge(asked, origin, policy)
        lines = explained(asked, decided, policy)
    else:
        decided, lines = _of_job(settings, JobId(number or 0))
    console = Console(highlight=False, markup=False, emoji=False)
    for line in lines:
        console.print(line, soft_wrap=True)
    return SERVED_STATUS if isinstance(decided, Terms) else REFUSED_STATUS


def split_labels(text: str) -> tuple[str, ...]:
    """Return the labels in what stands after `runs-on:`, with or without brackets, commas and quotation marks."""
    inner = text.strip().removeprefix("[").removesuffix("]")
    parts = (part.strip().strip("'\"") for part in inner.split(","))
    return tuple(part for part in parts if part)


def _of_job(settings: ControlSettings, number: JobId) -> tuple[Terms | Unserved, Iterator[str]]:
    with closing(open_store(settings.database, SystemClock())) as store:
        job = store.jobs.get(number)
    if job is None:
        raise BadInput(f"job {number} is not known here; take the number at the end of the job's address on GitHub")
    policy = open_policy(settings)
    decided = _decided(job, policy)
    return decided, _job_lines(job, decided, policy)


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
    if job.runner_id is not None:
        yield f"runner: {job.runner_id}"


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
    limit = f"{decided.max_minutes}, then its runner is ended" if decided.max_minutes else "no limit but GitHub's"
    yield f"max-minutes: {limit}"
