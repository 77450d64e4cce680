"""The runner program as the agent starts it."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from guest_agent.runner import CONFIGURATION, SECRET, USER, Program, Runner

SHOWS = "import json, os, sys; json.dump([dict(os.environ), sys.argv], open('shown', 'w'))"
LIMIT_S = 60.0


def _shown(program: Program, home: Path) -> tuple[dict[str, str], list[str]]:
    runner = Runner(program, home / "run/started")
    runner.start("c2VjcmV0")
    end = time.monotonic() + LIMIT_S
    while runner.status()["state"] != "ended" and time.monotonic() < end:
        time.sleep(0.02)
    assert runner.status() == {"state": "ended", "exit_code": 0}
    environment, arguments = json.loads((home / "shown").read_text())
    return environment, arguments


def test_the_secret_is_in_the_environment_and_nowhere_else(tmp_path: Path) -> None:
    program = Program((sys.executable, "-c", SHOWS), tmp_path, user=None)

    environment, arguments = _shown(program, tmp_path)

    assert environment[SECRET] == "c2VjcmV0"
    assert arguments == ["-c"]
    kept = tmp_path / "run" / CONFIGURATION
    assert kept.stat().st_mode & 0o777 == 0o700
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file() and path.name != "shown"]
    assert not any("c2VjcmV0" in text for text in written)


def test_the_program_has_its_image_s_surroundings_and_its_own_home(tmp_path: Path) -> None:
    image = (("PATH", "/usr/local/go/bin:/usr/bin"), ("GOPATH", "/go"), ("HOME", "/root"))
    program = Program((sys.executable, "-c", SHOWS), tmp_path, user=None, environment=image)

    environment, _ = _shown(program, tmp_path)

    assert (environment["PATH"], environment["GOPATH"]) == ("/usr/local/go/bin:/usr/bin", "/go")
    assert environment["HOME"] == str(tmp_path)


def test_what_an_image_says_in_the_secret_s_place_is_not_handed_over(tmp_path: Path) -> None:
    image = ((SECRET, "of the image"), ("USER", "root"), ("LOGNAME", "root"))
    program = Program((sys.executable, "-c", SHOWS), tmp_path, user=None, environment=image)

    environment, _ = _shown(program, tmp_path)

    assert (environment[SECRET], environment["USER"], environment["LOGNAME"]) == ("c2VjcmV0", USER, USER)


def test_a_warm_up_has_no_secret_and_its_failure_is_none_of_ours(tmp_path: Path) -> None:
    Runner(Program((), tmp_path, user=None, warm_up=("/no/such/program",)), tmp_path / "started").warm_up()
    Runner(Program((), tmp_path, user=None), tmp_path / "started").warm_up()
    runner = Runner(Program((), tmp_path, user=None, warm_up=(sys.executable, "-c", SHOWS)), tmp_path / "started")

    runner.warm_up()

    environment, _ = json.loads((tmp_path / "shown").read_text())
    assert SECRET not in environment
    assert runner.status()["state"] == "waiting"
