"""A real PostgreSQL is stopped, killed and started again under a running receiver."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import httpx
import pytest

from tests.contract.postgresql import postmaster, running_server, start, why_not
from tests.integration.control_plane import ControlPlane, a_control_plane, children_of, eventually, is_alive
from tests.integration.listeners import signed
from tests.integration.test_receiver import JOB, QUEUED
from webhook.group_commit import ANSWER_LIMIT_S
from workers.bootstrap.serve import public_command
from workers.clock import SystemClock
from workers.settings import ControlSettings
from workers.store.repository import open_store

# GitHub's own limit: what is answered later counts as failed, whatever the answer.
GITHUB_LIMIT_S = 10.0


@contextmanager
def stopped(pids: set[int]) -> Iterator[None]:
    """Let these processes stand still for a while."""
    send(signal.SIGSTOP, pids)
    try:
        yield
    finally:
        send(signal.SIGCONT, pids)


def send(number: signal.Signals, pids: set[int]) -> None:
    """Send a signal to each that is still there: PostgreSQL's processes end when they see one of them die."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


class Receiver:
    """The public listener's processes, with a store in PostgreSQL."""

    def __init__(self, place: ControlPlane) -> None:
        self._url = f"{place.public_url}/github"
        self._numbers = count()
        self.taken: list[str] = []

    def deliver(self) -> int:
        """Deliver once more, under a new GUID; fails if the answer takes longer than GitHub waits."""
        guid = f"guid-{next(self._numbers)}"
        body, headers = signed("workflow_job", QUEUED, guid)
        answer = httpx.post(self._url, content=body, headers=headers, timeout=GITHUB_LIMIT_S, trust_env=False)
        status = answer.status_code
        if status == 202:
            self.taken.append(guid)
        return status

    def answers(self) -> bool:
        try:
            return self.deliver() == 202
        except httpx.HTTPError:
            return False


@pytest.fixture
def directory() -> Iterator[Path]:
    if reason := why_not():
        pytest.skip(reason)
    with running_server() as server:
        yield Path(server)


def test_a_store_that_hangs_or_is_killed_is_answered_503_in_time_and_used_again_when_it_is_back(
    directory: Path, tmp_path: Path
) -> None:
    place = a_control_plane(tmp_path)
    url = f"postgresql+psycopg://postgres@/postgres?host={directory}"
    command = public_command(ControlSettings(public_listen=f"127.0.0.1:{place.public_port}"))
    with place.running("public", "env", f"SPOT_RUNNER_DATABASE_URL={url}", *command):
        receiver = Receiver(place)
        eventually(receiver.answers)
        server = postmaster(directory)

        with stopped({server} | children_of(server)):
            began = time.monotonic()
            assert receiver.deliver() == 503
            assert time.monotonic() - began < ANSWER_LIMIT_S + 3, "the machine may be busy, but GitHub does not wait"
        eventually(receiver.answers)

        killed = {server} | children_of(server)
        send(signal.SIGKILL, killed)
        eventually(lambda: not any(map(is_alive, killed)))
        assert receiver.deliver() == 503
        start(directory)
        eventually(receiver.answers)

    store = open_store(url, SystemClock())
    kept = {fact.delivery for fact in store.facts_of(JOB)}
    store.close()
    assert set(receiver.taken) <= kept, "what was answered 202 is there"
