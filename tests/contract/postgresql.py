"""A PostgreSQL of our own: in a new directory, on a Unix socket only, gone afterwards."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_LIMIT_S = 60


def why_not() -> str | None:
    """Say what is missing on this machine, or None."""
    if not _programs():
        return "no PostgreSQL server here (Debian package postgresql)"
    if importlib.util.find_spec("psycopg") is None:
        return "no driver for PostgreSQL here (Python package psycopg)"
    return None


@contextmanager
def running_server() -> Iterator[str]:
    """Start a server; gives the directory of its socket, where the user is `postgres` and needs no password."""
    programs = _programs()[-1]
    directory = Path(tempfile.mkdtemp(prefix="spot-runner-store-", dir="/tmp"))
    try:
        if os.geteuid() == 0:
            shutil.chown(directory, "postgres")
        cluster = str(directory / "cluster")
        _run(programs / "initdb", "-A", "trust", "-U", "postgres", "--no-sync", "-D", cluster)
        options = f"-k {directory} -h '' -F"
        _run(programs / "pg_ctl", "-D", cluster, "-o", options, "-l", str(directory / "log"), "-w", "start")
        try:
            yield str(directory)
        finally:
            _run(programs / "pg_ctl", "-D", cluster, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(directory)


def _programs() -> list[Path]:
    found = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return [path.parent for path in sorted(found, key=lambda path: float(path.parts[-3]))]


def _run(*command: Path | str) -> None:
    """Run as `postgres` if we are root, because the server refuses to be."""
    user = pwd.getpwnam("postgres").pw_name if os.geteuid() == 0 else None
    subprocess.run(
        [str(part) for part in command],
        user=user,
        cwd="/",
        check=True,
        timeout=START_LIMIT_S,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
