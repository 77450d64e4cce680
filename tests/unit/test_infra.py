"""What is deployed is checked with the tools that will read it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

INFRA = Path(__file__).parents[2] / "infra"
UNITS = sorted((INFRA / "systemd").glob("*.service"))


def test_there_is_a_unit_for_each_of_the_four_commands() -> None:
    assert [unit.stem for unit in UNITS] == [f"spot-runner-{name}" for name in ("host", "relay", "serve", "worker")]
    for unit in UNITS:
        assert f"/bin/spot-runner {unit.stem.removeprefix('spot-runner-')}\n" in unit.read_text()


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not on this machine")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_accepts_the_unit(unit: Path, tmp_path: Path) -> None:
    """Only the program's path is replaced, since it must exist for the check."""
    rendered = tmp_path / unit.name
    rendered.write_text(unit.read_text().replace("/opt/spot-runner/bin/spot-runner", sys.executable))
    found = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", rendered],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    complaints = [line for line in found.stderr.splitlines() if unit.name in line]
    assert (found.returncode, complaints) == (0, [])


def test_compose_runs_the_control_plane_with_secrets_from_files() -> None:
    compose = yaml.safe_load((INFRA / "compose.yaml").read_text())
    assert set(compose["services"]) == {"redis", "serve", "worker", "relay"}
    for name in ("serve", "worker"):
        service = compose["services"][name]
        assert service["command"] == [name]
        assert service["secrets"] == ["github-key", "webhook-secret"]
        assert not [key for key in service["environment"] if key.endswith(("_SECRET", "_KEY", "_TOKEN"))]
