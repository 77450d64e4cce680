"""What is deployed is checked with the tools that will read it, or by what they read."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

INFRA = Path(__file__).parents[2] / "infra"
UNITS = sorted((INFRA / "systemd").glob("*.service"))
# systemd's own measure, in tenths: 0 can do nothing, 100 everything. A host starts monitors as other users, in cgroups
# and namespaces of their own; the relay makes links and routes as root.
EXPOSURE_MAX = {"host": 86, "relay": 30, "serve": 16, "worker": 16}
needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not on this machine")


def test_there_is_a_unit_for_each_of_the_four_commands() -> None:
    assert [unit.stem for unit in UNITS] == [f"spot-runner-{name}" for name in ("host", "relay", "serve", "worker")]
    for unit in UNITS:
        assert f"/bin/spot-runner {unit.stem.removeprefix('spot-runner-')}\n" in unit.read_text()


@needs_systemd
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


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_may_do_no_more_than_it_needs(unit: Path) -> None:
    most = EXPOSURE_MAX[unit.stem.removeprefix("spot-runner-")]
    found = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", f"--threshold={most}", unit],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found.returncode == 0, found.stdout[-2000:]


def test_no_unit_shuts_itself_out_of_a_device_that_it_needs() -> None:
    """`ProtectClock` and `PrivateDevices` leave of /dev only what is named."""
    host, relay = ((INFRA / "systemd" / f"spot-runner-{name}.service").read_text() for name in ("host", "relay"))
    assert not re.search(r"^(ProtectClock|PrivateDevices|DeviceAllow|DevicePolicy)=", host, re.MULTILINE)
    assert "DeviceAllow=/dev/net/tun rw\n" in relay


# ---------------------------------------------------------------- containers


def compose() -> Mapping[str, Any]:
    return dict(yaml.safe_load((INFRA / "compose.yaml").read_text()))


def test_compose_runs_the_control_plane_with_secrets_from_files() -> None:
    services = compose()["services"]
    assert set(services) == {"redis", "database", "serve", "worker", "relay"}
    for name in ("serve", "worker"):
        service = services[name]
        assert service["command"] == [name]
        assert service["secrets"] == ["github-key", "webhook-secret", "pgpass"]
        assert not [key for key in service["environment"] if key.endswith(("_SECRET", "_KEY", "_TOKEN", "_PASSWORD"))]


def test_compose_names_nothing_that_it_does_not_have() -> None:
    whole = compose()
    for service in whole["services"].values():
        assert set(service.get("secrets", ())) <= whole["secrets"].keys()
        assert {one.split(":")[0] for one in service.get("volumes", ())} <= whole["volumes"].keys()
        needed = service.get("depends_on", {})
        assert needed.keys() <= whole["services"].keys()
        for name, how in needed.items():
            assert how == {"condition": "service_healthy"}
            assert "healthcheck" in whole["services"][name]


def test_compose_keeps_containers_small_and_postgresql_out_unless_it_is_asked_for() -> None:
    services = compose()["services"]
    assert services["database"]["profiles"] == ["postgresql"]
    for name, service in services.items():
        assert "no-new-privileges:true" in service["security_opt"], name
        if name != "database":  # its own script begins as root and gives that up
            assert service["cap_drop"] == ["ALL"], name
            assert service["read_only"] is True, name


def test_the_check_of_the_receiver_fails_where_nobody_answers() -> None:
    _, program, *arguments = compose()["services"]["serve"]["healthcheck"]["test"]
    assert program == "python3"
    asked = [one.replace("8080", "1") for one in arguments]  # nobody listens on port 1
    assert subprocess.run([sys.executable, *asked], capture_output=True, timeout=60, check=False).returncode != 0


# ---------------------------------------------------------------- infra/install


STUBS = {
    "git": 'echo "${REVISION-0123456789abcdef0123456789abcdef01234567}"',
    "python3": 'mkdir -p "$3/bin"; for one in pip python spot-runner; do ln -s "$STUB" "$3/bin/$one"; done',
    "id": "exit 0",
    "blkid": "exit ${BLKID-2}",
    "ip": "echo default via 192.0.2.1 dev ens5 proto dhcp",
    "mktemp": 'mkdir -p "$ROOT/tmp/relay.x"; touch "$ROOT/tmp/relay.x/key.pem"; echo "$ROOT/tmp/relay.x"',
    "install": (
        'for last; do :; done; if [ "$1" = -d ]; then mkdir -p "$last"; elif [ -d "$last" ]; then '
        'touch "$last/certificate.pem"; fi'
    ),
}
SILENT = ("apt-get", "useradd", "chown", "mkfs.ext4", "mount", "curl", "runuser", "systemctl")


class Machine:
    """A root directory, and programs that only note how they were called."""

    def __init__(self, directory: Path) -> None:
        self.root, self.programs, self.log = directory / "root", directory / "bin", directory / "log"
        for one in ("etc/spot-runner", "etc/systemd/system", "etc/caddy", "opt", "tmp", "var/lib"):
            (self.root / one).mkdir(parents=True)
        (self.root / "etc/fstab").touch()
        (self.root / "etc/spot-runner/control.env").touch()
        self.programs.mkdir()
        for name in {*STUBS, *SILENT, "stub"}:
            program = self.programs / name
            program.write_text(f'#!/bin/sh\necho "$(basename "$0") $*" >>"{self.log}"\n{STUBS.get(name, ":")}\n')
            program.chmod(0o755)

    def install(self, **told: str) -> subprocess.CompletedProcess[str]:
        self.log.write_text("")
        path = f"{self.programs}:{os.environ['PATH']}"
        environment = {"PATH": path, "ROOT": str(self.root), "STUB": str(self.programs / "stub"), **told}
        return subprocess.run(
            [INFRA / "install"], env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    def set_up(self, **told: str) -> None:
        lines = "".join(f"{name}={value}\n" for name, value in told.items())
        (self.root / "etc/spot-runner/install.env").write_text(lines)

    def calls(self, program: str) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if line.split()[0] == program]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_machine_becomes_a_control_plane(machine: Machine, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.touch()
    machine.set_up(PUBLIC_NAME="runners.example.org", HOME_DEVICE=str(disk))
    (machine.root / "etc/spot-runner/relay.env").write_text("SPOT_RUNNER_RELAY_ADDRESS=10.83.0.10\n")
    done = machine.install()
    assert (done.returncode, done.stderr) == (0, "")
    assert machine.calls("mkfs.ext4") == [f"mkfs.ext4 -q -L spot-runner {disk}"]
    assert f"{disk} /var/lib/spot-runner ext4" in (machine.root / "etc/fstab").read_text()
    assert "runners.example.org {\n" in (machine.root / "etc/caddy/Caddyfile").read_text()
    relay = (machine.root / "etc/spot-runner/relay.env").read_text()
    assert relay.endswith("SPOT_RUNNER_RELAY_PUBLIC_INTERFACE=ens5\n")
    assert (machine.root / "var/lib/spot-runner-relay/certificate.pem").exists()
    assert machine.calls("systemctl")[-1] == (
        "systemctl restart redis-server spot-runner-serve spot-runner-worker spot-runner-relay"
    )
    (hashed, own) = machine.calls("pip")
    assert "--require-hashes" in hashed
    assert "--no-deps" in own
    assert str((machine.root / "opt/spot-runner").readlink()) == f"/opt/spot-runner-{'0123456789abcdef' * 2}01234567"


def test_it_may_be_done_again_and_then_does_nothing_twice(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "disk").touch()
    machine.set_up(HOME_DEVICE=str(tmp_path / "disk"))
    machine.install()
    assert machine.install().returncode == 0
    assert machine.calls("mkfs.ext4") == machine.calls("pip") == []
    assert (machine.root / "etc/fstab").read_text().count("spot-runner") == 1


def test_another_revision_stands_beside_the_former(machine: Machine) -> None:
    machine.install()
    machine.install(REVISION="f" * 40)
    assert str((machine.root / "opt/spot-runner").readlink()) == f"/opt/spot-runner-{'f' * 40}"
    assert len(list((machine.root / "opt").glob("spot-runner-*"))) == 2


def test_a_disk_that_has_a_file_system_keeps_it(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "disk").touch()
    machine.set_up(HOME_DEVICE=str(tmp_path / "disk"))
    assert machine.install(BLKID="0").returncode == 0
    assert machine.calls("mkfs.ext4") == []
    assert machine.calls("mount") == ["mount /var/lib/spot-runner"]


def test_a_program_that_was_half_installed_is_installed_anew(machine: Machine) -> None:
    half = machine.root / "opt" / f"spot-runner-{'f' * 40}"
    (half / "bin").mkdir(parents=True)
    (half / "bin" / "pip").touch()
    assert machine.install(REVISION="f" * 40).returncode == 0
    assert len(machine.calls("pip")) == 2


def test_without_settings_nothing_is_done(machine: Machine) -> None:
    (machine.root / "etc/spot-runner/control.env").unlink()
    done = machine.install()
    assert done.returncode == 1
    assert "control.env is missing; write the settings there" in done.stderr
    assert machine.calls("apt-get") == []
