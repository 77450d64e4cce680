"""A kernel's package, whatever made it, leaves a root with one kernel that boots; what is none leaves it as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.pinning import read_pin
from images.versions import load
from tests.unit.kernel_packages import FORMER, PROGRAMS, a_deb, a_root, an_rpm, install, kernel_files

V = "6.7.12-pvm-host-rocky-aws+"
LEFT = {f"config-{FORMER}"}


def boot(root: Path) -> set[str]:
    return {path.name for path in (root / "boot").iterdir()}


def whole(version: str) -> set[str]:
    return {f"{name}-{version}" for name in ("vmlinuz", "config", "System.map", "initrd.img")}


def test_an_rpm_of_the_kernels_own_makefile_is_the_only_one_that_boots(tmp_path: Path) -> None:
    root = a_root(tmp_path)
    done = install(root, an_rpm(tmp_path, kernel_files(V)))
    assert done.returncode == 0, done.stderr
    assert boot(root) == LEFT | whole(V)
    assert (root / f"boot/vmlinuz-{V}").read_text() == f"/boot/vmlinuz-{V}"
    assert (root / f"boot/initrd.img-{V}").read_text() == f"of {V}\n", "made after depmod had looked at the modules"
    module = root / f"usr/lib/modules/{V}/kernel/arch/x86/kvm/kvm-pvm.ko"
    assert (module.exists(), module.parent.stat().st_mode & 0o777) == (True, 0o755)
    assert list((root / "var/tmp").iterdir()) == []


@pytest.mark.parametrize("place", ["/lib/modules", "/usr/lib/modules"])
def test_a_kernel_that_lies_with_its_modules_is_put_where_the_loader_looks(tmp_path: Path, place: str) -> None:
    """Newer makefiles and Fedora pack it so. Their lists name directories, and Debian's /lib stays a link."""
    root, own = a_root(tmp_path), f"{place}/{V}"
    names = [f"{own}/{name}" for name in ("vmlinuz", "config", "System.map", "kernel/fs/ext4.ko")]
    listed = [place.removesuffix("/modules"), place, own, f"{own}/kernel"]
    done = install(root, an_rpm(tmp_path, names, listed))
    assert done.returncode == 0, done.stderr
    assert boot(root) == LEFT | whole(V)
    assert (root / f"boot/vmlinuz-{V}").read_text() == f"{own}/vmlinuz"
    assert (root / "lib").is_symlink()
    assert [path.name for path in (root / "usr/lib/modules").iterdir()] == [V]


def test_nothing_but_the_kernel_is_taken_from_an_rpm(tmp_path: Path) -> None:
    root = a_root(tmp_path)
    extra = ["/etc/passwd", "/boot/grub/grub.cfg", f"/usr/src/kernels/{V}/Makefile"]
    assert install(root, an_rpm(tmp_path, [*kernel_files(V), *extra])).returncode == 0
    assert [name for name in extra if (root / name.lstrip("/")).exists()] == []


def test_a_kernel_may_be_installed_again(tmp_path: Path) -> None:
    """What a former one of the same version had brought along is gone then."""
    root = a_root(tmp_path)
    for more in (["/boot/symvers-1"], []):
        folder = tmp_path / f"with-{len(more)}"
        folder.mkdir()
        module = f"/lib/modules/{V}/kernel/only-{len(more)}.ko"
        assert install(root, an_rpm(folder, [*kernel_files(V), module, *more])).returncode == 0
    assert {path.name for path in (root / f"lib/modules/{V}/kernel").glob("*.ko")} == {"only-0.ko"}
    assert boot(root) == LEFT | whole(V)


def test_a_deb_is_installed_by_dpkg_and_is_the_only_one_that_boots(tmp_path: Path) -> None:
    root = a_root(tmp_path)
    done = install(root, a_deb(tmp_path, [name.replace("/lib/", "/usr/lib/") for name in kernel_files("6.12-pvm")]))
    assert done.returncode == 0, done.stderr
    assert boot(root) == LEFT | whole("6.12-pvm")
    assert list((root / "var/cache/apt").iterdir()) == []
    assert "Package: linux-image-6.12-pvm\nStatus: install ok installed\n" in (root / "var/lib/dpkg/status").read_text()


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (["/usr/share/doc/kernel/README"], "there is no /boot/vmlinuz-"),
        ([*kernel_files(V), *kernel_files("6.8")], f"it holds the kernels {V}, 6.8; name a package with one"),
        ([f"/boot/vmlinuz-{V}", f"/boot/config-{V}"], f"it has no /lib/modules/{V}; name the package"),
    ],
)
def test_a_package_that_is_not_one_kernel_is_refused(tmp_path: Path, files: list[str], says: str) -> None:
    root = a_root(tmp_path)
    before = boot(root)
    done = install(root, an_rpm(tmp_path, files))
    assert done.returncode != 0
    assert says in done.stderr
    assert boot(root) == before
    assert list((root / "var/tmp").iterdir()) == list((root / "usr/lib/modules").iterdir()) == []


def test_a_package_that_ends_too_early_is_refused(tmp_path: Path) -> None:
    root, package = a_root(tmp_path), an_rpm(tmp_path, kernel_files(V))
    package.write_bytes(package.read_bytes()[:-40])
    before = boot(root)
    assert install(root, package).returncode != 0
    assert boot(root) == before


@pytest.mark.parametrize("failing", sorted(PROGRAMS.keys() - {"apt-get"}))
def test_the_former_kernel_stays_until_the_other_can_boot(tmp_path: Path, failing: str) -> None:
    root = a_root(tmp_path)
    (root / "usr/sbin" / failing).write_text("#!/bin/sh\nexit 7\n")
    assert install(root, an_rpm(tmp_path, kernel_files(V))).returncode == 7
    assert {f"vmlinuz-{FORMER}", f"initrd.img-{FORMER}"} <= boot(root)


def test_a_kernel_without_an_initial_ramdisk_is_no_success(tmp_path: Path) -> None:
    root = a_root(tmp_path)
    (root / "usr/sbin/update-initramfs").write_text("#!/bin/sh\nexit 0\n")
    done = install(root, an_rpm(tmp_path, kernel_files(V)))
    assert (done.returncode, f"there is no /boot/initrd.img-{V}" in done.stderr) == (1, True)
    assert f"vmlinuz-{FORMER}" in boot(root)


def test_what_is_no_package_is_refused(tmp_path: Path) -> None:
    root, file = a_root(tmp_path), tmp_path / "kernel.tar"
    file.touch()
    done = install(root, file)
    assert (done.returncode, done.stderr) == (1, "/kernel.tar: what is installed ends in .deb or .rpm\n")


def test_what_rpm_makes_can_be_pinned(tmp_path: Path) -> None:
    kernel = load().kernel["linux-pvm-ci-rocky-aws"]
    assert read_pin(kernel, an_rpm(tmp_path, kernel_files(V))).version == "kernel-6.7.12-1"
