"""What lies behind the relay: the echo server, and the repository that `git daemon` serves.

A message to the echo server is a line `<number> <rest>`; the answer is `<number> <Unix time at the server>`, so that
gaps can be read off one clock that never stands still, whatever happens to the guest's. For a second after the bell was
rung (a signal) a third word, `end`, tells whoever works as long as he is let to come to his end.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import time
from pathlib import Path
from typing import Final

from workers.rehearsal.commands import run
from workers.rehearsal.places import GIT_PORT, INTERNET_SERVERS

REPOSITORY: Final = "job.git"
JOB_FILES: Final = Path(__file__).parent / "job"
CLONE_URL: Final = f"git://{INTERNET_SERVERS}:{GIT_PORT}/{REPOSITORY}"
# A line of ours is 30 characters; whoever sends more is not ours.
LINE_MAX: Final = 256
BELL: Final = signal.SIGUSR1
# Longer than any gap of a connection, so that every job hears it.
RING_S: Final = 1.0


def make_repository(folder: Path) -> Path:
    """Make a bare repository with the job's files below `folder`, and return it."""
    work, bare = folder / "work", folder / REPOSITORY
    shutil.copytree(JOB_FILES, work, ignore=shutil.ignore_patterns("__*"))
    author = ("-c", "user.name=rehearsal", "-c", "user.email=rehearsal@localhost", "-c", "commit.gpgsign=false")
    run("git", "init", "--quiet", "--initial-branch=main", folder=work)
    run("git", "add", ".", folder=work)
    run("git", *author, "commit", "--quiet", "--message=The job of the rehearsal", folder=work)
    run("git", "clone", "--quiet", "--bare", str(work), str(bare))
    return bare


def git_daemon(folder: Path) -> tuple[str, ...]:
    """Return the command that serves every repository below `folder`."""
    listen = (f"--listen={INTERNET_SERVERS}", f"--port={GIT_PORT}")
    return ("git", "daemon", "--reuseaddr", "--export-all", f"--base-path={folder}", *listen, str(folder))


class Echo:
    """Answers, and hears the bell."""

    def __init__(self) -> None:
        self._rings_until = 0.0

    def ring(self) -> None:
        """Tell whoever asks within the next second."""
        self._rings_until = time.monotonic() + RING_S

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer every line of one connection until it ends."""
        try:
            while line := await reader.readline():
                number = line.split(maxsplit=1)[0].decode(errors="replace")
                bell = " end" if time.monotonic() < self._rings_until else ""
                writer.write(f"{number} {time.time():.6f}{bell}\n".encode())
                await writer.drain()
        except (ConnectionError, ValueError, IndexError):
            pass  # a broken or a foreign connection ends, the others go on
        finally:
            writer.close()


async def serve_echo(address: str, port: int) -> None:
    """Serve until the program is ended."""
    echo = Echo()
    asyncio.get_running_loop().add_signal_handler(BELL, echo.ring)
    server = await asyncio.start_server(echo.answer, address, port, limit=LINE_MAX)
    async with server:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", required=True, help="ADDRESS:PORT of the echo server")
    address, _, port = parser.parse_args().listen.rpartition(":")
    asyncio.run(serve_echo(address, int(port)))


if __name__ == "__main__":
    main()
