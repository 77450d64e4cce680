"""The keys with which one move's two QEMUs prove themselves to each other.

QEMU reads them from a directory with its own file names. They are this host's own, so they lie there only while QEMU
loads them, readable by its user alone. A QEMU that was taken over during a move could still take them out of its own
memory; they end with the host.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from workers.domain.names import HostId

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
FILES: Final[Mapping[str, str]] = {
    "ca-cert.pem": "hosts-ca.pem",
    "server-cert.pem": "certificate.pem",
    "server-key.pem": "key.pem",
    "client-cert.pem": "certificate.pem",
    "client-key.pem": "key.pem",
}
"""QEMU's name of a file -> ours."""


def subject(host_id: HostId) -> str:
    """Return how QEMU's `authz-simple` spells the subject of a host's certificate."""
    return f"O=spot-runner,CN={host_id}"


@contextmanager
def readable_keys(identity: Path, directory: Path, user: int) -> Iterator[Path]:
    """Lay the host's keys out for a QEMU that runs as this user; they are removed at the end of the block."""
    keys = directory / "tls"
    shutil.rmtree(keys, ignore_errors=True)
    keys.mkdir(mode=0o700)
    try:
        for name, ours in FILES.items():
            _write(keys / name, (identity / ours).read_bytes(), user)
        _write(keys / "dh-params.pem", DIFFIE_HELLMAN.encode(), user)
        _lend(keys, 0o750, user)
        yield keys
    finally:
        shutil.rmtree(keys, ignore_errors=True)


def _write(path: Path, contents: bytes, user: int) -> None:
    path.touch(mode=0o600)
    path.write_bytes(contents)
    _lend(path, 0o640, user)


def _lend(path: Path, mode: int, user: int) -> None:
    """Let the user's own group read, so that the user cannot change what is ours."""
    os.chown(path, 0, user)
    path.chmod(mode)
