"""The action that a workflow may use: run here as a runner runs it, against an agent's own server."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from guest_agent.hold import Hold
from guest_agent.placement import Placement, placement_server

ACTION = yaml.safe_load((Path(__file__).parents[2] / "action.yml").read_text())
TOLD = {"runner_id": "spot-runner-a1", "host_id": "spot-host-b2", "moves": 3}


@pytest.fixture
def hold() -> Hold:
    hold = Hold()
    hold.allow(600)
    return hold


@pytest.fixture
def endpoint(hold: Hold) -> Iterator[str]:
    placement = Placement()
    placement.placed(TOLD)
    with placement_server(placement, hold, port=0) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/runner"
        server.shutdown()


def run(endpoint: str, output: Path, name: str = "ask", **inputs: str) -> subprocess.CompletedProcess[str]:
    (step,) = (step for step in ACTION["runs"]["steps"] if step["id"] == name)
    assert set(step["env"]) == {"ENDPOINT", *inputs}
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        env={"ENDPOINT": endpoint, "GITHUB_OUTPUT": str(output), "PATH": "/usr/bin:/bin", **inputs},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_it_shows_runner_host_and_number_of_moves(endpoint: str, tmp_path: Path) -> None:
    output = tmp_path / "output"
    found = run(endpoint, output)
    assert found.returncode == 0, found.stderr
    assert output.read_text() == "runner-id=spot-runner-a1\nhost-id=spot-host-b2\nmoves=3\n"
    assert "spot-host-b2" in found.stderr
    assert set(ACTION["outputs"]) == {"runner-id", "host-id", "moves", "held-seconds"}


def test_elsewhere_it_says_what_is_wrong(tmp_path: Path) -> None:
    found = run("http://127.0.0.1:9/v1/runner", tmp_path / "output")
    assert found.returncode == 1
    assert "::error title=spot-runner::No guest agent answers" in found.stdout


def hold_step(endpoint: str, output: Path, seconds: str = "", release: str = "false") -> tuple[int, str, str]:
    found = run(endpoint, output, "hold", HOLD_SECONDS=seconds, RELEASE=release)
    return found.returncode, output.read_text() if output.exists() else "", found.stderr


def test_it_holds_and_lets_go(endpoint: str, hold: Hold, tmp_path: Path) -> None:
    status, output, said = hold_step(endpoint, tmp_path / "held", seconds="120")
    assert (status, output) == (0, "held-seconds=120\n")
    assert said.startswith("::notice title=spot-runner::the job is not moved for 120 s")
    status, output, said = hold_step(endpoint, tmp_path / "released", release="true")
    assert (status, output) == (0, "held-seconds=0\n")
    assert said == "::notice title=spot-runner::the job may be moved again\n"
    assert hold.view()["seconds_left"] == 0


def test_what_the_pool_does_not_allow_is_a_warning(endpoint: str, tmp_path: Path) -> None:
    status, output, said = hold_step(endpoint, tmp_path / "held", seconds="3600")
    assert (status, output) == (0, "held-seconds=600\n")
    assert "::warning title=spot-runner::3600 s were asked for and 600 s are granted" in said


@pytest.mark.parametrize(
    ("seconds", "release", "said"),
    [("-5", "false", "negative"), ("soon", "false", "not a number"), ("60", "true", "both set")],
)
def test_what_makes_no_sense_fails_with_one_sentence(
    endpoint: str, hold: Hold, tmp_path: Path, seconds: str, release: str, said: str
) -> None:
    status, output, words = hold_step(endpoint, tmp_path / "held", seconds, release)
    assert (status, output) == (1, "")
    assert words.startswith("::error title=spot-runner::")
    assert said in words
    assert words.count("\n") == 1
    assert hold.wish() == {}
