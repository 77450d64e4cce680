"""A stranger's root file system: nothing that is read or written for it is ever outside of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.domain.errors import BadInput
from workers.host.roots import free_place, inside


def test_links_lead_where_they_would_inside_a_guest(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/dash").touch()
    (root / "bin").symlink_to("usr/bin")
    (root / "usr/bin/sh").symlink_to("/bin/dash")

    assert inside(root, "/bin/sh") == root / "usr/bin/dash"
    assert inside(root, "/../../bin/sh") == root / "usr/bin/dash"
    assert inside(root, "/bin/bash") is None
    assert inside(root, "//..") == root


STEPS = st.sampled_from(["a", "b", "c", "..", "/", ".", "a/b", "../../..", "/etc", "c/../..", "/a/b/c"])


@given(links=st.dictionaries(st.sampled_from(["a", "b", "c", "a/x"]), STEPS), path=st.lists(STEPS, min_size=1))
def test_no_link_leads_out(tmp_path_factory: pytest.TempPathFactory, links: dict[str, str], path: list[str]) -> None:
    root = tmp_path_factory.mktemp("outside") / "root"
    root.mkdir()
    for name, target in links.items():
        place = root / name
        if place.parent.is_dir() and not place.parent.is_symlink() and place.parent.resolve().is_relative_to(root):
            place.symlink_to(target)

    found = inside(root, "/".join(path))

    assert found is None or found.resolve().is_relative_to(root)


def test_a_file_of_ours_is_never_written_through_a_link(tmp_path: Path) -> None:
    root, victim = tmp_path / "root", tmp_path / "victim"
    root.mkdir()
    victim.mkdir()
    (victim / "kept").write_text("kept")
    (root / "opt").symlink_to(victim)
    (root / "file").symlink_to(victim / "kept")

    with pytest.raises(BadInput, match="/opt is a link in the root file system"):
        free_place(root, Path("opt/spot-runner/x"))
    free_place(root, Path("file")).write_text("ours")

    assert (victim / "kept").read_text() == "kept"
    assert list(victim.iterdir()) == [victim / "kept"]
