"""Handlers of the simulated GitHub read while others write: nobody sees half a change, nor a list that grows."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count

import pytest

from tests.contract.github.places import APP_ID, app_key
from tests.contract.github.test_world import LABELS, STEPS
from workers.rehearsal.github.app import Simulation
from workers.rehearsal.github.settings import Settings


@pytest.fixture(autouse=True)
def hasty_threads() -> Iterator[None]:
    """Let threads take turns as often as they can."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.fixture
def simulation() -> Simulation:
    """One without threads of its own."""
    settings = Settings("http://127.0.0.1:9", "http://127.0.0.1:9/github", "no secret", app_key()[1], APP_ID)
    return Simulation(settings)


@contextmanager
def meanwhile(change: Callable[[int], object]) -> Iterator[None]:
    """Change things all the time, in a thread."""
    is_over = threading.Event()

    def change_all() -> None:
        for number in count(1):
            if is_over.is_set():
                return
            change(number)

    thread = threading.Thread(target=change_all)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def test_an_installation_is_looked_for_while_others_are_made(simulation: Simulation) -> None:
    world = simulation.world
    for number in range(2000):
        world.install(f"org-{number}")
    first = world.installation_of("org-0")
    assert first is not None

    def install(number: int) -> None:
        """Quicker than `install` itself, which looks for it first."""
        with world.changed:
            world.installations[-number] = replace(first, id=-number, account="other")

    with meanwhile(install):
        assert all(world.installation_of("org-0") is first for _ in range(100))


def test_a_run_is_shown_whole_while_it_is_run_again(simulation: Simulation) -> None:
    world = simulation.world
    token = world.issue_token(world.install("octo-org").id).text
    run = world.start_run("octo-org/widgets", ["one"], LABELS, STEPS)

    def run_again(_: int) -> None:
        with world.changed:
            world.cancel(run.of_attempt()[0])
        world.rerun_failed(run)

    path, caller = f"/repos/{run.repository}/actions/runs/{run.id}", simulation.flask.test_client()
    with meanwhile(run_again):
        answers = [caller.get(path, headers={"Authorization": f"Bearer {token}"}) for _ in range(60)]
    assert {answer.status_code for answer in answers} == {200}
