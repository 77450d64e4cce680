"""`spot-runner package publish`: by digest or by file, into the store of the settings; what is wrong is a sentence."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from workers.bootstrap.publish import run_publish
from workers.domain.errors import BadInput, BadPackage
from workers.domain.published import INDEX, object_name, read_index
from workers.host.packages import digest_of
from workers.settings import ControlSettings, HostSettings

CONTENT = os.urandom(100_000)


@pytest.fixture
def control(tmp_path: Path) -> ControlSettings:
    return ControlSettings(home=tmp_path / "control")


@pytest.fixture
def host(tmp_path: Path) -> HostSettings:
    return HostSettings(package_store=tmp_path / "packages", package_cache=tmp_path / "unpacked")


@pytest.fixture
def package(host: HostSettings) -> Path:
    host.package_store.mkdir()
    path = host.package_store / f"sha256-{hashlib.sha256(CONTENT).hexdigest()}.package"
    path.write_bytes(CONTENT)
    return path


def test_a_package_is_published_by_its_digest_and_by_its_file(
    control: ControlSettings, host: HostSettings, package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = digest_of(package)
    run_publish(control, host, digest)
    said = capsys.readouterr().out
    assert "0.1 MiB of 0.1 MiB sent, 1 parts" in said
    assert digest in said
    index = control.home / "objects" / object_name(digest, INDEX)
    assert read_index(index.read_bytes(), digest).size == len(CONTENT)
    run_publish(control, host, str(package))
    assert "0.0 MiB of 0.1 MiB sent" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        ("sha256:zero", "is no digest"),
        ("sha256:" + "0" * 64, "does not exist; build it"),
        ("/nowhere/sha256-1.package", "does not exist; build it"),
        ("/etc/hostname", "is no digest"),
    ],
)
def test_what_is_no_package_is_one_sentence(
    control: ControlSettings, host: HostSettings, package: Path, named: str, sentence: str
) -> None:
    with pytest.raises(BadInput, match=sentence):
        run_publish(control, host, named)


def test_a_file_that_is_not_what_it_is_called_is_not_published(
    control: ControlSettings, host: HostSettings, package: Path
) -> None:
    package.write_bytes(CONTENT[:-1])
    with pytest.raises(BadPackage, match="the file has digest sha256:"):
        run_publish(control, host, digest_of(package))
    assert not (control.home / "objects" / object_name(digest_of(package), INDEX)).exists()
