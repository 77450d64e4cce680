"""What must be in the tree, and what must not."""

from __future__ import annotations

import re

import pytest

from tests.tidy.sources import ROOT, kept, python_files

TOP_LEVEL = (
    "pyproject.toml",
    "action.yml",
    "dev",
    "webhook",
    "workers",
    "images",
    "runner-vm",
    "infra",
    "tests",
    "docs",
)
INDEX = re.compile(r"--(extra-)?index-url|--find-links|https?://", re.IGNORECASE)
# Only the environment of whoever installs decides where packages come from.
REGISTRY = re.compile(r"pypi\.org|pythonhosted\.org|registry\.npmjs|proxy\.golang\.org", re.IGNORECASE)
PATCHES = re.compile(r"\bmock\.patch\b|\bunittest\.mock\b|\bmonkeypatch\.setattr\b|\btask_always_eager\b")


@pytest.mark.parametrize("name", TOP_LEVEL)
def test_the_house_has_its_rooms(name: str) -> None:
    path = ROOT / name
    assert path.is_file() or any(kept(name)), f"{name} is missing or empty"


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_a_lock_file_names_hashes_and_no_address(name: str) -> None:
    lines = (ROOT / name).read_text().splitlines()
    assert [line for line in lines if INDEX.search(line)] == []
    pinned = [line for line in lines if re.match(r"[a-z0-9._-]+(\[.*\])?==", line, re.IGNORECASE)]
    assert len(pinned) > 50
    assert all(line.endswith("\\") for line in pinned), "a requirement without a hash follows its version"


def test_no_file_names_a_package_registry() -> None:
    naming = []
    for path in kept():
        if path.suffix in {".png", ".json"} or path == ROOT / "tests/tidy/test_tree.py":
            continue
        if REGISTRY.search(path.read_text(errors="replace")):
            naming.append(str(path.relative_to(ROOT)))
    assert naming == []


def test_nobody_patches_our_own_code() -> None:
    patching = [
        f"{source.name}:{number}"
        for source in python_files()
        for number, line in enumerate(source.lines, start=1)
        if PATCHES.search(line) and source.name != "tests/tidy/test_tree.py"
    ]
    assert patching == []


def test_the_scripts_can_be_run() -> None:
    for name in ("dev", ".ci/run"):
        assert (ROOT / name).stat().st_mode & 0o111, f"{name} is not executable"
