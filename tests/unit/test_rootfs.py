from __future__ import annotations

import os
from pathlib import Path

import pytest

from workers.domain.errors import Unfit
from workers.host import debian
from workers.host.guest_files import add_nameservers, copy_tree
from workers.host.programs import run
from workers.host.recipe import read_recipe
from workers.host.rootfs import KEPT, digest, forget_old


@pytest.mark.parametrize(
    ("text", "serves"),
    [
        ("Types: deb\nURIs: http://mirror\nSuites: bookworm bookworm-updates\nComponents: main\n", True),
        ("Suites: bookworm-security\n", True),
        ("deb http://mirror bookworm main\n# deb http://other trixie main\ndeb-src http://mirror trixie main\n", True),
        ("deb [arch=amd64 signed-by=/k.gpg] http://mirror bookworm main contrib\n", True),
        ("deb http://mirror bookworm main\ndeb http://vendor stable main\n", False),
        ("Suites: noble noble-updates\n", False),
        ("Suites: bookworm\n\nSuites: nodistro\n", False),
        ("Suites: cloud-sdk-bookworm\n", False),
        ("", False),
    ],
)
def test_only_lists_that_are_wholly_of_the_suite_are_used(tmp_path: Path, text: str, *, serves: bool) -> None:
    path = tmp_path / "some.sources"
    path.write_text(text)

    assert debian.serves(path, "bookworm") is serves


def test_what_is_copied_into_a_guest_is_readable_and_no_by_product(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "__pycache__").mkdir(parents=True)
    (source / "__pycache__/x.pyc").touch()
    (source / "etc/sudoers.d").mkdir(parents=True)
    for name, mode in (("module.py", 0o600), ("tool", 0o700), ("etc/sudoers.d/runner", 0o644)):
        (source / name).touch(mode)

    copy_tree(source, tmp_path / "target")

    modes = {str(p.relative_to(tmp_path / "target")): p.stat().st_mode & 0o777 for p in _files(tmp_path / "target")}
    assert modes == {"module.py": 0o644, "tool": 0o755, "etc/sudoers.d/runner": 0o440}


def test_a_guest_is_told_whom_to_ask_for_names_whatever_its_root_had(tmp_path: Path) -> None:
    recipe = read_recipe(Path(__file__).parents[2] / "runner-vm/packages/debian-12.toml")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")

    add_nameservers(recipe, tmp_path)

    told = tmp_path / "etc/resolv.conf"
    assert told.read_text() == "".join(f"nameserver {server}\n" for server in recipe.nameservers)
    assert (told.is_symlink(), told.stat().st_mode & 0o777) == (False, 0o644)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_key_follows_from_every_input() -> None:
    assert digest("a", 1) == digest("a", 1)
    assert len({digest("a", 1), digest("a", 2), digest("a1"), digest("b", 1), digest("a", "1")}) == 5


def test_a_program_that_is_missing_fails_or_hangs_is_said_in_one_sentence() -> None:
    with pytest.raises(Unfit, match="no-such-program is not installed"):
        run(["no-such-program"])
    with pytest.raises(Unfit, match="sh failed: because"):
        run(["sh", "-c", "echo because >&2; exit 1"])
    with pytest.raises(Unfit, match=r"sleep did not end within 0\.1 s"):
        run(["sleep", "20"], limit_s=0.1)


def test_what_was_used_last_is_kept(tmp_path: Path) -> None:
    for number in range(KEPT + 2):
        (tmp_path / f"disk-{number}").mkdir()
        (tmp_path / f"disk-{number}/disk").touch()
        (tmp_path / f"rootfs-{number}.tar").touch()
        for path in (tmp_path / f"disk-{number}", tmp_path / f"rootfs-{number}.tar"):
            os.utime(path, (number, number))
    os.utime(tmp_path / "disk-0", (99, 99))

    forget_old(tmp_path)

    assert {path.name for path in tmp_path.glob("disk-*")} == {"disk-0", "disk-3", "disk-4"}
    assert {path.name for path in tmp_path.glob("rootfs-*")} == {"rootfs-2.tar", "rootfs-3.tar", "rootfs-4.tar"}
