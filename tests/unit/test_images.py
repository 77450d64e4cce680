"""Every input of a host image is pinned, or known not to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.versions import load
from workers.domain.errors import BadInput

RPM = """
format = 1
[kernel.k]
acceleration = "pvm"
kind = "rpm-repository"
url = "https://example.org/k.repo"
architecture = "x86_64"
clouds = ["aws"]
"""


def test_the_file_in_the_tree_is_lawful() -> None:
    versions = load()
    assert versions.pinned_kernel("debian-12-kvm").modules
    assert versions.pinned_kernel("debian-13-kvm").modules


def test_an_unpinned_kernel_is_not_built_from() -> None:
    with pytest.raises(BadInput, match=r"not pinned.*sha256"):
        load().pinned_kernel("linux-pvm-ci-rocky-aws")


def test_a_kernel_with_a_hash_is_pinned(tmp_path: Path) -> None:
    file = tmp_path / "versions.toml"
    file.write_text(RPM + f'sha256 = "{"a" * 64}"\n')
    assert load(file).pinned_kernel("k").url == "https://example.org/k.repo"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("format = 2\n[kernel]\n", "format"),
        ("format = 1\n", "kernel"),
        (RPM + 'sha256 = "abc"\n', "sha256"),
        (RPM.replace("https", "http"), "url"),
        (RPM.replace('"pvm"', '"tcg"'), "acceleration"),
        (RPM + "colour = 1\n", "colour"),
        (RPM.replace('url = "https://example.org/k.repo"\n', ""), "needs a `url`"),
        (RPM.replace("rpm-repository", "deb") + 'file = "https://example.org/k"\n', "has no `file`"),
        (RPM + 'file = "k.rpm"\n', "file"),
        (RPM.replace("rpm-repository", "distribution") + 'package = "linux"\n', "needs `distribution` and"),
        ("format =", "not TOML"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_the_place(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "versions.toml"
    file.write_text(text)
    with pytest.raises(BadInput, match=says):
        load(file)


def test_an_unknown_kernel_is_answered_with_those_that_are_known() -> None:
    with pytest.raises(BadInput, match="debian-12-kvm"):
        load().pinned_kernel("none")
