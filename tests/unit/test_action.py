"""The action that a workflow may use: run here as a runner runs it, against an answer like the guest agent's."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

ACTION = yaml.safe_load((Path(__file__).parents[2] / "action.yml").read_text())
TOLD = {"runner_id": "spot-runner-a1", "host_id": "spot-host-b2", "moves": 3}


@pytest.fixture
def endpoint() -> Iterator[str]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(TOLD).encode())

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/runner"
    server.shutdown()
    server.server_close()
    thread.join(timeout=5)


def run(endpoint: str, output: Path) -> subprocess.CompletedProcess[str]:
    step = ACTION["runs"]["steps"][0]
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        env={"ENDPOINT": endpoint, "GITHUB_OUTPUT": str(output), "PATH": "/usr/bin:/bin"},
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
    assert set(ACTION["outputs"]) == {"runner-id", "host-id", "moves"}


def test_elsewhere_it_says_what_is_wrong(tmp_path: Path) -> None:
    found = run("http://127.0.0.1:9/v1/runner", tmp_path / "output")
    assert found.returncode == 1
    assert "::error title=spot-runner::No guest agent answers" in found.stdout
