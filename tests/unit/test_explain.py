"""`spot-runner explain` as a person runs it: what is printed, and with which status it ends."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.contract.store_rows import TERMS, a_job
from tests.unit.test_pools import WHOLE
from workers.bootstrap.explain import split_labels
from workers.cli import app
from workers.clock import SystemClock
from workers.domain.errors import BadInput
from workers.domain.job import Job, JobState
from workers.settings import ControlSettings
from workers.store.repository import open_store


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "pools.toml").write_text(WHOLE)
    return tmp_path


def explain(home: Path, *arguments: str) -> Result:
    told = {"SPOT_RUNNER_HOME": str(home), "SPOT_RUNNER_POOLS_FILE": str(home / "pools.toml"), "COLUMNS": "40"}
    return CliRunner().invoke(app, ["explain", *arguments], env=told)


def store_job(home: Path, job: Job) -> str:
    settings = ControlSettings(home=home)
    with closing(open_store(settings.database, SystemClock())) as store:
        assert store.jobs.add(job)
    return str(job.id)


def test_labels_that_are_served_say_what_they_get(home: Path) -> None:
    found = explain(home, "--labels", "[self-hosted, spot-runner, max-minutes=90]")
    assert found.exit_code == 0
    assert found.stdout.splitlines() == [
        "runs-on: self-hosted, spot-runner, max-minutes=90",
        "asks for: max-minutes=90",
        "pool: ci, the first that takes it (of 2)",
        "machine: 4 CPUs, 8 GiB of memory, 16 GiB of disk",
        f"image: debian-12, package sha256:{'1' * 64}",
        "network: nat, its connections leave through its host and are reset by a move",
        "interrupt: move, it is moved when its host is taken back",
        "max-minutes: 90, then its runner is ended",
    ]


def test_labels_that_are_not_say_why_and_what_would_work(home: Path) -> None:
    found = explain(home, "--labels", "spot-runner/cpus=16")
    assert found.exit_code == 1
    assert "refused: runs-on: 'spot-runner/cpus=16': 'cpus' is no option; write cpu=VALUE; " in found.stdout
    assert found.stdout.endswith("the nearest that works: runs-on: spot-runner/cpu=4\n")


def test_the_pool_depends_on_whose_job_it_is(home: Path) -> None:
    assert "pool: ci" in explain(home, "--labels", "spot-runner").stdout
    assert "pool: open" in explain(home, "--labels", "spot-runner", "--fork").stdout
    assert "pool: open" in explain(home, "--labels", "spot-runner", "--repository", "other/x").stdout


def test_a_job_says_what_was_decided_for_it_whatever_would_be_now(home: Path) -> None:
    placed = replace(a_job(1, JobState.RUNNING), end=None, unserved=None, terms=TERMS)
    found = explain(home, store_job(home, placed))
    assert found.exit_code == 0
    assert f"job {placed.id} (build — “ö” 🏗) of octo/hello, attempt 1: running" in found.stdout
    assert "pool: ci" in found.stdout
    assert "runner: spot-runner-x" in found.stdout


def test_a_job_that_was_refused_says_why(home: Path) -> None:
    waiting = replace(a_job(2, JobState.QUEUED), end=None, unserved="no such thing", terms=None, runner_id=None)
    found = explain(home, store_job(home, waiting))
    assert (found.exit_code, found.stdout.splitlines()[-1]) == (1, "refused: no such thing")


def test_a_job_that_was_never_judged_is_judged_now(home: Path) -> None:
    unheard = replace(a_job(3, JobState.QUEUED), end=None, unserved=None, terms=None, labels=("spot-runner/cpu=4",))
    found = explain(home, store_job(home, unheard))
    assert (found.exit_code, "machine: 4 CPUs" in found.stdout) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [((), "name one thing"), (("7", "--labels", "spot-runner"), "name one thing"), (("7",), "job 7 is not known here")],
)
def test_what_cannot_be_explained_is_one_sentence(home: Path, arguments: tuple[str, ...], says: str) -> None:
    found = explain(home, *arguments)
    assert isinstance(found.exception, BadInput)
    assert says in str(found.exception)


@pytest.mark.parametrize("text", ["a, b", "[a, b]", " [ 'a', \"b\" ] ", "a,b,"])
def test_labels_are_written_as_in_a_workflow(text: str) -> None:
    assert split_labels(text) == ("a", "b")
