"""What a machine of an image starts by itself is what systemd and cloud-init take."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from images.root import ENABLED, FILES, SERVICE

ROOT = FILES / "files"
needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not on this machine")


def units() -> list[Path]:
    return [path for path in (ROOT / "etc/systemd/system").iterdir() if path.suffix in {".service", ".timer"}]


@needs_systemd
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """Only the programs' paths are replaced, since they must exist for the check."""
    for unit in units():
        text = unit.read_text().replace("/opt/spot-runner/bin/spot-runner", sys.executable)
        (tmp_path / unit.name).write_text(text.replace("/usr/lib/spot-runner", str(ROOT / "usr/lib/spot-runner")))
    found = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *sorted(tmp_path.iterdir())],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    complaints = [line for line in found.stderr.splitlines() if "spot-runner-" in line]
    assert (found.returncode, complaints) == (0, [])


def test_each_timer_has_its_service_and_is_switched_on() -> None:
    timers = {unit.name for unit in units() if unit.suffix == ".timer"}
    assert timers == set(ENABLED) - {SERVICE}
    for timer in timers:
        assert (ROOT / "etc/systemd/system" / timer).with_suffix(".service").exists()


def test_the_daemon_waits_for_its_user_data_and_for_the_verification() -> None:
    text = (ROOT / "etc/systemd/system" / f"{SERVICE}.d/image.conf").read_text()
    after = next(line for line in text.splitlines() if line.startswith("After="))
    assert {"cloud-init.service", "cloud-init-network.service"} <= set(after.removeprefix("After=").split())
    assert f"{after}\nRequires=spot-runner-verify.service\n" in text
    assert "spot-runner-verify.service" in after
    verify = (ROOT / "etc/systemd/system/spot-runner-verify.service").read_text()
    assert "FailureAction=poweroff\n" in verify
    assert "EnvironmentFile=-/etc/spot-runner/host.env\n" in verify


def test_cloud_init_makes_no_user_and_writes_what_the_daemon_reads() -> None:
    told = yaml.safe_load((ROOT / "etc/cloud/cloud.cfg.d/90-spot-runner.cfg").read_text())
    assert (told["users"], told["disable_root"], told["ssh_pwauth"]) == ([], True, False)
    assert told["datasource_list"][:3] == ["NoCloud", "Ec2", "Hetzner"]
    stages = [told[name] for name in ("cloud_init_modules", "cloud_config_modules", "cloud_final_modules")]
    assert "write_files" in stages[0]
    assert stages[1:] == [[], []], "nothing is installed, and nobody's keys are taken, when a host boots"


def test_nobody_logs_in() -> None:
    script = (FILES / "customize.sh").read_text()
    assert 'passwd --root "$root" --lock root' in script
    assert "getty@tty1.service serial-getty@ttyS0.service" in script
