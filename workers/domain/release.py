"""Releases of the runner program."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True)
class Release:
    """One release of a program."""

    version: str
    """Numbers with dots between them."""
    released: date

    def is_newer_than(self, other: Release) -> bool:
        """Say whether its version comes after the other's, number by number."""
        return _numbers(self.version) > _numbers(other.version)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))
