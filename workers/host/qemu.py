"""One QEMU process: how it is started and found again, and the words that it understands.

    start ─▶ (restore │ migrate-incoming │ boot) ─▶ cont ⇄ stop ─▶ quit │ kill ─▶ ended
      └─ a daemon that was started again: adopt ─▶ the same process, the same words

A QEMU outlives the daemon that started it: it has a session of its own, its monitor socket lies in its directory, and
process id and start time name it for good. Everything that it needs is handed in as open file descriptors, so it may
be unable to open anything by itself.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qemu.qmp import ConnectError, ExecInterruptedError, ExecuteError, QMPClient, QMPError
from qemu.qmp.events import EventListener

from workers.domain.errors import Refused, TryLater, Unreachable
from workers.host.machine import Machine, Wiring, machine_arguments
from workers.host.processes import ProcessName, process_name

PROGRAM: Final = "qemu-system-x86_64"
# A process that was killed goes through with its end in this time.
DYING_LIMIT_S: Final = 2.0
# A monitor that is silent for so long is stuck; the longest honest answer so far took a second, on a busy machine.
COMMAND_LIMIT_S: Final = 10.0
START_LIMIT_S: Final = 20.0


Spawn = Callable[[Sequence[str], Sequence[int], Path], "subprocess.Popen[bytes]"]
"""Start a program with these inherited files; its output goes to the end of that file."""


def spawn_plainly(arguments: Sequence[str], fds: Sequence[int], log: Path) -> subprocess.Popen[bytes]:
    """Start a program as ourselves, in a session of its own, so that it outlives us."""
    with log.open("ab") as output:
        return subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=fds, start_new_session=True
        )


@dataclass(frozen=True)
class QemuEvent:
    """Something that QEMU said by itself."""

    name: str
    at: float
    """Unix time, by QEMU's clock, which is this machine's."""
    facts: Mapping[str, object]


class Qemu:
    """One running QEMU. Raises `Unreachable` when it does not answer or has ended, `Refused` when it says no."""

    def __init__(self, directory: Path, name: ProcessName, child: subprocess.Popen[bytes] | None) -> None:
        """Use `start` or `adopt`."""
        self.directory = directory
        self.name = name
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._child = child
        self._pidfd = os.pidfd_open(name.pid)
        self._client = QMPClient()
        self._client.events.event_filter = lambda _event: False  # the client would keep every event for ever
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_end)

    @classmethod
    async def start(cls, machine: Machine, wiring: Wiring, directory: Path, spawn: Spawn = spawn_plainly) -> Qemu:
        """Start a QEMU whose sockets and log lie in this directory; returns when its monitor answers."""
        with _listening(directory / "monitor") as monitor, _listening(directory / "agent") as agent:
            arguments = [
                PROGRAM,
                "-name",
                "debug-threads=on",
                *_channels(monitor, agent),
                *machine_arguments(machine, wiring),
            ]
            fds = (*wiring.fds, monitor, agent)
            child = await asyncio.to_thread(spawn, arguments, fds, directory / "qemu.log")
        name = process_name(child.pid)
        if name is None:
            child.wait()
            raise Refused(f"QEMU ended at once: {_last_words(directory)}")
        qemu = cls(directory, name, child)
        try:
            await qemu.connect()
        except Unreachable as error:
            await qemu.kill()
            raise Refused(f"QEMU did not start: {_last_words(directory) or error}") from error
        return qemu

    @classmethod
    async def adopt(cls, directory: Path, name: ProcessName) -> Qemu | None:
        """Take over a QEMU that an earlier daemon started; None if it has ended."""
        if process_name(name.pid) != name:
            return None
        try:
            qemu = cls(directory, name, child=None)
        except ProcessLookupError:
            return None
        try:
            await qemu.connect()
            await qemu.status()
        except Unreachable:
            await asyncio.wait((qemu.ended,), timeout=DYING_LIMIT_S)
            if not qemu.ended.done():
                raise
            return None  # it was about to end when we came
        return qemu

    async def connect(self) -> None:
        """Open the monitor; it serves one client at a time."""
        try:
            async with asyncio.timeout(START_LIMIT_S):
                await self._client.connect(str(self.directory / "monitor"))
        except (TimeoutError, ConnectError, OSError, EOFError) as error:
            raise Unreachable(f"the monitor in {self.directory} does not answer: {error}") from error

    async def release(self) -> None:
        """Let go of the monitor and leave QEMU running, for the next daemon to adopt."""
        if not self.ended.done():
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
        await self._disconnect()
        if self._child is not None:
            # Else its collection warns of a child that nobody waited for, which is what we want here.
            self._child.returncode = 0

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        *,
        limit_s: float = COMMAND_LIMIT_S,
        out_of_band: bool = False,
    ) -> object:
        """Let QEMU carry out one command and return its answer; `out_of_band` is answered even by a QEMU that hangs."""
        try:
            async with asyncio.timeout(limit_s):
                return await self._client.execute(command, arguments, oob=out_of_band)
        except ExecuteError as error:
            raise Refused(f"QEMU refused {command}: {error}") from error
        except (TimeoutError, ExecInterruptedError, QMPError, EOFError, OSError) as error:
            raise Unreachable(f"QEMU did not answer {command}: {error}") from error

    async def give(self, name: str, fd: int) -> None:
        """Hand an open file to QEMU under a name, for a command that takes one."""
        try:
            self._client.send_fd_scm(fd)
        except (QMPError, OSError) as error:
            raise Unreachable(f"QEMU does not take a file: {error}") from error
        await self.execute("getfd", {"fdname": name})

    @contextmanager
    def hearing(self, *names: str) -> Iterator[Hearing]:
        """Hear these events from now on, so that none is missed between a command and the wait for its outcome."""
        with self._client.listener(names) as listener:
            yield Hearing(listener, self.ended)

    async def status(self) -> str:
        """Return QEMU's run state, for example `running`, `paused`, `inmigrate`, `postmigrate`."""
        answer = await self.execute("query-status")
        return str(answer["status"]) if isinstance(answer, dict) else "unknown"

    async def migration(self) -> Mapping[str, object]:
        """Return what `query-migrate` says; `status` is missing before the first migration."""
        answer = await self.execute("query-migrate")
        return answer if isinstance(answer, dict) else {}

    async def capabilities(self, **wanted: bool) -> None:
        """Switch capabilities of the migration; hyphens are written as underscores."""
        wishes = [{"capability": name.replace("_", "-"), "state": state} for name, state in wanted.items()]
        await self.execute("migrate-set-capabilities", {"capabilities": wishes})

    async def run(self) -> float:
        """Let the guest run; return the Unix time at which it did."""
        with self.hearing("RESUME") as events:
            await self.execute("cont")
            return (await events.next()).at

    async def restore(self, state: int) -> None:
        """Load the device state from this open file; memory is there already. The guest stands still afterwards."""
        await self.capabilities(x_ignore_shared=True, events=True)
        await self.give("state", state)
        with self.hearing("MIGRATION") as events:
            await self.execute("migrate-incoming", {"uri": "fd:state"})
            await events.migration("completed")
        await self.capabilities(x_ignore_shared=False)

    async def save(self, state: int) -> None:
        """Stop the guest and write its device state to this open file; its memory is in the template's file."""
        await self.execute("stop")
        await self.capabilities(x_ignore_shared=True, events=True)
        await self.give("state", state)
        with self.hearing("MIGRATION") as events:
            await self.execute("migrate", {"uri": "fd:state"})
            await events.migration("completed")

    async def quit(self) -> None:
        """End QEMU in good order, or kill it if it does not obey."""
        try:
            await self.execute("quit", limit_s=2.0)
            async with asyncio.timeout(2.0):
                await asyncio.shield(self.ended)
        except (TryLater, Refused, TimeoutError):
            await self.kill()
        await self._disconnect()

    async def kill(self) -> None:
        """End QEMU at once, whatever it does; one that has ended is a success."""
        if not self.ended.done():
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        await asyncio.shield(self.ended)
        await self._disconnect()

    async def _disconnect(self) -> None:
        try:
            await self._client.disconnect()
        except (QMPError, EOFError, OSError):
            return  # how the connection ended does not matter any more

    def _on_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        if self._child is not None:
            self._child.wait()
        self.ended.set_result(None)


class Hearing:
    """Events that were asked for, in their order."""

    def __init__(self, listener: EventListener, ended: asyncio.Future[None]) -> None:
        self._listener = listener
        self._ended = ended

    async def next(self, limit_s: float = COMMAND_LIMIT_S) -> QemuEvent:
        """Return the next event. Raises `Unreachable` if QEMU ends or the limit passes before it comes."""
        waiting = asyncio.ensure_future(self._listener.get())
        try:
            await asyncio.wait((waiting, self._ended), timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise Unreachable("QEMU has ended" if self._ended.done() else "QEMU said nothing in time")
            return _event(waiting.result())
        finally:
            waiting.cancel()

    async def every(self) -> AsyncIterator[QemuEvent]:
        """Yield events until QEMU ends."""
        while not self._ended.done():
            try:
                yield await self.next(limit_s=3600.0)
            except Unreachable:
                continue

    async def migration(self, wanted: str, limit_s: float = 60.0) -> QemuEvent:
        """Wait for this status of a migration. Raises `Refused` if the migration fails instead."""
        while True:
            event = await self.next(limit_s)
            status = event.facts.get("status")
            if status == wanted:
                return event
            if status in {"failed", "cancelled"}:
                raise Refused(f"the migration has {status}")


def _event(message: Mapping[str, object]) -> QemuEvent:
    moment, facts = message.get("timestamp"), message.get("data")
    at = moment["seconds"] + moment["microseconds"] / 1e6 if isinstance(moment, dict) else 0.0
    return QemuEvent(str(message["event"]), at, facts if isinstance(facts, dict) else {})


def _channels(monitor: int, agent: int) -> list[str]:
    return [
        *("-chardev", f"socket,id=monitor,fd={monitor},server=on,wait=off", "-mon", "chardev=monitor,mode=control"),
        *("-chardev", f"socket,id=agent,fd={agent},server=on,wait=off"),
    ]


@contextmanager
def _listening(path: Path) -> Iterator[int]:
    """Make the socket before QEMU starts: a connection to it waits in the queue until QEMU is ready for it."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(4)
        yield listener.fileno()


def _last_words(directory: Path) -> str:
    log = directory / "qemu.log"
    return log.read_text(errors="replace")[-400:].strip() if log.exists() else ""
