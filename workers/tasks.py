"""Celery's tasks: each is a name, ids and one call, harmless when doubled.

`python -m workers.tasks evacuation|control|cloud` works on one queue, `python -m workers.tasks beat` sends the sweeps.
"""

from __future__ import annotations

import sys
import threading
import time
import warnings
from typing import Final

from celery import Celery
from celery.signals import worker_shutting_down

from workers.app import EVACUATION, QUEUES, worker_app
from workers.bootstrap.control import open_rounds
from workers.bootstrap.listening import open_listening
from workers.bootstrap.rounds import Rounds, Upkeep
from workers.settings import ControlSettings
from workers.telemetry import start_logging

# A hint's task only says what is to be looked at, so that hints never pile up in Redis, each with rows that others name
# as well; a sweep's waits until it is over, and the beat sends the next one after 15 s.
TASKS_AT_ONCE: Final = 8


def with_tasks(app: Celery, rounds: Rounds, upkeep: Upkeep) -> Celery:
    """Give the app its six tasks."""

    @app.task(name="look_at_job")
    def look_at_job(*ids: str) -> None:
        rounds.look_at("job", ids)

    @app.task(name="look_at_runner")
    def look_at_runner(*ids: str) -> None:
        rounds.look_at("runner", ids)

    @app.task(name="look_at_host")
    def look_at_host(*ids: str) -> None:
        rounds.look_at("host", ids)

    @app.task(name="look_at_migration")
    def look_at_migration(*ids: str) -> None:
        rounds.look_at("migration", ids)

    @app.task(name="look_at_installation")
    def look_at_installation(*ids: str) -> None:
        rounds.look_at("installation", ids)

    @app.task(name="sweep")
    def sweep(_queue: str) -> None:
        upkeep.hear_beat(time.monotonic())

    return app


def work(queue: str, redis_url: str, rounds: Rounds) -> None:
    """Work on one queue until SIGTERM."""
    upkeep = Upkeep(rounds, queue)
    app = with_tasks(worker_app(redis_url), rounds, upkeep)
    threading.Thread(target=upkeep.run, name="upkeep", daemon=True).start()
    # Else a process that is told to end would first do all that it has in hand; whoever comes next begins with a sweep.
    # It is told in a signal's handler, where to wait for a lock could be to wait for oneself: a thread does the rest.
    told_to_end = threading.Event()
    threading.Thread(target=_close_when, args=(told_to_end, rounds), name="closing", daemon=True).start()
    worker_shutting_down.connect(lambda **_: told_to_end.set(), weak=False)
    # It warns root of hostile pickles; we accept nothing but JSON.
    warnings.filterwarnings("ignore", message="You're running the worker with superuser")
    try:
        app.worker_main(
            [
                *("--quiet", "worker", "--queues", queue, "--pool", "threads", "--concurrency", str(TASKS_AT_ONCE)),
                *("--hostname", f"{queue}@%h", "--loglevel", "INFO"),
                *("--without-gossip", "--without-mingle", "--without-heartbeat"),
            ]
        )
    finally:
        upkeep.stop()
        rounds.close()


def _close_when(told_to_end: threading.Event, rounds: Rounds) -> None:
    told_to_end.wait()
    rounds.close()


def beat(settings: ControlSettings) -> None:
    """Send the sweeps until SIGTERM. Two beats do no harm, and none does not either, only later."""
    app = worker_app(settings.redis_url)
    app.start(
        ["--quiet", "beat", "--schedule", str(settings.home / "beat.schedule"), "--pidfile", "", "--loglevel", "INFO"]
    )


def main(role: str) -> None:
    """Run one process of `spot-runner worker`."""
    start_logging(role)
    settings = ControlSettings()
    listening = open_listening(settings) if role == EVACUATION else None
    if listening is not None:
        threading.Thread(target=listening.run, name="listening", daemon=True).start()
    if role in QUEUES:
        work(role, settings.redis_url, open_rounds(settings))
    else:
        beat(settings)


if __name__ == "__main__":
    main(sys.argv[1])
