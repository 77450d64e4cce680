"""What making an image takes from elsewhere: it is handed in, since it is what guests are made with, too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol


class Run(Protocol):
    """Runs a program to its end."""

    def __call__(self, command: Sequence[str], limit_s: float = ...) -> str:
        """Return what it printed. Raises `Unfit` with its last words."""


class MakeTar(Protocol):
    """Makes a distribution's root."""

    def __call__(self, tar: Path, suite: str, packages: Sequence[str], hooks: Path, more: Sequence[str]) -> None:
        """Make it with these packages and the scripts of `hooks`; `more` are further sources. Raises `Unfit`."""


class CopyTree(Protocol):
    """Copies sources into a root."""

    def __call__(self, source: Path, target: Path) -> None:
        """Copy them as root's own, readable by all."""
