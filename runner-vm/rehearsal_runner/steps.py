"""Runs the steps of a job one after the other, as actions/runner runs `run:` steps.

One loop waits for three things at once: output of any step so far, the end of the step's shell, and the job's loss.
What a step leaves running lives on until the job ends, and what it prints is still its step's.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from rehearsal_runner.output import Output
from rehearsal_runner.stream import Stream

# What a step's process is given to end in peace.
TERM_LIMIT_S: Final = 2.0
TRACKING: Final = "RUNNER_TRACKING_ID"
# A pipe holds as much as one read takes.
DRAIN_READS: Final = 2


class Steps:
    """The work of one job."""

    def __init__(self, environment: Mapping[str, str], workspace: Path, stream: Stream) -> None:
        """`environment` must hold `RUNNER_TEMP` and a `RUNNER_TRACKING_ID` that is this job's alone."""
        self._environment = dict(environment)
        self._workspace = workspace
        self._stream = stream
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._is_stopped = False

    def watch(self, stopping: threading.Event) -> None:
        """End whatever runs as soon as `stopping` is set."""
        threading.Thread(target=self._stop_when, args=(stopping,), name="stop", daemon=True).start()

    def _stop_when(self, stopping: threading.Event) -> None:
        stopping.wait()
        with contextlib.suppress(OSError):
            self._wake.send(b"!")

    def run(self, number: int, script: str) -> str:
        """Run one step and return its conclusion."""
        self._stream.say("started", number)
        try:
            status = self._run(number, script)
            error = f"the step ended with exit code {status}" if status else None
        except OSError as cause:
            error = f"the step could not be run: {cause}"
        if error:
            self._stream.say("line", number, text=f"Error: {error}.")
        conclusion = "failure" if error else "success"
        self._stream.say("ended", number, conclusion=conclusion)
        return conclusion

    def _run(self, number: int, script: str) -> int:
        """Run one step's script and return its exit status."""
        file = Path(self._environment["RUNNER_TEMP"]) / f"step-{number}.sh"
        file.write_text(script + "\n", encoding="utf-8")
        with self._started(file) as shell:
            output = self._attach(shell, number)
            self._follow(shell)
            self._drain(output)
        return shell.returncode

    @contextlib.contextmanager
    def _started(self, file: Path) -> Iterator[subprocess.Popen[bytes]]:
        """Start a step's shell in a group of its own; its pipe stays open after the block."""
        shell = subprocess.Popen(
            ["bash", "-e", str(file)],
            cwd=self._workspace,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield shell
        finally:
            if shell.poll() is None:
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()

    def _attach(self, shell: subprocess.Popen[bytes], number: int) -> Output:
        if shell.stdout is None:
            raise RuntimeError("a shell was started without a pipe")
        output = Output(os.dup(shell.stdout.fileno()), number)
        shell.stdout.close()
        self._selector.register(output.descriptor, selectors.EVENT_READ, output)
        return output

    def _follow(self, shell: subprocess.Popen[bytes]) -> None:
        """Pass on what is printed until the shell has ended or the job is lost."""
        ended = os.pidfd_open(shell.pid)
        self._selector.register(ended, selectors.EVENT_READ)
        try:
            while True:
                ready = [key.fileobj for key, _ in self._read_ready()]
                if self._woken in ready:
                    self._is_stopped = True
                    self._terminate(shell)
                    return
                if ended in ready:
                    shell.wait()
                    return
        finally:
            self._selector.unregister(ended)
            os.close(ended)

    def _read_ready(self) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for something, pass on all output that is there, and return what was ready."""
        ready = self._selector.select()
        for key, _ in ready:
            if isinstance(key.data, Output):
                self._pass_on(key.data)
        return ready

    def _pass_on(self, output: Output) -> None:
        """Pass on what can be read at once."""
        for line in output.lines():
            self._stream.say("line", output.step, text=line)
        if not output.is_open:
            self._selector.unregister(output.descriptor)
            os.close(output.descriptor)

    def _drain(self, output: Output) -> None:
        """Read what the shell left in its pipe, but not all that something else may go on writing there."""
        for _ in range(DRAIN_READS):
            if output.is_open:
                self._pass_on(output)
        for line in output.last():
            self._stream.say("line", output.step, text=line)

    def _terminate(self, shell: subprocess.Popen[bytes]) -> None:
        """End a shell and its group."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                shell.wait(TERM_LIMIT_S)
                return

    @property
    def is_stopped(self) -> bool:
        """The job was lost, so no further step may run."""
        return self._is_stopped

    def end(self) -> None:
        """End everything that the steps left running, and pass on the last of what it printed."""
        self._end_processes()
        for key in list(self._selector.get_map().values()):
            if isinstance(key.data, Output):
                self._drain(key.data)

    def _end_processes(self) -> None:
        tracking = f"{TRACKING}={self._environment[TRACKING]}".encode()
        end = time.monotonic() + TERM_LIMIT_S
        sign: Any = signal.SIGTERM
        while left := [pid for pid in processes() if tracking in environment_of(pid)]:
            for pid in left:
                with contextlib.suppress(OSError):
                    os.kill(pid, sign)
            threading.Event().wait(0.05)
            if time.monotonic() > end:
                if sign is signal.SIGKILL:
                    return
                sign, end = signal.SIGKILL, end + TERM_LIMIT_S


def processes() -> list[int]:
    """Return the ids of all processes but this one."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if pid != os.getpid()]


def environment_of(pid: int) -> list[bytes]:
    """Return a process's environment, empty if it cannot be read or is gone."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
