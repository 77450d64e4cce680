"""QEMU at both ends of a migration, with its habits; the daemons hear of them by events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from workers.host import source as src
from workers.host import target as tgt
from workers.host.source import SourceCommand
from workers.host.target import TargetCommand


class Broken(AssertionError):
    """A promise was broken."""


@dataclass
class SourceMonitor:
    """QEMU at the source.

    `state`: running, mirroring, mirrored, copying, preswitch, closing, closed, switching, postmigrate, dead.
    """

    rng: Random
    tell: Callable[[src.SourceEvent], None]
    state: str = "running"

    @property
    def guest_runs(self) -> bool:
        return self.state in {"running", "mirroring", "mirrored", "copying"}

    def carry_out(self, command: SourceCommand) -> None:
        match command:
            case SourceCommand.START_MIRROR:
                self.state = "mirroring"
            case SourceCommand.START_MEMORY:
                self.state = "copying"
            case SourceCommand.END_MIRROR:
                self.state = "closing"
            case SourceCommand.SWITCH_OVER:
                self.state = "switching"
            case SourceCommand.CANCEL:
                self._cancel()
            case SourceCommand.RESUME:
                if self.state == "dead":
                    raise Broken("the guest was ended and then asked to run")
                self.state = "running"
                self.tell(src.GuestResumed())
            case SourceCommand.WIPE:
                self.state = "dead"
                self.tell(src.GuestWiped())
            case _:
                raise Broken(f"{command.name} is nothing that a monitor does")

    def _cancel(self) -> None:
        too_late = self.state == "postmigrate" or (self.state == "switching" and self.rng.random() < 0.5)
        if too_late:
            self.state = "postmigrate"
            self.tell(src.MemoryCompleted())
        else:
            self.state = "running"
            self.tell(src.MonitorFailed("cancelled"))

    def go_on(self) -> None:
        """Make progress, or fail and let the guest run again, as QEMU does."""
        after: dict[str, tuple[str, src.SourceEvent]] = {
            "mirroring": ("mirrored", src.MirrorReady()),
            "copying": ("preswitch", src.SwitchoverReached()),
            "closing": ("closed", src.MirrorEnded()),
            "switching": ("postmigrate", src.MemoryCompleted()),
        }
        if self.state in after:
            self.state, event = after[self.state]
            self.tell(event)

    def fail(self) -> None:
        if self.state in {"mirroring", "copying", "preswitch", "switching"}:
            self.state = "running"
            self.tell(src.MonitorFailed("connection lost"))


@dataclass
class TargetMonitor:
    """QEMU at the target: none, incoming, held, running or dead."""

    tell: Callable[[tgt.TargetEvent], None]
    state: str = "none"
    attached: bool = False
    announced_attached: bool = False
    broke: bool = False
    """It ended by a fault, not by a command."""

    @property
    def guest_runs(self) -> bool:
        return self.state == "running"

    def carry_out(self, command: TargetCommand) -> None:
        match command:
            case TargetCommand.LISTEN:
                self.state = "incoming"
                self.tell(tgt.Listening())
            case TargetCommand.ATTACH:
                self.attached = True
            case TargetCommand.RUN:
                self._run()
            case TargetCommand.WIPE:
                self.state, self.attached = "dead", False
                self.tell(tgt.GuestWiped())
            case _:
                raise Broken(f"{command.name} is nothing that a monitor does")

    def _run(self) -> None:
        if self.state in {"none", "incoming"}:
            raise Broken(f"a guest was let run that was {self.state}")
        self.state = "dead" if self.state == "dead" else "running"
        self.tell(tgt.MonitorFailed("dead") if self.state == "dead" else tgt.GuestRuns())

    def load(self) -> None:
        """Everything has arrived; QEMU announces the guest by itself now."""
        if self.state != "incoming":
            return
        self.state = "held"
        self.announced_attached |= self.attached
        self.tell(tgt.MemoryHeld())

    def fail(self) -> None:
        if self.state in {"incoming", "held"}:
            self.state, self.broke = "dead", True
            self.tell(tgt.MonitorFailed("load failed"))
