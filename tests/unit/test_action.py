"""The action that a workflow may use: run here as a runner runs it, against an agent's own server."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from guest_agent.hold import Hold
from guest_agent.placement import Placement, placement_server

ACTION = yaml.safe_load((Path(__file__).parents[2] / "action.yml").read_text())
TOLD = {
    "runner_id": "spot-runner-a1",
    "host_id": "spot-host-b2",
    "moves": 3,
    "provider": "aws",
    "region": "eu-central-1",
    "zone": "eu-central-1b",
    "instance_type": "c7i.2xlarge",
    "lifecycle": "spot",
    "package": "sha256:ab",
    "usd_per_hour": 0.36,
    "restored_in_ms": 312.25,
    "pause_ms": 71.0,
}
SAID = {
    "runner-id": "spot-runner-a1",
    "host-id": "spot-host-b2",
    "provider": "aws",
    "region": "eu-central-1",
    "zone": "eu-central-1b",
    "instance-type": "c7i.2xlarge",
    "lifecycle": "spot",
    "package": "sha256:ab",
    "restored-in-ms": "312.2",
    "migrations": "3",
    "pause-ms": "71",
    "cost-usd": "0.001000",
}


@pytest.fixture
def hold() -> Hold:
    hold = Hold()
    hold.allow(600)
    return hold


class Agent:
    """A guest agent of the test's own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.placement = Placement(lambda: self.now)
        self.url = "http://127.0.0.1:9/v1/runner"

    def tell(self, **changed: object) -> None:
        """Say where it is as a host would, ten seconds ago."""
        self.placement.placed(TOLD | changed)
        self.now += 10


@pytest.fixture
def agent(hold: Hold) -> Iterator[Agent]:
    agent = Agent()
    with placement_server(agent.placement, hold, port=0) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        agent.url = f"http://127.0.0.1:{server.server_port}/v1/runner"
        yield agent
        server.shutdown()


@pytest.fixture
def endpoint(agent: Agent) -> str:
    return agent.url


def run(endpoint: str, folder: Path, name: str = "ask", **inputs: str) -> subprocess.CompletedProcess[str]:
    (step,) = (step for step in ACTION["runs"]["steps"] if step["id"] == name)
    assert set(step["env"]) == {"ENDPOINT", *inputs}
    files = {"GITHUB_OUTPUT": str(folder / "output"), "GITHUB_STEP_SUMMARY": str(folder / "summary")}
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        env={"ENDPOINT": endpoint, "PATH": "/usr/bin:/bin", **files, **inputs},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def ask(agent: Agent, folder: Path, summary: str = "true", limit: str = "") -> tuple[int, dict[str, str], str]:
    """Run the first step; return its status, its outputs and what it said."""
    found = run(agent.url, folder, SUMMARY=summary, PAUSE_LIMIT=limit)
    assert found.stderr == ""
    lines = (folder / "output").read_text().splitlines() if (folder / "output").exists() else []
    return found.returncode, dict(line.split("=", 1) for line in lines), found.stdout


def test_it_says_all_that_is_known(agent: Agent, tmp_path: Path) -> None:
    agent.tell()
    status, outputs, said = ask(agent, tmp_path)
    assert (status, outputs) == (0, SAID)
    assert "c7i.2xlarge" in said
    summary = (tmp_path / "summary").read_text()
    assert all(f"| {name} | {value} |" in summary for name, value in SAID.items())
    assert set(ACTION["outputs"]) == {*SAID, "held-seconds"}
    for name in SAID:
        assert ACTION["outputs"][name]["value"] == f"${{{{ steps.ask.outputs.{name} }}}}"


def test_what_is_not_known_is_empty_and_nothing_is_made_up(agent: Agent, tmp_path: Path) -> None:
    agent.placement.placed({"runner_id": "spot-runner-a1", "host_id": "spot-host-b2", "moves": 0})
    status, outputs, _ = ask(agent, tmp_path)
    known = {"runner-id": "spot-runner-a1", "host-id": "spot-host-b2", "migrations": "0"}
    assert (status, outputs) == (0, dict.fromkeys(SAID, "") | known)
    assert (tmp_path / "summary").read_text().count("| not known |") == len(SAID) - len(known)


def test_without_a_summary_none_is_written(agent: Agent, tmp_path: Path) -> None:
    agent.tell()
    assert ask(agent, tmp_path, summary="false")[0] == 0
    assert not (tmp_path / "summary").exists()


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/v1/runner", "a page that it has not"])
def test_on_any_other_runner_it_only_gives_notice(agent: Agent, tmp_path: Path, url: str) -> None:
    agent.url = url if url.startswith("http") else agent.url + "s"
    status, outputs, said = ask(agent, tmp_path, limit="1")
    assert (status, outputs) == (0, {})
    assert said.startswith("::notice title=spot-runner::No guest agent answers")
    assert said.count("\n") == 1
    assert not (tmp_path / "summary").exists()
    (hold,) = (step for step in ACTION["runs"]["steps"] if step["id"] == "hold")
    assert "&& steps.ask.outputs.runner-id != '' && " in hold["if"]


class Stranger(BaseHTTPRequestHandler):
    """Something else that listens where our agent would, on a machine that is not ours."""

    says: bytes

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.says)))
        self.end_headers()
        self.wfile.write(self.says)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize("says", [b"<html>", b"[1]", b'{"status": "up"}', b"", b'"runner_id"'])
def test_whatever_else_answers_there_is_no_agent_of_ours(tmp_path: Path, says: bytes) -> None:
    other = type("Other", (Stranger,), {"says": says})
    with HTTPServer(("127.0.0.1", 0), other) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        found = run(f"http://127.0.0.1:{server.server_port}/v1/runner", tmp_path, SUMMARY="true", PAUSE_LIMIT="1")
        server.shutdown()
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.startswith("::notice title=spot-runner::No guest agent answers")
    assert not list(tmp_path.iterdir()), "neither outputs nor a summary"


@pytest.mark.parametrize(
    ("pause", "moves", "limit", "status", "said"),
    [
        (71.0, 1, "71", 0, ""),
        (71.5, 1, "71", 1, "::error title=spot-runner::The last move made this job stand still for 72 ms"),
        (None, 0, "0", 0, ""),
        (None, 1, "71", 0, "::warning title=spot-runner::This job was moved and nobody knows"),
        (0.0, 1, "soon", 1, "::error title=spot-runner::fail-if-pause-over-ms is 'soon'; write a number"),
    ],
)
def test_a_pause_that_was_too_long_fails_the_step_after_all_was_said(
    agent: Agent, tmp_path: Path, pause: float | None, moves: int, limit: str, status: int, said: str
) -> None:
    agent.tell(pause_ms=pause, moves=moves)
    found, outputs, words = ask(agent, tmp_path, limit=limit)
    assert (found, outputs["migrations"]) == (status, str(moves))
    assert [line for line in words.splitlines() if line.startswith("::")] == [
        line for line in words.splitlines() if said and line.startswith(said)
    ]
    assert (said == "") == ("::" not in words)
    assert (tmp_path / "summary").exists()


def test_a_hostile_word_stays_in_its_own_output(agent: Agent, tmp_path: Path) -> None:
    agent.tell(zone="a\nrunner-id=other", region="x|y")
    _, outputs, _ = ask(agent, tmp_path)
    assert (outputs["zone"], outputs["runner-id"]) == ("a runner-id=other", "spot-runner-a1")
    assert "| region | x\\|y |" in (tmp_path / "summary").read_text()


def hold_step(endpoint: str, output: Path, seconds: str = "", release: str = "false") -> tuple[int, str, str]:
    output.mkdir()
    found = run(endpoint, output, "hold", HOLD_SECONDS=seconds, RELEASE=release)
    written = output / "output"
    return found.returncode, written.read_text() if written.exists() else "", found.stderr


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
