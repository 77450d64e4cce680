"""What runs inside the microVMs: a runner program and its job. It moves with its memory."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from tests.fakes.github import FakeGitHub
from workers.domain.errors import Refused
from workers.domain.hold import HoldWish
from workers.domain.messages import GuestRunnerState
from workers.domain.names import HostId, RunnerId

RENEWAL_INTERVAL = timedelta(seconds=60)


@dataclass
class Guest:
    """The memory of one microVM."""

    runner_id: RunnerId
    job_takes: timedelta
    github_id: int | None = None
    state: GuestRunnerState = GuestRunnerState.WAITING
    worked: timedelta = timedelta()
    renewed_at: datetime | None = None
    ran_at: datetime | None = None
    ran_on: HostId | None = None
    hold: HoldWish | None = None

    def start(self, jit_config: str) -> None:
        """Take the configuration. Raises `Refused` if it has another one already."""
        github_id = int(jit_config.removeprefix("jit-"))
        if self.github_id not in {None, github_id}:
            raise Refused(f"the runner program of {self.runner_id} was started already")
        self.github_id, self.state = github_id, GuestRunnerState.RUNNING

    def run(self, host_id: HostId, now: datetime, github: FakeGitHub, *, is_connected: bool) -> None:
        """Let its processor run up to this moment."""
        span = now - self.ran_at if self.ran_at is not None and self.ran_on == host_id else timedelta()
        self.ran_at, self.ran_on = now, host_id
        if self.renewed_at is not None:
            self.worked += span
        if self.state is GuestRunnerState.RUNNING and is_connected:
            try:
                self._talk(now, github)
            except Refused:
                self.state = GuestRunnerState.ENDED

    def _talk(self, now: datetime, github: FakeGitHub) -> None:
        assert self.github_id is not None
        if self.renewed_at is None:
            if github.connect(self.github_id) is not None:
                self.renewed_at = now
        elif self.worked >= self.job_takes:
            github.report(self.github_id, "success")
            self.state = GuestRunnerState.ENDED
        elif now - self.renewed_at >= RENEWAL_INTERVAL:
            github.renew(self.github_id)
            self.renewed_at = now
