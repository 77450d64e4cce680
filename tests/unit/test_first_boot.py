"""What a control plane's machine is told at its first boot."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from workers.bootstrap.deploy import Wish, order_of, user_data_of
from workers.domain.errors import BadInput, Unfit
from workers.domain.first_boot import Program, user_data
from workers.domain.user_data import USER_DATA_MAX
from workers.settings import ControlSettings, RelaySettings

PROGRAM = Program("runners.example.org", "https://git.example.org/spot-runner.git", "0" * 40, f"sha256:{'1' * 64}")
DEVICE = "/dev/disk/by-id/scsi-0HC_Volume_7"


@pytest.fixture
def wish(tmp_path: Path) -> Wish:
    key = tmp_path / "id_ed25519.pub"
    key.write_text("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIexample operator\n")
    return Wish("runners", "fsn1", None, key, "203.0.113.7/32", 20, PROGRAM)


def environment(content: str) -> dict[str, str]:
    pairs = (line.split("=", 1) for line in content.splitlines())
    return {name: value.strip("'") for name, value in pairs}


def test_it_is_cloud_inits_and_names_only_settings_that_there_are(wish: Wish) -> None:
    text = user_data_of(wish, DEVICE)
    assert text.startswith("#cloud-config\n")
    assert len(text) < USER_DATA_MAX
    told = yaml.safe_load(text)
    assert set(told) == {"package_update", "packages", "write_files", "runcmd"}
    files = {one["path"]: environment(one["content"]) for one in told["write_files"]}
    assert {one["permissions"] for one in told["write_files"]} == {"0600"}
    known = {f"SPOT_RUNNER_{name.upper()}" for name in (*ControlSettings.model_fields, *RelaySettings.model_fields)}
    known |= {"SPOT_RUNNER_HETZNER_TOKEN_FILE", "SPOT_RUNNER_HETZNER_LOCATIONS"}
    assert files["/etc/spot-runner/control.env"].keys() | files["/etc/spot-runner/relay.env"].keys() <= known
    assert files["/etc/spot-runner/install.env"] == {"PUBLIC_NAME": "runners.example.org", "HOME_DEVICE": DEVICE}
    assert told["runcmd"][-1] == ["/opt/spot-runner-source/infra/install"]
    assert told["runcmd"][-2][-1] == PROGRAM.revision


@pytest.mark.skipif(not shutil.which("cloud-init"), reason="cloud-init is not on this machine")
def test_cloud_init_accepts_it(wish: Wish, tmp_path: Path) -> None:
    file = tmp_path / "user-data"
    file.write_text(user_data_of(wish, DEVICE))
    found = subprocess.run(
        ["cloud-init", "schema", "--config-file", file], capture_output=True, text=True, timeout=110, check=False
    )
    assert (found.returncode, "Valid" in found.stdout) == (0, True), found.stdout + found.stderr


@given(st.text(st.characters(codec="utf-8", exclude_characters="'", exclude_categories=("C", "Z"))))
def test_any_value_is_read_back_as_it_was(value: str) -> None:
    told = yaml.safe_load(user_data(PROGRAM, {"control.env": {"A": value}}))
    assert told["write_files"][0]["content"] == f"A='{value}'\n"


@pytest.mark.parametrize("value", ["it's", "a\nb", "\x00"])
def test_a_value_that_would_be_read_otherwise_is_refused(value: str) -> None:
    with pytest.raises(BadInput, match=r"A: .* leave them out"):
        user_data(PROGRAM, {"control.env": {"A": value}})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("public_name", "Runners.example.org"),
        ("public_name", "localhost"),
        ("public_name", "a.example.org; rm -rf /"),
        ("source", "git@git.example.org:spot-runner.git"),
        ("source", "https://user:password@git.example.org/x"),
        ("revision", "main"),
        ("package", "debian-12"),
    ],
)
def test_what_will_not_do_is_told_by_its_name(field: str, value: str) -> None:
    with pytest.raises(BadInput, match=f"^{field}: "):
        replace(PROGRAM, **{field: value})


def test_a_wish_that_will_not_do_is_told(wish: Wish, tmp_path: Path) -> None:
    private = tmp_path / "id_ed25519"
    private.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    for changed, place in (
        (replace(wish, name="Runners!"), "name"),
        (replace(wish, admin_network="everywhere"), "admin_network"),
        (replace(wish, ssh_key=tmp_path / "none"), "ssh_key"),
        (replace(wish, ssh_key=private), "ssh_key"),
    ):
        with pytest.raises((BadInput, Unfit), match=f"^{place}: "):
            order_of(changed)
    assert json.dumps(order_of(wish).admin_networks) == '["203.0.113.7/32"]'
