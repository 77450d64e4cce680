"""A just-in-time configuration is handed on and lies nowhere: no log, store, argument list or error text holds it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.contract.github.places import APP_ID, ROOT, Place, app_key, simulated_github

LIMIT_S = 120.0
# So much of a secret is looked for: whoever shows values may cut them.
PIECE = 20


@pytest.fixture(scope="module")
def github(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with simulated_github(tmp_path_factory.mktemp("github")) as place:
        yield place


class Log:
    """Where a process writes its log: a file, or a terminal."""

    def __init__(self) -> None:
        self.text = b""

    @contextmanager
    def opened(self, *, is_terminal: bool) -> Iterator[int]:
        reading, writing = pty.openpty() if is_terminal else os.pipe()
        thread = threading.Thread(target=self._read, args=(reading,))
        thread.start()
        try:
            yield writing
        finally:
            os.close(writing)
            thread.join(LIMIT_S)
            os.close(reading)

    def _read(self, reading: int) -> None:
        try:
            while part := os.read(reading, 1 << 16):
                self.text += part
        except OSError:
            return  # the end of a terminal


def pieces(secret: bytes) -> Iterator[bytes]:
    return (secret[start : start + PIECE] for start in range(0, len(secret) - PIECE, PIECE))


def written(home: Path) -> Iterator[tuple[Path, bytes]]:
    return ((path, path.read_bytes()) for path in home.rglob("*") if path.is_file())


@pytest.mark.parametrize("is_terminal", [False, True], ids=["file", "terminal"])
def test_nothing_that_is_written_holds_a_configuration(github: Place, tmp_path: Path, *, is_terminal: bool) -> None:
    """At the most talkative level, with bugs and refusals wherever somebody has it in their hands."""
    home, key = tmp_path / "home", tmp_path / "key.pem"
    home.mkdir()
    key.write_text(app_key()[0])
    place = (str(home), github.url, str(APP_ID), str(key), str(github.installation), github.repository)
    command, log = [sys.executable, "-m", "tests.integration.configured", *place], Log()
    with log.opened(is_terminal=is_terminal) as writing:
        ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=writing, timeout=LIMIT_S, check=False)
    text = log.text.decode()
    assert ended.returncode == 0, text
    secrets = ended.stdout.split()
    assert len(secrets) == 3 * 7, "what the outer coat holds is looked for too"
    for event in (
        "registered",
        "looked_at",
        "look_failed",
        "nobody expected this",
        "a bug with StartOrder",
        "answered",
    ):
        assert event in text, "whatever was to happen has happened"
    files = dict(written(home))
    assert len([path for path in files if path.name == "arguments"]) == 2
    assert any(path.name == "store.sqlite" and b"this host takes no order" in files[path] for path in files)
    everything = {**files, Path("log"): log.text}
    found = {
        str(path)
        for path, content in everything.items()
        for secret in secrets
        if any(piece in content for piece in pieces(secret))
    }
    assert found == set()
