"""AWS as moto plays it, in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.integration.control_plane import free_port


def running_moto() -> Iterator[str]:
    """Yield the address of a server that ends with the fixture."""
    if importlib.util.find_spec("moto") is None:
        pytest.skip("moto is not installed; ./dev installs it from the lock")
    port = free_port()
    command = (sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port))
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ))
    try:
        endpoint = f"http://127.0.0.1:{port}"
        _wait_for(endpoint, process)
        yield endpoint
    finally:
        process.kill()
        process.wait(20)


def _wait_for(endpoint: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert process.poll() is None, "moto's server has ended"
        try:
            httpx.get(endpoint, trust_env=False, timeout=5)
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("moto's server did not answer within a minute")
