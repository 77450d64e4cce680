"""A migration: who owns the guest while it moves from one host to another.

    PLANNED ─▶ RECEIVING ─▶ COPYING ─▶ PAUSED ─▶ COMMITTED ─▶ FINISHED
       └───────────┴───────────┴─────────┴──▶ ABORTED

The row decides, never a message. Commit and abort compete on one row by
compare-and-set, and exactly one wins:

* The source says PAUSED only after its own monitor reported `completed`, a
  state that it never leaves by itself. An error before that means that the
  source may already run, and nothing can be committed from COPYING.
* Only the target says COMMITTED, after its own monitor reported `completed`,
  and it lets the guest run only after it has read COMMITTED.
* A paused source takes the guest back only after it has read ABORTED.
* Once the source is gone a PAUSED row may only be committed; after COMMITTED
  there is only forward.

Parking is a migration whose target is the store, resuming one whose source is
the store. The store cannot speak, so the control plane says its words: COMMITTED
of a park once it has seen every part there, PAUSED of a resume at once. A park
stays COMMITTED as long as its guest lies in the store; when it ends, its objects
and its key are destroyed and it is FINISHED.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum, auto
from typing import Final

from workers.domain.errors import Bug
from workers.domain.lifecycle import Lifecycle
from workers.domain.names import HostId, MigrationId, RunnerId

# The figure in which a source says how fast its line was while it sent at its best.
LINE_FIGURE: Final = "line_mib_s"


class MigrationPhase(StrEnum):
    PLANNED = auto()
    RECEIVING = auto()
    COPYING = auto()
    PAUSED = auto()
    COMMITTED = auto()
    FINISHED = auto()
    ABORTED = auto()


_M = MigrationPhase
MIGRATION: Final = Lifecycle(
    first=_M.PLANNED,
    moves={
        _M.PLANNED: frozenset({_M.RECEIVING, _M.ABORTED}),
        _M.RECEIVING: frozenset({_M.COPYING, _M.ABORTED}),
        _M.COPYING: frozenset({_M.PAUSED, _M.ABORTED}),
        _M.PAUSED: frozenset({_M.COMMITTED, _M.ABORTED}),
        _M.COMMITTED: frozenset({_M.FINISHED}),
        _M.FINISHED: frozenset(),
        _M.ABORTED: frozenset(),
    },
)

# Whoever pauses must be able to learn the decision, so both sides must have reached the row just now.
SEEN_LIMIT: Final = timedelta(seconds=1)


class Role(StrEnum):
    """A host's part in a migration."""

    SOURCE = auto()
    TARGET = auto()


class Said(StrEnum):
    """What a host may say of a migration, as a fact about itself."""

    PAUSED = auto()
    """Source: my monitor has completed; the guest stands still and nothing is left to send."""
    COMMITTED = auto()
    """Target: my monitor has completed; I hold the whole guest."""
    ABORTED = auto()
    """Either: this cannot succeed any more."""
    RUNNING = auto()
    """Target: the guest runs here."""
    WIPED = auto()
    """Source: nothing of the guest is left here."""


@dataclass(frozen=True)
class Ports:
    """Where the target listens, for this migration's source alone."""

    memory: int
    disk: int


@dataclass(frozen=True)
class Migration:
    """The row that decides."""

    id: MigrationId
    runner_id: RunnerId
    source_id: HostId | None
    """None: the guest lies in the store, and this resumes it."""
    target_id: HostId | None
    """None: the guest goes to the store, and this is its park."""
    phase: MigrationPhase
    epoch: int
    """The runner's epoch from the commit on."""
    planned_at: datetime
    deadline_at: datetime
    """When the source is taken away, at the latest."""
    ports: Ports | None = None
    share_mib_s: float | None = None
    """What was planned for it of the source's line; None: the line was never measured."""
    source_seen_at: datetime | None = None
    target_seen_at: datetime | None = None
    running_at: datetime | None = None
    wiped_at: datetime | None = None
    reason: str | None = None
    """Why it was aborted."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """What both sides measured: milliseconds end in `_ms`, sizes in `_mib`, Unix times in `_at`."""
    park_id: MigrationId | None = None
    """Of a resume: the park that it takes the guest out of."""
    key: str | None = field(default=None, repr=False)
    """Of a park: 64 hex digits, used for nothing else; None once it has ended, and then nobody can open it."""
    manifest: str | None = None
    """Of a park from PAUSED on: the SHA-256 of the list of all its parts."""

    @property
    def is_park(self) -> bool:
        """The guest goes to the store."""
        return self.target_id is None

    @property
    def is_resume(self) -> bool:
        """The guest comes from the store."""
        return self.source_id is None

    def role_of(self, host_id: HostId) -> Role | None:
        """Say which part this host has, or None."""
        if host_id == self.source_id:
            return Role.SOURCE
        return Role.TARGET if host_id == self.target_id else None


@dataclass(frozen=True)
class LineSeen:
    """How fast the line from one host to another was, as a move that has finished measured it."""

    source_id: HostId
    source_cloud: str
    target_cloud: str
    mib_s: float


def seen(row: Migration, role: Role, now: datetime) -> Migration:
    """Note that this side has reached the row."""
    return replace(row, source_seen_at=now) if role is Role.SOURCE else replace(row, target_seen_at=now)


def stood_ms(row: Migration) -> float | None:
    """Return how long the guest had stood still when all of it had been sent, by the source's clock; None: not yet."""
    stopped_at, completed_at = row.figures.get("stopped_at"), row.figures.get("completed_at")
    return None if stopped_at is None or completed_at is None else max(0.0, (completed_at - stopped_at) * 1000)


def may_pause(row: Migration, now: datetime) -> bool:
    """Say whether the source may let its guest be paused: both sides have reached the row within the last second.

    The store is no side that could be cut off: what it holds is looked at before a park is committed.
    """
    moments = (row.source_seen_at,) if row.is_park else (row.source_seen_at, row.target_seen_at)
    return row.phase is _M.COPYING and all(at is not None and now - at <= SEEN_LIMIT for at in moments)


def decide(row: Migration, role: Role, said: Said, now: datetime) -> Migration:
    """Return the row after a host's word; a word that the row does not allow any more changes nothing.

    The caller writes the result by compare-and-set on `row.phase` and answers with the row as it then stands,
    so a doubled, late or losing word always hears the decision.
    """
    match role, said:
        case Role.SOURCE, Said.PAUSED if row.phase is _M.COPYING:
            return _enter(row, _M.PAUSED)
        case Role.TARGET, Said.COMMITTED if row.phase is _M.PAUSED:
            return _enter(row, _M.COMMITTED)
        case _, Said.ABORTED if _M.ABORTED in MIGRATION.moves[row.phase]:
            return _enter(row, _M.ABORTED)
        case Role.TARGET, Said.RUNNING if row.phase is _M.COMMITTED:
            return finished(replace(row, running_at=row.running_at or now))
        case Role.SOURCE, Said.WIPED if row.phase is _M.COMMITTED:
            return finished(replace(row, wiped_at=row.wiped_at or now))
        case _:
            return row


def finished(row: Migration) -> Migration:
    """Finish a committed migration once the guest runs at the target and nothing of it is left at the source.

    What is left of a resume's guest in the store is its park's business.
    """
    return _enter(row, _M.FINISHED) if row.running_at and (row.wiped_at or row.is_resume) else row


def aborted(row: Migration, reason: str, *, source_is_gone: bool) -> Migration:
    """Abort, if that is still allowed: without its source a paused guest may only go forward."""
    if _M.ABORTED not in MIGRATION.moves[row.phase] or (source_is_gone and row.phase is _M.PAUSED):
        return row
    return replace(_enter(row, _M.ABORTED), reason=reason)


def stored(row: Migration, now: datetime) -> Migration:
    """Commit a park in the store's name; the caller has seen there now that it is whole."""
    if not row.is_park or row.manifest is None:
        raise Bug(f"{row.id} is no park that could be whole")
    return _enter(replace(row, target_seen_at=now), _M.COMMITTED) if row.phase is _M.PAUSED else row


def owner_after(row: Migration) -> Mapping[str, HostId | int | datetime | None]:
    """Return what the commit of this migration makes of its runner's row."""
    parked_at = row.target_seen_at if row.is_park else None
    return {"host_id": row.target_id, "epoch": row.epoch, "migration_id": None, "parked_at": parked_at}


def taken_out(row: Migration) -> Migration:
    """Begin a resume in the store's name: its guest stands still and nothing is left to send."""
    if not row.is_resume:
        raise Bug(f"{row.id} does not come from the store")
    return _enter(row, _M.PAUSED) if row.phase is _M.COPYING else row


def keyless(row: Migration) -> Migration:
    """Destroy the key of a park that nobody needs any more: nobody can open what may be left of it in the store."""
    return replace(row, key=None)


def ended(row: Migration) -> Migration:
    """End a park whose objects are no more."""
    return _enter(row, _M.FINISHED) if row.phase is _M.COMMITTED else row


def _enter(row: Migration, phase: MigrationPhase) -> Migration:
    key = None if phase in MIGRATION.last else row.key
    return replace(row, phase=MIGRATION.move(row.phase, phase), key=key)
