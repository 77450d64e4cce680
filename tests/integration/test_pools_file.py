"""The policy file as processes see it: `spot-runner pools check`, and a file that is changed while it is in use."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.clock import FakeClock
from tests.fakes.store import MemoryStore
from workers.bootstrap.policies import LAST_GOOD, Policies
from workers.bootstrap.pools import Wrong
from workers.domain.errors import BadInput
from workers.domain.events import Event, Happening
from workers.settings import ControlSettings

RIGHT = '[[pools]]\nname = "ci"\nmin_ready = 2\n'
WRONG = '[[pools]]\nname = "ci"\nforks = 1\n\n[[pools]]\nname = "x"\nzones = ["a", "a"]\n'


def checked(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "workers.cli", "pools", "check", *arguments]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_command_says_what_is_wrong_and_where(tmp_path: Path) -> None:
    file = tmp_path / "pools.toml"
    file.write_text(WRONG)
    found = checked(str(file))
    assert (found.returncode, found.stderr) == (1, "")
    assert found.stdout.splitlines() == [
        f"{file}:3: pools.0.forks: Input should be a valid boolean, not 1; see docs/pools.md"
    ]
    file.write_text(WRONG.replace("forks = 1", 'time_zone = "Mars"'))
    found = checked(SPOT_RUNNER_POOLS_FILE=str(file))
    assert found.returncode == 1
    assert [line.split(": ")[0] for line in found.stdout.splitlines()] == [f"{file}:3", f"{file}:7"]


def test_the_command_says_what_pools_there_are(tmp_path: Path) -> None:
    file = tmp_path / "pools.toml"
    file.write_text(RIGHT)
    found = checked(str(file))
    assert (found.returncode, found.stdout) == (0, "ci: 1 of the packages; for *; 2 hosts ready\n")
    file.write_text(RIGHT + 'register = "organization"\nrunner_group = "builders"\n')
    shown = "ci: 1 of the packages; for *; 2 hosts ready; registered with the organization, in runner group builders\n"
    assert checked(str(file)).stdout == shown
    missing = checked(str(tmp_path / "missing.toml"))
    assert missing.returncode == 2
    assert missing.stderr.startswith(f"spot-runner: {tmp_path / 'missing.toml'}: No such file or directory")
    assert checked().returncode == 2


class Deployment:
    """A policy file and processes that read it; their clock passes a second with each look."""

    def __init__(self, home: Path) -> None:
        self.file = home / "pools.toml"
        self.settings = ControlSettings(home=home / "home", pools_file=self.file, package="sha256:" + "0" * 64)
        self.settings.home.mkdir()
        self.store, self.clock = MemoryStore(FakeClock()), FakeClock()
        self.seconds = 0.0

    def started(self) -> Policies:
        return Policies(self.settings, self.later)

    def later(self) -> float:
        self.seconds += 1.0
        return self.seconds

    def write(self, text: str) -> None:
        """Put the file in place as editors do, so that it is another one even if its size and second are the same."""
        beside = self.file.with_suffix(".beside")
        beside.write_text(text)
        beside.replace(self.file)

    def told(self, *processes: Policies) -> list[Event]:
        for process in processes:
            process.report(self.store, self.clock)
        return [event for _, event in self.store.timeline()]


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    made = Deployment(tmp_path)
    made.write(RIGHT)
    yield made
    left = sorted(path.name for path in made.settings.home.iterdir())
    assert set(left) <= {LAST_GOOD, "pools-told"}, "no half-written file is left"


def is_right(policies: Policies) -> bool:
    return policies.problem is None


def ready(policies: Policies) -> int:
    return policies().pools[0].min_ready


def test_a_file_that_is_changed_holds_in_every_process_without_a_restart(deployment: Deployment) -> None:
    first, second = deployment.started(), deployment.started()
    assert deployment.told(first, second) == []
    deployment.write(RIGHT.replace("2", "3"))
    assert (ready(first), ready(second)) == (3, 3)
    (event,) = deployment.told(first, second, first)
    assert (event.happening, event.detail) == (Happening.POLICY_READ, {"pools": 1})


def test_a_file_that_is_not_right_changes_nothing_and_is_told_once(deployment: Deployment) -> None:
    process = deployment.started()
    deployment.told(process)
    deployment.write(WRONG)
    assert ready(process) == 2
    (event,) = deployment.told(process, deployment.started(), process)
    assert event.happening is Happening.POLICY_REFUSED
    assert str(event.detail["because"]).startswith(f"{deployment.file}:3: pools.0.forks: ")
    assert not is_right(process)
    deployment.write(RIGHT.replace("2", "4"))
    assert ready(process) == 4
    assert is_right(process)
    assert [event.happening for event in deployment.told(process)][1:] == [Happening.POLICY_READ]


def test_a_restart_finds_the_policy_that_held_before(deployment: Deployment) -> None:
    deployment.told(deployment.started())
    deployment.write(WRONG)
    started_again = deployment.started()
    assert ready(started_again) == 2
    assert not is_right(started_again)
    assert len(deployment.told(started_again)) == 1
    deployment.file.unlink()
    assert ready(started_again) == 2, "and a file that is gone is no reason to serve nobody"
    assert ready(deployment.started()) == 2


def test_without_a_former_one_a_file_that_is_not_right_is_refused(deployment: Deployment) -> None:
    deployment.write(WRONG)
    with pytest.raises(Wrong, match=r"pools\.toml:3: "):
        deployment.started()
    deployment.file.unlink()
    with pytest.raises(BadInput, match="No such file or directory"):
        deployment.started()


def test_a_file_is_not_looked_at_for_every_decision(deployment: Deployment) -> None:
    process = deployment.started()
    process()
    still = Policies(deployment.settings, lambda: 0.0)
    still()
    deployment.write(RIGHT.replace("2", "3"))
    assert ready(still) == 2
    assert ready(process) == 3


def test_what_was_only_touched_is_no_change(deployment: Deployment) -> None:
    process = deployment.started()
    deployment.told(process)
    deployment.write(RIGHT)
    assert deployment.told(process, deployment.started()) == []
