"""The Debians that images are made of, and what follows from which of them it is. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

# manylinux1 is what every wheel for Linux was before: made for 2.5 (PEP 513).
OLDEST_GLIBC: Final = 5
FORMER_NAMES: Final = ("manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64")


@dataclass(frozen=True)
class Debian:
    """One of its releases."""

    suite: str
    python: str
    """What its python3 is."""
    glibc: int
    """Its C library is 2.glibc, which runs wheels made for any that is not newer."""
    backports_monitor: bool
    """Its own QEMU is too old for a host (`MONITOR_MIN`); the one of its backports is not."""

    @property
    def platforms(self) -> tuple[str, ...]:
        """The platforms whose wheels it runs, as pip calls them."""
        return (
            *(f"manylinux_2_{minor}_x86_64" for minor in range(self.glibc, OLDEST_GLIBC - 1, -1)),
            *FORMER_NAMES,
        )


OLDEST: Final = "debian-12"
DEBIANS: Final[Mapping[str, Debian]] = {
    OLDEST: Debian("bookworm", "3.11", 36, backports_monitor=True),
    "debian-13": Debian("trixie", "3.13", 41, backports_monitor=False),
}
