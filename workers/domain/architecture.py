"""What kind of processor guests have: asked for by labels, named by packages, offers and host classes."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Architecture(StrEnum):
    X86_64 = "x86_64"
    ARM64 = "arm64"


# The others are refused by name wherever they are named.
BUILT: Final = frozenset({Architecture.X86_64})


def unbuilt(architecture: Architecture | None) -> str | None:
    """Say that nothing runs on this architecture yet, None if it does or if none is named."""
    if architecture is None or architecture in BUILT:
        return None
    return f"{architecture} is not built yet; take {' or '.join(sorted(BUILT))}"
