"""The keys with which one move's two QEMUs prove themselves to each other.

    make a key ─▶ the control plane signs it for this host's part in this move ─▶ QEMU loads it ─▶ the files are gone

They are good for this one move and for minutes. So a QEMU that was taken over during a move holds nothing that lasts:
with them it can neither speak as its host nor reach another move.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from workers.domain.names import HostId, MigrationId, move_name

# RFC 7919, ffdhe2048. Without this file QEMU makes parameters of its own, which stalls it for up to a second.
DIFFIE_HELLMAN: Final = """\
-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
"""


@dataclass(frozen=True)
class MoveKeys:
    """What one monitor proves itself with, and by whom it knows the other; all PEM."""

    key: str = field(repr=False)
    certificate: str
    hosts_ca: str


def subject(host_id: HostId, migration_id: MigrationId) -> str:
    """Return how QEMU's `authz-simple` spells the subject of this host's certificate for this move."""
    return f"O=spot-runner,CN={move_name(host_id, migration_id)}"


@contextmanager
def readable_keys(keys: MoveKeys, directory: Path, user: int) -> Iterator[Path]:
    """Lay the keys out for a QEMU that runs as this user, under its own names; they are removed with the block."""
    place = directory / "tls"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o700)
    try:
        _write(place / "ca-cert.pem", keys.hosts_ca, user)
        for end in ("server", "client"):
            _write(place / f"{end}-cert.pem", keys.certificate, user)
            _write(place / f"{end}-key.pem", keys.key, user)
        _write(place / "dh-params.pem", DIFFIE_HELLMAN, user)
        _lend(place, 0o750, user)
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _write(path: Path, contents: str, user: int) -> None:
    path.touch(mode=0o600)
    path.write_text(contents)
    _lend(path, 0o640, user)


def _lend(path: Path, mode: int, user: int) -> None:
    """Let the user's own group read, so that the user cannot change what is ours."""
    os.chown(path, 0, user)
    path.chmod(mode)
