"""`spot-runner package` as people meet it: a process, its output, its exit status."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.runner_archive import NAME, write_archive
from tests.unit.small_package import small_manifest, write_devices
from workers.host.packages import BY_NAME, PackageShelf
from workers.host.recipe import read_recipe

UNFIT = 2


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("packages")
    (home / "devices").mkdir()
    shelf = PackageShelf(home / "store", home / "cache")
    return shelf.path(shelf.add(write_devices(home / "devices"), small_manifest))


def _said(*arguments: str, command: str = "package", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from workers.cli import main; main()", command, *arguments],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONPATH": "runner-vm", "COLUMNS": "200"} | environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_a_package_shows_what_it_says_of_itself(package: Path) -> None:
    said = _said("inspect", str(package))

    assert said.returncode == 0, said.stderr
    for part in (
        "small",
        "pc-q35-7.2",
        "qemu 7.2",
        "tcg",
        "5-level paging",
        "2793.440 MHz",
        "rehearsal-runner 0.1.0 of 2026-11-23",
        "sha256:",
    ):
        assert part in said.stdout


def test_a_package_by_its_recipe_s_name_is_verified_by_its_digest_too(package: Path) -> None:
    link = package.parent / BY_NAME
    PackageShelf(package.parent, package.parent).name("small", "sha256:" + package.stem[7:])  # type: ignore[arg-type]

    assert _said("inspect", str(link / "small")).returncode == 0


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_a_truncated_package_is_refused_in_one_sentence(package: Path, tmp_path: Path, command: str) -> None:
    half = tmp_path / package.name
    half.write_bytes(package.read_bytes()[: package.stat().st_size // 2])

    said = _said(command, str(half))

    assert said.returncode == UNFIT
    assert said.stdout == ""
    assert said.stderr.count("\n") == 1
    assert "corrupt or truncated" in said.stderr


def test_a_renamed_package_is_refused(package: Path, tmp_path: Path) -> None:
    other = tmp_path / f"sha256-{'0' * 64}.package"
    other.write_bytes(package.read_bytes())

    said = _said("verify", str(other))

    assert said.returncode == UNFIT
    assert "has digest" in said.stderr


@pytest.mark.parametrize(
    ("recipe", "environment", "says"),
    [
        ("none.toml", {}, "No such file or directory; name a recipe"),
        ("runner-vm/packages/debian-12.toml", {"SPOT_RUNNER_ACCEL": "xen"}, "write kvm, pvm or tcg"),
        ("runner-vm/packages/debian-12.toml", {"PATH": "/usr/bin:/bin"}, "mke2fs is not installed"),
    ],
)
def test_a_build_that_cannot_be_is_refused_before_anything_is_made(
    tmp_path: Path, recipe: str, environment: dict[str, str], says: str
) -> None:
    places = {"SPOT_RUNNER_BUILD_CACHE": str(tmp_path / "build"), "SPOT_RUNNER_PACKAGE_STORE": str(tmp_path / "store")}

    said = _said("build", recipe, **environment, **places)

    assert said.returncode == UNFIT
    assert says in said.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.guest
def test_an_operator_sees_what_guests_notice_of_this_machine() -> None:
    said = _said("--class", command="host", SPOT_RUNNER_ACCEL="tcg")

    assert said.returncode == 0, said.stderr
    for part in (
        "tcg: SPOT_RUNNER_ACCEL asks for it",
        "monitor: qemu ",
        "pc-q35-7.2",
        "guests see: AuthenticAMD",
        "MHz",
    ):
        assert part in said.stdout


@pytest.mark.guest
def test_a_package_that_does_not_fit_is_refused_by_property(package: Path) -> None:
    """The package is of an emulated machine that this one, whatever it is, does not show."""
    said = _said("verify", str(package), SPOT_RUNNER_ACCEL="tcg")

    assert said.returncode == UNFIT
    assert "manifest: " in said.stderr
    assert "build the package on a host of this class" in said.stderr


def test_a_package_s_bill_of_materials_is_printed_by_digest_and_by_name(package: Path) -> None:
    store = {"SPOT_RUNNER_PACKAGE_STORE": str(package.parent)}
    PackageShelf(package.parent, package.parent).name("small", "sha256:" + package.stem[7:])  # type: ignore[arg-type]

    by_digest, by_name = _said("sbom", "sha256:" + package.stem[7:], **store), _said("sbom", "small", **store)

    assert by_digest.returncode == 0, by_digest.stderr
    bill = json.loads(by_digest.stdout)
    assert by_name.stdout == by_digest.stdout
    assert bill["bomFormat"] == "CycloneDX"
    assert [(one["name"], one["version"]) for one in bill["components"]] == [("python3", "3.11")]


def test_a_bill_of_a_package_that_is_not_here_is_refused(package: Path) -> None:
    store = {"SPOT_RUNNER_PACKAGE_STORE": str(package.parent)}

    assert "does not exist; fetch or build it" in _said("sbom", f"sha256:{'0' * 64}", **store).stderr
    assert "is no digest" in _said("sbom", "sha256:12", **store).stderr
    assert "none of recipe 'other'" in _said("sbom", "other", **store).stderr


def test_an_archive_is_pinned_and_another_is_not_built(tmp_path: Path) -> None:
    for name in ("debian-12-base.toml", "github-runner.toml"):
        shutil.copy(Path(__file__).parents[2] / "runner-vm/packages" / name, tmp_path)
    recipe, archive = tmp_path / "github-runner.toml", write_archive(tmp_path / NAME)

    unpinned = _said("build", str(recipe), "--runner-archive", str(archive))
    pinned = _said("pin", str(recipe), "--released", "2026-11-20", "--runner-archive", str(archive))

    assert unpinned.returncode == UNFIT
    assert "is not pinned; let `spot-runner package pin`" in unpinned.stderr
    assert pinned.returncode == 0, pinned.stderr
    assert "version 2.999.1 of 2026-11-20, sha256:" in pinned.stdout
    assert read_recipe(recipe).pin.version == "2.999.1"
