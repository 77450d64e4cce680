"""Run a simulated GitHub: one gunicorn worker, because the state is in its memory, with threads for the long polls."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from flask import Flask
from gunicorn.app.base import BaseApplication

from workers.rehearsal.github.app import create_simulator
from workers.rehearsal.github.rates import Rates
from workers.rehearsal.github.settings import Settings
from workers.rehearsal.github.world import Limits

# A long poll holds a thread for up to 50 s, and a busy runner has three calls open at most.
THREADS: Final = 128


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn around one application that is made in the worker, where its threads must be."""

    def __init__(self, options: Mapping[str, Any], settings: Settings) -> None:
        self._options = options
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        return create_simulator(self._settings)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m workers.rehearsal.github", description=__doc__)
    parser.add_argument("--listen", required=True, help="address:port")
    parser.add_argument("--url", help="how callers reach it, http://LISTEN by default")
    parser.add_argument("--webhook-url", required=True)
    parser.add_argument("--webhook-secret-file", type=Path, required=True)
    parser.add_argument("--app-key-file", type=Path, required=True, help="the public half of the App's key, PEM")
    parser.add_argument("--app-id", type=int, default=1)
    parser.add_argument("--lock-seconds", type=float, default=600, help="how long a job lives without its runner")
    parser.add_argument("--idle-seconds", type=float, default=120, help="how long an unused registration lives")
    parser.add_argument("--token-seconds", type=float, default=3600, help="how long an access token lives")
    parser.add_argument("--requests-per-hour", type=int, default=5000, help="of one installation; 0: no limit")
    parser.add_argument("--points-per-minute", type=int, default=900, help="of one App; 0: no limit")
    parser.add_argument("--senders", type=int, default=1, help="deliveries on their way at once; one keeps their order")
    parser.add_argument("--checked-every", type=int, default=1, help="one in so many calls of a kind is checked")
    parser.add_argument("--state-dir", type=Path, help="where deliveries.jsonl is written")
    return parser.parse_args()


def main() -> None:
    """Serve until a signal comes."""
    given = arguments()
    limits = Limits(
        lock=timedelta(seconds=given.lock_seconds),
        idle=timedelta(seconds=given.idle_seconds),
        token=timedelta(seconds=given.token_seconds),
    )
    settings = Settings(
        url=given.url or f"http://{given.listen}",
        webhook_url=given.webhook_url,
        webhook_secret=given.webhook_secret_file.read_text().strip(),
        app_key=given.app_key_file.read_text(),
        app_id=given.app_id,
        limits=limits,
        rates=Rates(given.requests_per_hour, given.points_per_minute),
        state=given.state_dir,
        senders=given.senders,
        checked_every=given.checked_every,
    )
    options = {
        "bind": given.listen,
        "worker_class": "gthread",
        "workers": 1,
        "threads": THREADS,
        "keepalive": 120,
        "timeout": 0,
        "graceful_timeout": 1,
        "control_socket_disable": True,
        "loglevel": "warning",
    }
    Server(options, settings).run()


if __name__ == "__main__":
    main()
