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
def running_server(*, is_durable: bool = False) -> Iterator[str]:
    """Start a server; gives the directory of its socket, where the user is `postgres` and needs no password.

    `is_durable`: what it has committed outlives a power cut, which no test needs.
    """
    directory = Path(tempfile.mkdtemp(prefix="spot-runner-store-", dir="/tmp"))
    try:
        if os.geteuid() == 0:
            shutil.chown(directory, "postgres")
        _run("initdb", "-A", "trust", "-U", "postgres", "--no-sync", "-D", str(directory / "cluster"))
        options = f"-k {directory} -h ''" + ("" if is_durable else " -F")
        (directory / "options").write_text(options)
        start(directory)
        try:
            yield str(directory)
        finally:
            _run("pg_ctl", "-D", str(directory / "cluster"), "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(directory)


def start(directory: Path) -> None:
    """Start the server in this directory, also after it was killed: nobody may have waited for its first process."""
    for lock in (directory / "cluster" / "postmaster.pid", *directory.glob(".s.PGSQL.*.lock")):
        lock.unlink(missing_ok=True)
    options = (directory / "options").read_text()
    _run("pg_ctl", "-D", str(directory / "cluster"), "-o", options, "-l", str(directory / "log"), "-w", "start")


def postmaster(directory: Path) -> int:
    """Return the server's first process, whose children all the others are."""
    return int((directory / "cluster" / "postmaster.pid").read_text().split()[0])


def _programs() -> list[Path]:
    found = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return [path.parent for path in sorted(found, key=lambda path: float(path.parts[-3]))]


def _run(program: str, *arguments: str) -> None:
    """Run as `postgres` if we are root, because the server refuses to be."""
    user = pwd.getpwnam("postgres").pw_name if os.geteuid() == 0 else None
    subprocess.run(
        [str(_programs()[-1] / program), *arguments],
        user=user,
        cwd="/",
        check=True,
        timeout=START_LIMIT_S,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
