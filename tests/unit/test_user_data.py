"""What a machine is told: three things, in cloud-init's own format, and never more than clouds take."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.bootstrap.surroundings import surroundings_of, user_data_of
from workers.domain.errors import BadInput, Refused, Unfit, Unreachable
from workers.domain.messages import Surroundings
from workers.domain.names import HostId
from workers.domain.overlay import HUB_ADDRESS, Overlay
from workers.domain.user_data import (
    BOOTSTRAP_FILE,
    USER_DATA_MAX,
    cloud_config,
    host_of_token,
    host_token,
    read_cloud_config,
)
from workers.host.told import FileMetadata, keep_surroundings, kept_surroundings, read_user_data
from workers.settings import ControlSettings

TOLD = {
    "control_url": "https://control.example:8443",
    "control_ca_sha256": "ab" * 32,
    "token": "spot-host-a.secret",
}
LIMIT_S = 60.0


@given(st.dictionaries(st.text(min_size=1), st.text()))
def test_what_is_told_is_what_is_read(told: dict[str, str]) -> None:
    assert json.loads(read_cloud_config(cloud_config(told))) == told


@given(st.text())
def test_whatever_else_stands_there_is_one_sentence(text: str) -> None:
    for wrong in (text, f"#cloud-config\n{text}"):
        with pytest.raises(BadInput, match=r"^user data: .+"):
            read_cloud_config(wrong)


def test_user_data_that_is_too_large_names_what_is_to_be_shorter() -> None:
    room = USER_DATA_MAX - len(cloud_config({**TOLD, "control_url": ""}))
    assert len(cloud_config({**TOLD, "control_url": "x" * room}).encode()) == USER_DATA_MAX
    with pytest.raises(
        Refused, match=rf"^user data: {USER_DATA_MAX + 1} bytes, and clouds take 16384; shorten control_url$"
    ):
        cloud_config({**TOLD, "control_url": "x" * (room + 1)})


def test_a_machine_is_told_three_things_and_hears_the_rest_once_it_has_registered(tmp_path: Path) -> None:
    settings = ControlSettings(home=tmp_path, host_url="https://control:8443", relay_address="10.0.0.3")
    assert set(user_data_of(settings)) | {"token"} == set(TOLD)
    assert surroundings_of(settings) == Surroundings("10.0.0.3", settings.guest_mtu, Overlay.PLAIN)
    sealed = ControlSettings(home=tmp_path, overlay=Overlay.WIREGUARD)
    assert surroundings_of(sealed).relay_address == HUB_ADDRESS
    keep_surroundings(tmp_path / "identity", surroundings_of(sealed))
    assert kept_surroundings(tmp_path / "identity") == surroundings_of(sealed)


def test_a_token_says_whose_it_is_and_a_trouble_with_it_does_not_repeat_it() -> None:
    assert host_of_token(host_token(HostId("spot-host-a"), "secret")) == "spot-host-a"
    for wrong in ("secret", ".secret", "spot-host-a."):
        with pytest.raises(BadInput, match="does not say whose it is") as refusal:
            read_user_data(cloud_config({**TOLD, "token": wrong}))
        assert "secret" not in str(refusal.value)


def test_a_machine_without_a_metadata_service_reads_what_cloud_init_wrote(tmp_path: Path) -> None:
    file = tmp_path / "bootstrap.json"
    metadata = FileMetadata(file)
    with pytest.raises(Unreachable, match="cloud-init has not written it yet"):
        asyncio.run(metadata.user_data())
    file.write_text(read_cloud_config(cloud_config({**TOLD, "control_url": "https://127.0.0.1:8443"})))
    told = asyncio.run(metadata.user_data())
    assert (told.host_id, told.token) == ("spot-host-a", TOLD["token"])
    assert asyncio.run(metadata.local_address()) == "127.0.0.1"
    assert asyncio.run(metadata.public_address()) is None
    file.write_text("{}")
    with pytest.raises(BadInput, match=r"user data: control_url: "):
        asyncio.run(metadata.user_data())


@pytest.mark.parametrize(
    ("content", "because"),
    [
        (b'{"token": "secret\xff"}', r"cannot be read \(it is no text"),
        (b"secret", "user data: body"),
        (None, "Is a dir"),
    ],
)
def test_a_file_that_cloud_init_has_not_written_is_one_sentence_without_the_token(
    tmp_path: Path, content: bytes | None, because: str
) -> None:
    file = tmp_path / "bootstrap.json"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    with pytest.raises(BadInput, match=because) as refusal:
        asyncio.run(FileMetadata(file).user_data())
    assert str(refusal.value).isprintable()
    assert "codec" not in "".join(traceback.format_exception(refusal.value)), "which tells a byte"
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "because"),
    [
        ('{"relay_address": 1, "guest_mtu": "x"}', r"\(relay_address: Input should be a valid string\); replace"),
        ("[", r"\(body: Invalid JSON: .*\); replace"),
        (None, r"cannot be read \(No such file or directory\); replace"),
    ],
)
def test_surroundings_that_were_not_kept_are_one_sentence(tmp_path: Path, content: str | None, because: str) -> None:
    if content is not None:
        (tmp_path / "surroundings.json").write_text(content)
    with pytest.raises(Unfit, match=because) as refusal:
        kept_surroundings(tmp_path)
    assert str(refusal.value).isprintable()


def cloud_init_says(text: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Let cloud-init hold user data against its own schema."""
    program = shutil.which("cloud-init", path="/usr/bin")
    assert program is not None, "cloud-init is not installed; ./dev test installs it"
    (tmp_path / "user-data").write_text(text)
    command = [program, "schema", "--config-file", str(tmp_path / "user-data")]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)


def test_cloud_init_itself_takes_it(tmp_path: Path) -> None:
    said = cloud_init_says(cloud_config(TOLD), tmp_path)
    assert (said.returncode, "Valid" in said.stdout) == (0, True), said
    assert BOOTSTRAP_FILE in cloud_config(TOLD)


def test_cloud_init_would_have_said_what_it_does_not_take(tmp_path: Path) -> None:
    said = cloud_init_says(cloud_config(TOLD).replace('"permissions"', '"permission"'), tmp_path)
    assert said.returncode != 0, "the schema is not looked at"
