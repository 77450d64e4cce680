"""What several processes do to one directory at once."""

from __future__ import annotations

from pathlib import Path

from workers.identity import Authority


def opened_ca(directory: str) -> tuple[str, str]:
    """Open the issuers and return both certificates."""
    authority = Authority.open(Path(directory))
    return authority.control_ca, authority.hosts_ca
