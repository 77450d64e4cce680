"""The simulator as a process of its own, as a rehearsal starts it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from hcloud import Client

from tests.contract.aws_server import _wait_for
from tests.integration.control_plane import free_port

END_LIMIT_S = 20


def test_it_serves_whoever_has_the_token_and_ends_by_a_signal(tmp_path: Path) -> None:
    token, listen = tmp_path / "token", f"127.0.0.1:{free_port()}"
    token.write_text("a-token\n")
    command = (sys.executable, "-m", "workers.rehearsal.hetzner", "--listen", listen, "--token-file", str(token))
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(f"http://{listen}/", process)
        client = Client("a-token", api_endpoint=f"http://{listen}/v1", timeout=5)
        assert {one.name for one in client.locations.get_all()} == {"fsn1", "nbg1", "hel1", "ash"}
        process.send_signal(signal.SIGTERM)
        assert process.wait(END_LIMIT_S) == 0
    finally:
        process.kill()
        process.wait(END_LIMIT_S)
