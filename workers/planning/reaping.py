"""What is left over or has vanished, seen from three sides: our rows, GitHub's registrations, the hosts' microVMs.

    registration without a row ─▶ Deregister        row without its registration ─▶ Retire, or AskJob if it is busy
    microVM without a row ──────▶ StopMicrovm       row without its microVM ──────▶ NoteVanished

Each of them may only seem so for a moment, because the three are not read at once. So a suspicion is acted on when it
has been held for its grace, and whatever GitHub calls busy is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import ClassVar, Final

from workers.domain.listed import RunnerListed, Scope
from workers.domain.messages import RunnerReport
from workers.domain.names import HostId, RunnerId
from workers.domain.runner import Runner, RunnerState

_R = RunnerState
# A microVM exists from before BOOTING is written until after STOPPING is.
_HAS_MICROVM: Final = frozenset({_R.BOOTING, _R.IDLE, _R.BUSY, _R.RETIRING})


@dataclass(frozen=True)
class Deregister:
    """Take away a registration that no open row stands for."""

    grace: ClassVar = timedelta(seconds=60)
    """A worker registers first and writes GitHub's number afterwards, though its row is there before."""
    scope: Scope
    github_id: int
    runner_id: RunnerId


@dataclass(frozen=True)
class Retire:
    """GitHub has removed the registration of an idle runner, so it will never get a job."""

    grace: ClassVar = timedelta(seconds=30)
    """GitHub's lists are not always of one mind."""
    scope: Scope
    github_id: int
    runner_id: RunnerId


@dataclass(frozen=True)
class AskJob:
    """The registration of a busy runner is gone, so its job is over and nobody told us."""

    grace: ClassVar = timedelta(seconds=30)
    """The delivery that says so may be on its way."""
    scope: Scope
    github_id: int
    runner_id: RunnerId


@dataclass(frozen=True)
class StopMicrovm:
    """End a microVM that no open row stands for: rows are written before microVMs are made."""

    grace: ClassVar = timedelta(seconds=5)
    """What was ended a moment ago is still in its host's last heartbeat."""
    host_id: HostId
    runner_id: RunnerId
    epoch: int


@dataclass(frozen=True)
class NoteVanished:
    """The host of this runner is well and has no such microVM."""

    grace: ClassVar = timedelta(seconds=20)
    """The heartbeat that we look at may be older than the row, but not by so much."""
    host_id: HostId
    runner_id: RunnerId
    epoch: int


Reap = Deregister | Retire | AskJob | StopMicrovm | NoteVanished


@dataclass(frozen=True)
class Sides:
    """The three sides, read one after the other: hosts, GitHub, rows."""

    reported: Mapping[HostId, Sequence[RunnerReport]]
    """What each host that is heard said in its last heartbeat."""
    listed: Mapping[Scope, Sequence[RunnerListed]]
    """What GitHub lists, where it was asked and has answered."""
    rows: Mapping[RunnerId, Runner]
    """Every open row, and each row of any name above."""
    moving: frozenset[RunnerId] = frozenset()
    """Whose guests have a part in a migration that has not ended."""
    unheard: frozenset[Scope] = frozenset()
    """Where GitHub was asked and has not answered."""
    mark: str = ""
    """How the names of this deployment's runners begin; a registration of another's is none of our business."""
    busy: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        names = {one.name for runners in self.listed.values() for one in runners if one.is_busy}
        object.__setattr__(self, "busy", frozenset(names))


def suspicions(sides: Sides) -> Iterator[Reap]:
    """Yield everything that seems wrong now; what GitHub calls busy is not among what would be ended."""
    for scope, runners in sides.listed.items():
        yield from _leaked(scope, runners, sides)
    for host_id, reports in sides.reported.items():
        yield from _orphans(host_id, reports, sides)
    for row in sides.rows.values():
        yield from _vanished(row, sides)


def ripe(
    found: Sequence[Reap], held: Mapping[Reap, datetime], asked: frozenset[Scope], now: datetime
) -> tuple[list[Reap], dict[Reap, datetime]]:
    """Return what is to be acted on, and all suspicions with the moments since when they are held.

    A suspicion about GitHub is kept while GitHub was not `asked` again where it arose.
    """
    unasked = {one: since for one, since in held.items() if (scope := _scope_of(one)) and scope not in asked}
    since = {**unasked, **{one: held.get(one, now) for one in found}}
    return [one for one in found if now - since[one] >= one.grace], since


def doubtful(held: Iterable[Reap]) -> frozenset[Scope]:
    """Return where GitHub is to be asked again, to confirm a suspicion or to drop it."""
    return frozenset(scope for one in held if (scope := _scope_of(one)) is not None)


def _scope_of(one: Reap) -> Scope | None:
    return one.scope if isinstance(one, Deregister | Retire | AskJob) else None


def is_ours(name: str, sides: Sides) -> bool:
    """Say whether a registration of this name is this deployment's: we know it, or it carries our mark."""
    return RunnerId(name) in sides.rows or bool(sides.mark and name.startswith(sides.mark))


def _is_over(runner_id: RunnerId, sides: Sides) -> bool:
    row = sides.rows.get(runner_id)
    return row is None or row.state is RunnerState.GONE


def _leaked(scope: Scope, runners: Sequence[RunnerListed], sides: Sides) -> Iterator[Reap]:
    for one in runners:
        name = RunnerId(one.name)
        if one.name not in sides.busy and is_ours(name, sides) and _is_over(name, sides):
            yield Deregister(scope, one.github_id, name)


def _orphans(host_id: HostId, reports: Sequence[RunnerReport], sides: Sides) -> Iterator[Reap]:
    for report in reports:
        name = report.runner_id
        if _is_over(name, sides) and name not in sides.moving and _is_known_idle(name, sides):
            yield StopMicrovm(host_id, name, report.epoch)


def _is_known_idle(runner_id: RunnerId, sides: Sides) -> bool:
    """Say whether GitHub has answered wherever this runner may be registered, and does not call it busy."""
    if runner_id in sides.busy:
        return False
    row = sides.rows.get(runner_id)
    return not sides.unheard if row is None else scope_of(row) in sides.listed


def _vanished(row: Runner, sides: Sides) -> Iterator[Reap]:
    """A migration that is committed and not over yet says nothing for its guest: it is at the target, or nowhere."""
    if row.migration_id is not None or row.state not in _HAS_MICROVM:
        return
    if row.host_id is not None and _lacks(row.host_id, row.id, sides):
        yield NoteVanished(row.host_id, row.id, row.epoch)
    elif row.id in sides.moving:
        return
    elif row.github_id is not None and _is_unlisted(row.github_id, scope_of(row), sides):
        match row.state:
            case RunnerState.IDLE:
                yield Retire(scope_of(row), row.github_id, row.id)
            case RunnerState.BUSY:
                yield AskJob(scope_of(row), row.github_id, row.id)
            case _:
                pass


def _lacks(host_id: HostId, runner_id: RunnerId, sides: Sides) -> bool:
    return host_id in sides.reported and all(one.runner_id != runner_id for one in sides.reported[host_id])


def _is_unlisted(github_id: int, scope: Scope, sides: Sides) -> bool:
    return scope in sides.listed and all(one.github_id != github_id for one in sides.listed[scope])


def scope_of(row: Runner) -> Scope:
    """Return where a runner is registered."""
    return Scope(row.installation_id, row.place)
