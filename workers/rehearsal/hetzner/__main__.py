"""Serves one simulated Hetzner project, for example `python -m workers.rehearsal.hetzner --listen 127.0.0.1:8090 …`."""

from __future__ import annotations

import argparse
import signal
import threading
from datetime import timedelta
from ipaddress import IPv4Network
from pathlib import Path

from werkzeug.serving import make_server

from workers.clock import SystemClock
from workers.rehearsal.hetzner.app import Settings, Simulation
from workers.rehearsal.hetzner.project import Spans
from workers.rehearsal.hetzner.rates import REQUESTS_PER_HOUR


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m workers.rehearsal.hetzner", description=__doc__)
    parser.add_argument("--listen", required=True, help="address:port; the API is under /v1")
    parser.add_argument("--token-file", type=Path, required=True, help="the token that may do everything")
    parser.add_argument("--create-seconds", type=float, default=3, help="until a server is made")
    parser.add_argument("--start-seconds", type=float, default=5, help="until it is running, after that")
    parser.add_argument("--requests-per-hour", type=int, default=REQUESTS_PER_HOUR)
    parser.add_argument("--network", type=IPv4Network, help="where servers' addresses are from, if they are to be real")
    return parser.parse_args()


def main() -> None:
    """Serve until a signal comes."""
    given = arguments()
    spans = Spans(create=timedelta(seconds=given.create_seconds), start=timedelta(seconds=given.start_seconds))
    settings = Settings((given.token_file.read_text().strip(),), (), spans, given.requests_per_hour, given.network)
    address, _, port = given.listen.rpartition(":")
    server = make_server(address, int(port), Simulation(settings, SystemClock()).flask, threaded=True)
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()
    server.server_close()


if __name__ == "__main__":
    main()
