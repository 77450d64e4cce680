"""A real Celery process for one queue whose looks are written to a file: run with QUEUE REDIS_URL FILE.

A look at what is called `held-…` ends when there is a file `released` beside that one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path

from workers.app import QUEUES
from workers.bootstrap.looks import Row
from workers.bootstrap.rounds import Rounds
from workers.tasks import work
from workers.telemetry import start_logging


def main(queue: str, redis_url: str, path: Path) -> None:
    start_logging(queue)

    def note(what: str) -> None:
        with path.open("a") as file:
            file.write(f"{queue} {what}\n")

    def look_at(kind: str, one: str) -> None:
        note(f"{kind} {one}")
        while one.startswith("held") and not path.with_name("released").exists():
            time.sleep(0.01)

    def due() -> Iterable[Row]:
        note("sweep of what is swept")
        yield "job", f"swept-{queue}"

    work(queue, redis_url, Rounds(look_at, dict.fromkeys(QUEUES, due), {}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
