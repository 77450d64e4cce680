"""A command that is told to end cleans up first."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def unwound_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end what runs here as an error would, so that nothing half made stays."""
    former = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def _end(signal_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal_number, signal.SIG_IGN)  # a second one must not end the cleaning up
    raise SystemExit(128 + signal_number)
