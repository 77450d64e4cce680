"""The play: a server in a microVM, a steady client outside, and its host taken away as often as was asked for."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from workers.domain.errors import Unreachable
from workers.domain.events import Happening
from workers.domain.labels import SERVED
from workers.domain.names import HostId
from workers.rehearsal import places as at
from workers.rehearsal.pulse import Pulse, stalled_ms
from workers.rehearsal.screen import Screen
from workers.rehearsal.stage import Stage
from workers.rehearsal.steady.client import CONNECTED
from workers.rehearsal.story import REPOSITORY
from workers.rehearsal.watch import Watch

Json = dict[str, Any]

CLIENT: Final = "steady"
RATE: Final = 500.0
GUEST_PORT: Final = 7379
READY_HOSTS: Final = 2
NOTICE_S: Final = 60.0
CONNECTED_LIMIT_S: Final = 120.0
SETTLE_LIMIT_S: Final = 120.0
END_LIMIT_S: Final = 60.0
# The server is reached through a connection that the guest has dialled: what came in would have to be let in first.
SERVE: Final = " && ".join(
    (
        f"redis-server --port {GUEST_PORT} --save '' --appendonly no --daemonize yes --dir /tmp",
        f"timeout 20 sh -c 'until redis-cli -p {GUEST_PORT} ping; do sleep 0.2; done'",
        f"socat TCP:{at.INTERNET_SERVERS}:{at.STEADY_PORT},nodelay TCP:127.0.0.1:{GUEST_PORT},nodelay",
    )
)


@dataclass(frozen=True)
class SteadyOptions:
    """What the user has asked for."""

    moves: int = 10
    name: str = "steady"
    json: Path | None = None


class Steady:
    """One play."""

    def __init__(self, stage: Stage, options: SteadyOptions, screen: Screen, pulse: Pulse) -> None:
        self.stage = stage
        self.options = options
        self.screen = screen
        self.pulse = pulse
        self.watch = Watch(stage, screen, tells_events=False)
        self.figures = stage.places.state / "steady.json"

    def play(self) -> Json:
        """Move as often as was asked for, and return the report. Raises `Unreachable`."""
        self.watch.open(READY_HOSTS)
        listen = ("--listen", f"{at.INTERNET_SERVERS}:{at.STEADY_PORT}", "--rate", str(RATE))
        module = (sys.executable, "-m", "workers.rehearsal.steady.client")
        self.client = self.stage.start(CLIENT, "internet", (*module, *listen, "--figures", str(self.figures)))
        github = self.stage.github
        (self.job,) = self.stage.in_internet(lambda: github.start_jobs(REPOSITORY, [SERVED], [("Serve", SERVE)]))
        self._wait(lambda: CONNECTED in self.client.last_words(), CONNECTED_LIMIT_S, "the guest's server is reached")
        self.screen.webhook_at = time.time()
        for number in range(self.options.moves):
            self._move(number)
        return self._concluded()

    def _move(self, number: int) -> None:
        host = self._host()
        self.stage.take_away(host, NOTICE_S)
        self.screen.line(f"{number + 1} of {self.options.moves}: {host} is taken back in {NOTICE_S:.0f} s")
        follower, store = self.watch.follower, self.stage.store

        def is_settled() -> bool:
            is_gone = follower.has(Happening.HOST_TERMINATED, host_id=host)
            return is_gone and not any(row.source_id == host for row in store.migrations.open())

        self._wait(is_settled, NOTICE_S + SETTLE_LIMIT_S, f"{host} is gone")

    def _host(self) -> HostId:
        attempt = self.stage.in_internet(lambda: self.stage.github.job(self.job))["attempts"][-1]
        runner = self.stage.store.runner_named(attempt["runner_name"])
        if runner is None or runner.host_id is None or attempt["conclusion"] is not None:
            raise Unreachable(f"job {self.job} does not run any more")
        return runner.host_id

    def _concluded(self) -> Json:
        self.stage.processes.end(self.client)
        self._wait(self.figures.exists, END_LIMIT_S, "the client has left its figures")
        told: Json = json.loads(self.figures.read_text())
        ended_at, stall_ms = told.pop("longest_stall_at"), told["longest_stall_ms"]
        stalled = stalled_ms(self.pulse.stalls, ended_at - stall_ms / 1000, ended_at)
        moves = self.watch.follower.count(Happening.MIGRATION_COMMITTED)
        return {"moves": moves, **told, "longest_stall_stalled_ms": stalled}

    def _wait(self, condition: Callable[[], bool], limit_s: float, what: str) -> None:
        end = time.monotonic() + limit_s
        with self.screen.waiting(f"waiting until {what}"):
            while not condition():
                self.watch.look_once(end, f"not yet: {what}")
