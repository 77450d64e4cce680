"""A command that is told to end cleans up, and is not disturbed while it does."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

COMMAND = """
import signal, sys
from workers.bootstrap.unwinding import unwound_on_sigterm

def tell(word):
    print(word, flush=True)

with unwound_on_sigterm():
    try:
        tell("working")
        signal.pause()
    finally:
        tell("cleaning")
        sys.stdin.readline()
        tell("clean")
"""


def test_the_first_signal_unwinds_and_the_second_does_not_disturb_that() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND], cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"working\n"
        running.send_signal(signal.SIGTERM)
        assert running.stdout.readline() == b"cleaning\n"
        running.send_signal(signal.SIGTERM)
        said, _ = running.communicate(b"\n", timeout=60)
    assert (running.returncode, said) == (128 + signal.SIGTERM, b"clean\n")
