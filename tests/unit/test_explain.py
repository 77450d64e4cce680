"""`spot-runner explain` as a person runs it: what is printed, and with which status it ends."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.contract.store_rows import TERMS, a_host, a_job, a_runner
from tests.unit.test_pools import WHOLE
from workers.bootstrap.explain import split_labels
from workers.cli import app
from workers.clock import SystemClock
from workers.domain.breaker import Breaker
from workers.domain.errors import BadInput
from workers.domain.events import Event, Happening
from workers.domain.host import HostState
from workers.domain.job import Job, JobState, Rerun
from workers.domain.names import RunnerId
from workers.domain.runner import RunnerState
from workers.planning.demand import kind_of
from workers.settings import ControlSettings
from workers.store.repository import open_store


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "pools.toml").write_text(WHOLE)
    return tmp_path


def explain(home: Path, *arguments: str, **more: str) -> Result:
    told = {"SPOT_RUNNER_HOME": str(home), "SPOT_RUNNER_POOLS_FILE": str(home / "pools.toml"), "COLUMNS": "40"}
    return CliRunner().invoke(app, ["explain", *arguments], env=told | more)


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
        "rerun: auto, it is run again if it is lost and holds no deployment",
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


def test_a_job_whose_runners_are_in_vain_says_so_and_when_that_is_tried_again(home: Path) -> None:
    waiting = replace(a_job(4, JobState.QUEUED), end=None, unserved=None, terms=TERMS, runner_id=None)
    settings, at = ControlSettings(home=home), datetime(2026, 11, 23, 4, tzinfo=UTC)
    breaker = Breaker(kind_of(waiting), 3, 3, at, at + timedelta(minutes=10), "the last 3 runners got no job")
    with closing(open_store(settings.database, SystemClock())) as store:
        assert store.change_breaker(None, breaker)
    found = explain(home, store_job(home, waiting))
    said = "held back: the last 3 runners got no job; the next runner is tried at 2026-11-23 04:10 UTC"
    assert found.stdout.splitlines()[-1] == said
    other = replace(a_job(5, JobState.QUEUED), end=None, unserved=None, terms=TERMS, labels=("spot-runner/cpu=4",))
    assert "held back" not in explain(home, store_job(home, other)).stdout


MARKET = "http://127.0.0.1:1"
QUEUED = replace(a_job(9, JobState.QUEUED), end=None, unserved=None, runner_id=None, deferred=None)


def test_a_job_for_which_no_host_may_be_had_says_why(home: Path) -> None:
    job = store_job(home, QUEUED)
    assert explain(home, job).stdout.splitlines()[-1].startswith("waits: no host can be had: ")
    full = explain(home, job, SPOT_RUNNER_MARKET_URL=MARKET, SPOT_RUNNER_HOSTS_MAX="0")
    assert full.stdout.splitlines()[-1] == "waits: there may be no more than 0 hosts (SPOT_RUNNER_HOSTS_MAX)"
    assert "waits" not in explain(home, job, SPOT_RUNNER_MARKET_URL=MARKET).stdout, "a host is asked for at once"


def test_a_job_names_the_hosts_that_come_and_why_the_cloud_refused_them(home: Path) -> None:
    job, settings = store_job(home, QUEUED), ControlSettings(home=home)
    host = replace(a_host("spot-host-1", state=HostState.REQUESTED), host_class=None, deadline_at=None)
    refused = Event(Happening.LAUNCH_REFUSED, host.requested_at, host_id=host.id, detail={"because": "sold out"})
    with closing(open_store(settings.database, SystemClock())) as store:
        assert store.hosts.add(host)
        store.record(refused)
    found = explain(home, job, SPOT_RUNNER_MARKET_URL=MARKET)
    said = f"coming: host spot-host-1, asked of local at {host.requested_at:%H:%M:%S} UTC: requested; its launch was"
    assert found.stdout.splitlines()[-1] == f"{said} refused, last because sold out"


def test_a_job_says_how_far_its_runner_is_and_what_becomes_of_it_once_lost(home: Path) -> None:
    placed = replace(a_job(10, JobState.PLACED), end=None, unserved=None, deferred=None)
    runner = replace(a_runner(3, "spot-host-1", RunnerState.BOOTING), id=RunnerId("spot-runner-x"))
    lost = replace(a_job(11, JobState.LOST), unserved=None, deferred=None, has_deployment=False, run_id=7)
    held = replace(lost, id=a_job(12).id, has_deployment=True, rerun=Rerun.REFUSED, run_id=8)
    with closing(open_store(ControlSettings(home=home).database, SystemClock())) as store:
        assert store.hosts.add(a_host("spot-host-1"))
        assert store.runners.add(runner)
    said = explain(home, store_job(home, placed)).stdout
    assert (
        f"{runner.requested_at:%H:%M:%S} UTC on spot-host-1: its microVM is restored and registered at GitHub" in said
    )
    assert "rerun: as soon as its run has ended at GitHub" in explain(home, store_job(home, lost)).stdout
    assert "rerun: none: it holds a deployment, " in explain(home, store_job(home, held)).stdout


def test_what_somebody_wrote_into_a_workflow_does_nothing_to_the_terminal(home: Path) -> None:
    evil = "spot-runner\x1b]0;owned\x07\n\u202e\x9b2J"
    job = replace(a_job(8, JobState.QUEUED), end=None, unserved=None, terms=None, labels=(evil,), name=evil)
    for found in (explain(home, store_job(home, job)), explain(home, "--labels", evil)):
        assert all(line.isprintable() for line in found.stdout.split("\n"))
        assert r"\u001b]0;owned\u0007\u000a\u202e\u009b2J" in found.stdout


def test_a_job_that_waits_for_its_environment_says_so(home: Path) -> None:
    waiting = replace(a_job(6, JobState.WAITING), end=None, unserved=None, terms=None, labels=("spot-runner",))
    found = explain(home, store_job(home, waiting))
    assert "attempt 1: waiting" in found.stdout
    assert "waits: the rules of its environment hold it back" in found.stdout


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


def test_whoever_asks_for_one_installation_hears_of_no_other(home: Path) -> None:
    """What is said of another's job is what is said of none."""
    job = store_job(home, a_job())
    own, other = (str(a_job().installation_id + number) for number in (0, 1))
    assert explain(home, job, "--installation", own).exit_code == 0
    for asked in ((job, "--installation", other), ("999", "--installation", own)):
        refused = explain(home, *asked)
        assert isinstance(refused.exception, BadInput)
        assert str(refused.exception).startswith(f"job {asked[0]} is not known here")
        assert refused.stdout == ""
