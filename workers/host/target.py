"""The target side of a migration, without any I/O: events in, commands out.

    NEW ─▶ PREPARING ─▶ RECEIVING ─▶ HOLDING ─▶ STARTING ─▶ RUNNING
               │            │           │
               │            │           └──────────▶ WIPING ─▶ WIPED     (the row says ABORTED)
               └────────────┴──▶ FAILED ─────────────▲

Promise: the guest is let run here only after the row was *read* as COMMITTED, and
its tap joins the network no earlier, whatever the monitor announces by itself.
Once the whole guest is held, only the row ends the wait: the source may be gone,
and then nobody else has the guest.

What the driver owes this class:

* Commands are carried out in their order; a command's outcome comes back as an event.
* `SAY_…` is answered with `RowRead` of the row after the word, or not at all; then a later read comes.
  `SAY_RUNNING` alone is repeated until it was answered.
* After a restart of the daemon it starts in RECEIVING and is told first what the monitor says (`MemoryHeld`,
  `GuestRuns`, `MonitorFailed`, or nothing), then what the row says.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from workers.domain.errors import Bug
from workers.domain.migration import MigrationPhase


class TargetState(Enum):
    NEW = auto()
    PREPARING = auto()
    RECEIVING = auto()
    HOLDING = auto()
    STARTING = auto()
    RUNNING = auto()
    FAILED = auto()
    WIPING = auto()
    WIPED = auto()


class TargetCommand(Enum):
    WRITE_ROLE = auto()
    """Role and epoch into the journal, synced."""
    LISTEN = auto()
    """Start the same machine, paused, with an empty overlay, and open both ports to the peer alone."""
    SAY_COMMITTED = auto()
    SAY_ABORTED = auto()
    SAY_RUNNING = auto()
    ATTACH = auto()
    """The tap joins the network."""
    RUN = auto()
    WIPE = auto()
    """End the monitor and remove all that it left."""


@dataclass(frozen=True)
class ReceiveOrdered:
    """The control plane wants the guest received."""


@dataclass(frozen=True)
class Listening:
    """Both ports are open to the source."""


@dataclass(frozen=True)
class MemoryHeld:
    """The monitor has completed: the whole guest is here, standing still."""


@dataclass(frozen=True)
class MonitorFailed:
    """The monitor ended or refused what came; nothing here is worth keeping."""

    reason: str


@dataclass(frozen=True)
class RowRead:
    """What the row says."""

    phase: MigrationPhase


@dataclass(frozen=True)
class LimitReached:
    """This takes too long."""


@dataclass(frozen=True)
class GuestRuns:
    """The guest runs here."""


@dataclass(frozen=True)
class GuestWiped:
    """Nothing of the guest is left here."""


TargetEvent = ReceiveOrdered | Listening | MemoryHeld | MonitorFailed | RowRead | LimitReached | GuestRuns | GuestWiped

_T = TargetState
_C = TargetCommand
_P = MigrationPhase
_DECIDED_FORWARD: Final = frozenset({_P.COMMITTED, _P.FINISHED})
ENDS: Final = frozenset({_T.RUNNING, _T.WIPED})


@dataclass
class Target:
    """Turns what happened into what to do next; `Target(TargetState.RECEIVING)` after a restart of the daemon."""

    state: TargetState = _T.NEW
    reason: str = ""
    """Why it is being aborted, for people."""

    def receive(self, event: TargetEvent) -> tuple[TargetCommand, ...]:
        """Take one event; return the commands that the driver must carry out, in this order."""
        match event:
            case RowRead():
                return self._read(event.phase)
            case MonitorFailed():
                return self._failed(event.reason)
            case LimitReached():
                return self._too_long()
            case _:
                return self._went_on(event)

    def _went_on(self, event: TargetEvent) -> tuple[TargetCommand, ...]:
        match self.state, event:
            case _T.NEW, ReceiveOrdered():
                return self._enter(_T.PREPARING, _C.WRITE_ROLE, _C.LISTEN)
            case _T.PREPARING, Listening():
                return self._enter(_T.RECEIVING)
            case _T.RECEIVING, MemoryHeld():
                return self._enter(_T.HOLDING, _C.SAY_COMMITTED)
            case _T.STARTING | _T.RECEIVING, GuestRuns():  # RECEIVING: after a restart
                return self._enter(_T.RUNNING, _C.SAY_RUNNING)
            case _T.WIPING, GuestWiped():
                return self._enter(_T.WIPED)
            case _T.FAILED | _T.WIPING | _T.WIPED, Listening() | MemoryHeld():
                return ()  # it was on its way when we gave up
            case _:
                raise Bug(f"target of a migration: {event} while {self.state.name}")

    def _read(self, phase: MigrationPhase) -> tuple[TargetCommand, ...]:
        match self.state:
            case _T.PREPARING | _T.RECEIVING:
                return self._read_while_receiving(phase)
            case _T.HOLDING:
                return self._read_while_holding(phase)
            case _T.FAILED:
                # COMMITTED: our word had won before the monitor ended. The guest is lost, and nothing of it may stay.
                decided = phase is _P.ABORTED or phase in _DECIDED_FORWARD
                return self._enter(_T.WIPING, _C.WIPE) if decided else (_C.SAY_ABORTED,)
            case _T.NEW | _T.STARTING | _T.RUNNING | _T.WIPING | _T.WIPED:
                return ()

    def _read_while_receiving(self, phase: MigrationPhase) -> tuple[TargetCommand, ...]:
        if phase is _P.ABORTED:
            return self._enter(_T.WIPING, _C.WIPE)
        if phase in _DECIDED_FORWARD:
            raise Bug("target of a migration: committed although the guest was never held here")
        return ()

    def _read_while_holding(self, phase: MigrationPhase) -> tuple[TargetCommand, ...]:
        if phase in _DECIDED_FORWARD:
            return self._enter(_T.STARTING, _C.ATTACH, _C.RUN)
        if phase is _P.ABORTED:
            return self._enter(_T.WIPING, _C.WIPE)
        return (_C.SAY_COMMITTED,)  # the source has not said PAUSED yet, or our word was lost

    def _failed(self, reason: str) -> tuple[TargetCommand, ...]:
        if self.state in {_T.PREPARING, _T.RECEIVING, _T.HOLDING}:
            self.reason = self.reason or reason
            return self._enter(_T.FAILED, _C.SAY_ABORTED)
        if self.state is _T.STARTING:
            # Committed, and the only copy is gone: nothing of it may stay, and the heartbeat will not name the runner.
            return self._enter(_T.WIPING, _C.WIPE)
        if self.state is _T.NEW:
            raise Bug(f"target of a migration: the monitor failed ({reason}) before anything was asked of it")
        return ()

    def _too_long(self) -> tuple[TargetCommand, ...]:
        if self.state in {_T.PREPARING, _T.RECEIVING}:
            self.reason = self.reason or "the time ran out"
            return self._enter(_T.FAILED, _C.SAY_ABORTED)
        return ()

    def _enter(self, state: TargetState, *commands: TargetCommand) -> tuple[TargetCommand, ...]:
        self.state = state
        return commands
