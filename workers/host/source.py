"""The source side of a migration, without any I/O: events in, commands out.

    NEW ─▶ MIRRORING ─▶ MIRRORED ─▶ COPYING ─▶ SWITCHING ─▶ PAUSED ─▶ WIPING ─▶ GIVEN
              └────────────┴───────────┴───────────┤           │
                                                   ▼           ▼
                      RECOVERED (restart) ─▶ BACKING_OUT ─▶ RESUMING ─▶ KEPT

Promise: in GIVEN nothing of the guest is left here; in KEPT it runs here and the
row says ABORTED. A paused source waits for the row: neither a lost connection
nor the passing of time decides who owns the guest.

What the driver owes this class:

* Commands are carried out in their order; a command's outcome comes back as an event.
* `CANCEL` is always answered, with `MonitorFailed` (nothing is under way any more; the guest may already run)
  or with `MemoryCompleted` (it came too late).
* `SAY_…` is answered with `RowRead` of the row after the word, or not at all; then a later read comes.
  `SAY_WIPED` alone is repeated until it was answered.
* The row is read again and again until the end, and `RowSilent` is told when it could not be reached for a second.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from workers.domain.errors import Bug
from workers.domain.migration import MigrationPhase


class SourceState(Enum):
    NEW = auto()
    MIRRORING = auto()
    MIRRORED = auto()
    """The memory follows once both sides are seen to reach the row."""
    COPYING = auto()
    SWITCHING = auto()
    PAUSED = auto()
    BACKING_OUT = auto()
    RECOVERED = auto()
    RESUMING = auto()
    WIPING = auto()
    KEPT = auto()
    GIVEN = auto()


class SourceCommand(Enum):
    WRITE_ROLE = auto()
    """Role and epoch into the journal, synced."""
    START_MIRROR = auto()
    START_MEMORY = auto()
    END_MIRROR = auto()
    """The guest stands still: finish the mirror, both disks are equal then."""
    SWITCH_OVER = auto()
    """Let the monitor send what is left."""
    CANCEL = auto()
    """End memory and disk streams, out of band if need be, so that the guest's writes do not hang."""
    SAY_PAUSED = auto()
    SAY_ABORTED = auto()
    SAY_WIPED = auto()
    RESUME = auto()
    """Make sure that the guest runs."""
    WIPE = auto()
    """End the monitor and remove all that it left."""


@dataclass(frozen=True)
class SendOrdered:
    """The control plane wants the guest sent."""


@dataclass(frozen=True)
class MirrorReady:
    """Both disks are equal and every write goes to both."""


@dataclass(frozen=True)
class SwitchoverReached:
    """The monitor has paused the guest and waits to send the rest."""


@dataclass(frozen=True)
class MirrorEnded:
    """The disk stream is closed; both disks are equal."""


@dataclass(frozen=True)
class MemoryCompleted:
    """The monitor has completed and never runs the guest again by itself."""


@dataclass(frozen=True)
class MonitorFailed:
    """The monitor's migration ended before it completed: by itself the guest may already run again."""

    reason: str


@dataclass(frozen=True)
class RowRead:
    """What the row says; `may_pause` as the control plane saw it."""

    phase: MigrationPhase
    may_pause: bool = False


@dataclass(frozen=True)
class RowSilent:
    """The row could not be reached for a second."""


@dataclass(frozen=True)
class LimitReached:
    """This takes too long: the deadline is near, or the guest has been paused for its limit."""


@dataclass(frozen=True)
class GuestResumed:
    """The guest runs here."""


@dataclass(frozen=True)
class GuestWiped:
    """Nothing of the guest is left here."""


SourceEvent = (
    SendOrdered
    | MirrorReady
    | SwitchoverReached
    | MirrorEnded
    | MemoryCompleted
    | MonitorFailed
    | RowRead
    | RowSilent
    | LimitReached
    | GuestResumed
    | GuestWiped
)

_S = SourceState
_C = SourceCommand
_P = MigrationPhase
_BEFORE_THE_PAUSE_IS_SAID: Final = frozenset({_S.MIRRORING, _S.MIRRORED, _S.COPYING, _S.SWITCHING})
_DECIDED_FORWARD: Final = frozenset({_P.COMMITTED, _P.FINISHED})
ENDS: Final = frozenset({_S.KEPT, _S.GIVEN})


@dataclass
class Source:
    """Turns what happened into what to do next; `Source(SourceState.RECOVERED)` after a restart of the daemon."""

    state: SourceState = _S.NEW
    reason: str = ""
    """Why it is being aborted, for people."""
    may_pause: bool = field(default=False, init=False)
    _gave_up: bool = field(default=False, init=False)
    _stream_ended: bool = field(default=False, init=False)
    _may_run: bool = field(default=False, init=False)
    _read_aborted: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._gave_up = self.state is _S.RECOVERED

    def receive(self, event: SourceEvent) -> tuple[SourceCommand, ...]:
        """Take one event; return the commands that the driver must carry out, in this order."""
        match event:
            case RowRead():
                self.may_pause = event.may_pause
                return self._read(event.phase)
            case RowSilent():
                self.may_pause = False
                return ()
            case LimitReached():
                return self._too_long()
            case MonitorFailed():
                return self._failed(event.reason)
            case _:
                return self._went_on(event)

    def _went_on(self, event: SourceEvent) -> tuple[SourceCommand, ...]:
        match self.state, event:
            case _S.NEW, SendOrdered():
                return self._enter(_S.MIRRORING, _C.WRITE_ROLE, _C.START_MIRROR)
            case _S.MIRRORING, MirrorReady():
                self.state = _S.MIRRORED
                return self._copy_if_safe()
            case _S.COPYING, SwitchoverReached() if self.may_pause:
                return self._enter(_S.SWITCHING, _C.END_MIRROR)
            case _S.COPYING, SwitchoverReached():
                return self._back_out("not both hosts have reached the control plane within the last second")
            case _S.SWITCHING, MirrorEnded():
                return (_C.SWITCH_OVER,)
            case _S.SWITCHING, MemoryCompleted():
                return self._enter(_S.PAUSED, _C.SAY_PAUSED)
            case _S.RESUMING, GuestResumed():
                return self._enter(_S.KEPT)
            case _S.WIPING, GuestWiped():
                return self._enter(_S.GIVEN, _C.SAY_WIPED)
            case _:
                return self._went_on_too_far(event)

    def _went_on_too_far(self, event: SourceEvent) -> tuple[SourceCommand, ...]:
        """Progress that was on its way when we gave up, or when the daemon ended, says nothing more."""
        if not isinstance(event, MirrorReady | SwitchoverReached | MirrorEnded | MemoryCompleted) or not self._gave_up:
            raise Bug(f"source of a migration: {event} while {self.state.name}")
        if self.state is _S.BACKING_OUT and isinstance(event, MemoryCompleted):
            self._stream_ended = True
            return self._take_back_if_aborted()
        return ()

    def _read(self, phase: MigrationPhase) -> tuple[SourceCommand, ...]:
        match self.state:
            case _S.MIRRORING | _S.MIRRORED | _S.COPYING | _S.SWITCHING:
                return self._read_while_running(phase)
            case _S.PAUSED:
                return self._read_while_paused(phase)
            case _S.RECOVERED:
                return self._read_after_restart(phase)
            case _S.BACKING_OUT:
                return self._read_while_backing_out(phase)
            case _S.NEW | _S.RESUMING | _S.WIPING | _S.KEPT | _S.GIVEN:
                return ()

    def _read_while_running(self, phase: MigrationPhase) -> tuple[SourceCommand, ...]:
        if phase is _P.ABORTED:
            return self._give_up()
        if phase in _DECIDED_FORWARD:
            raise Bug("source of a migration: committed although the guest was never said to be paused")
        return self._copy_if_safe()

    def _copy_if_safe(self) -> tuple[SourceCommand, ...]:
        """Start what ends in a pause only while both sides can learn the decision."""
        if self.state is _S.MIRRORED and self.may_pause:
            return self._enter(_S.COPYING, _C.START_MEMORY)
        return ()

    def _read_while_paused(self, phase: MigrationPhase) -> tuple[SourceCommand, ...]:
        if phase in _DECIDED_FORWARD:
            return self._enter(_S.WIPING, _C.WIPE)
        if phase is _P.ABORTED:
            return self._enter(_S.RESUMING, _C.RESUME)
        return () if phase is _P.PAUSED else (_C.SAY_PAUSED,)  # our word was lost, or this answer is an old one

    def _read_after_restart(self, phase: MigrationPhase) -> tuple[SourceCommand, ...]:
        if phase in _DECIDED_FORWARD:
            return self._enter(_S.WIPING, _C.WIPE)
        if phase is _P.PAUSED:
            return self._enter(_S.PAUSED)  # we have said so, so the monitor has completed
        if phase is _P.ABORTED:
            return self._give_up()
        return self._back_out("the source's daemon was started again")

    def _read_while_backing_out(self, phase: MigrationPhase) -> tuple[SourceCommand, ...]:
        if phase in _DECIDED_FORWARD:
            # Only after a restart: our PAUSED was on its way when the daemon ended, and the target was faster.
            if self._may_run:
                raise Bug("source of a migration: committed although the guest may run here")
            return self._enter(_S.WIPING, _C.WIPE)
        if phase is _P.ABORTED:
            self._read_aborted = True
            return self._take_back_if_aborted()
        return (_C.SAY_ABORTED,)

    def _too_long(self) -> tuple[SourceCommand, ...]:
        if self.state in _BEFORE_THE_PAUSE_IS_SAID:
            return self._back_out("the time ran out")
        # Asking for the abort is all that a paused source may do; the row decides.
        return (_C.SAY_ABORTED,) if self.state is _S.PAUSED else ()

    def _failed(self, reason: str) -> tuple[SourceCommand, ...]:
        if self.state in _BEFORE_THE_PAUSE_IS_SAID:
            self._stream_ended = self._may_run = True
            return self._back_out(reason)
        if self.state is _S.BACKING_OUT:
            self._stream_ended = self._may_run = True
            return self._take_back_if_aborted()
        if self.state is _S.NEW:
            raise Bug(f"source of a migration: the monitor failed ({reason}) before anything was asked of it")
        return ()  # decided, or for the row to decide: the answer to our CANCEL, or a monitor that had sent all

    def _back_out(self, reason: str) -> tuple[SourceCommand, ...]:
        self.reason, self._gave_up = self.reason or reason, True
        return self._enter(_S.BACKING_OUT, _C.CANCEL, _C.SAY_ABORTED)

    def _give_up(self) -> tuple[SourceCommand, ...]:
        self._read_aborted = self._gave_up = True
        return self._enter(_S.BACKING_OUT, _C.CANCEL)

    def _take_back_if_aborted(self) -> tuple[SourceCommand, ...]:
        if self._read_aborted and self._stream_ended:
            return self._enter(_S.RESUMING, _C.RESUME)
        return ()

    def _enter(self, state: SourceState, *commands: SourceCommand) -> tuple[SourceCommand, ...]:
        self.state = state
        return commands
