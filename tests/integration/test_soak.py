"""A short soak as part of every test run; `./dev bench soak` is the long one.

Every process is real but the hosts' engine, and everything of ours is taken away twice. What the soak would not notice
it would not be worth, so two faults are planted in the same deployment afterwards.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.bench.soak.deployment import Deployment, Size, deployed
from tests.bench.soak.play import Wish, play

SMALL = Size(
    hosts=2,
    guests_per_host=32,
    shortest_s=0.2,
    longest_s=1.5,
    heartbeat_s=1.0,
    idle_s=5.0,
    checked_every=10,
    recovery_pace=0.05,
)
# A job's end is written down by nobody any more, as if the worker forgot it.
FORGET = """
CREATE TRIGGER forget BEFORE UPDATE OF conclusion ON jobs WHEN NEW.conclusion IS NOT NULL
BEGIN SELECT RAISE(IGNORE); END
"""


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployed(Deployment(tmp_path_factory.mktemp("soak") / "soak", SMALL)) as running:
        yield running


@pytest.mark.timeout(900)
def test_the_store_says_of_every_job_what_github_says_and_nothing_is_left(deployment: Deployment) -> None:
    outcome = play(deployment, Wish(jobs=200, outstanding_max=60))
    assert outcome.is_right, outcome
    assert outcome.jobs == 200
    assert outcome.held, "some were held back, and approved"
    assert all(outcome.met[what] for what in ("lost", "doubled", "reordered", "malformed")), outcome.met


@pytest.mark.timeout(600)
def test_a_worker_that_forgets_and_a_microvm_that_nobody_ends_are_told(deployment: Deployment) -> None:
    with closing(sqlite3.connect(deployment.directory / "home" / "spot-runner.sqlite", timeout=30)) as store:
        store.execute(FORGET)
    leaked_microvm(deployment.directory / "estate").write_text("{}")
    outcome = play(deployment, Wish(jobs=5, outstanding_max=5, restarts=0, settle_s=8))
    assert (outcome.mismatched, outcome.is_right) == (5, False), outcome
    assert "spot-runner-leaked" in deployment.microvms()
    assert outcome.microvms_left >= 1


def leaked_microvm(estate: Path) -> Path:
    """Return where a host keeps a microVM, of which its daemon does not know."""
    return min(estate.glob("*/microvms")) / "spot-runner-leaked.json"
