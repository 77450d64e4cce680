"""Packages of kernels, made with the programs that make real ones, and a small root that takes them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

SCRIPT: Final = Path(__file__).parents[2] / "images/rootfs/kernel.sh"
FORMER: Final = "6.1.0-44-cloud-amd64"
SPEC: Final = """
%global debug_package %{nil}
%global __os_install_post %{nil}
Name: kernel
Version: 6.7.12
Release: 1
Summary: A kernel of a test
License: GPL
%description
It does not boot.
%files
"""
CONTROL: Final = "Version: 1\nArchitecture: amd64\nMaintainer: nobody <n@example.org>\nDescription: a kernel\n"
# Of the root. They do what the real ones need and leave, and say what they were asked.
PROGRAMS: Final = {
    "depmod": 'test -d "$ROOT/lib/modules/$1/kernel"; echo of "$1" > "$ROOT/lib/modules/$1/modules.dep"',
    "update-initramfs": (
        'test "$1 $2" = "-c -k"; test -e "$ROOT/lib/modules/$3/modules.dep"; test -e "$ROOT/boot/config-$3"\n'
        'echo of "$3" > "$ROOT/boot/initrd.img-$3"'
    ),
    "apt-get": (
        'touch "$ROOT/var/cache/apt/pkgcache.bin"; for package; do :; done\n'
        'exec dpkg --root="$ROOT" --log=/dev/null --install "$ROOT$package"'
    ),
}
CHROOT: Final = '#!/bin/sh\nexport ROOT="${1%/}"; shift; program=$1; shift; exec "$ROOT/usr/sbin/$program" "$@"\n'


def an_rpm(folder: Path, files: Sequence[str], directories: Sequence[str] = ()) -> Path:
    """Make an RPM that holds these files, and lists these directories; what is in a file is its name."""
    tree = folder / "BUILDROOT"
    spec = folder / "kernel.spec"
    for name in directories:
        (tree / name.lstrip("/")).mkdir(parents=True, exist_ok=True)
    _write_files(tree, files)
    spec.write_text(SPEC + "".join(f"%dir {name}\n" for name in directories) + "".join(f"{name}\n" for name in files))
    defined = {"_topdir": folder, "_rpmdir": folder, "_rpmfilename": "kernel.rpm", "_dbpath": folder / "rpmdb"}
    words = [word for name, value in defined.items() for word in ("--define", f"{name} {value}")]
    subprocess.run(
        ["rpmbuild", "-bb", "--quiet", "--target", "x86_64", *words, "--buildroot", tree, spec],
        check=True,
        capture_output=True,
        timeout=120,
    )
    return folder / "kernel.rpm"


def a_deb(folder: Path, files: Sequence[str], name: str = "linux-image-6.12-pvm") -> Path:
    """Make a .deb that holds these files."""
    tree = folder / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(f"Package: {name}\n{CONTROL}")
    _write_files(tree, files)
    package = folder / "kernel.deb"
    made = ["dpkg-deb", "--build", "--root-owner-group", str(tree), str(package)]
    subprocess.run(made, check=True, capture_output=True, timeout=60)
    return package


def kernel_files(version: str) -> list[str]:
    """Return what `make binrpm-pkg` and `make bindeb-pkg` put into a package."""
    boot = [f"/boot/{name}-{version}" for name in ("vmlinuz", "config", "System.map")]
    return [*boot, f"/lib/modules/{version}/modules.builtin", f"/lib/modules/{version}/kernel/arch/x86/kvm/kvm-pvm.ko"]


def a_root(folder: Path) -> Path:
    """Make a root like Debian's, in which the distribution's kernel is installed."""
    root = folder / "root"
    for name in (
        "usr/lib/modules",
        "usr/sbin",
        "boot",
        "var/tmp",
        "var/cache/apt",
        "var/lib/dpkg/info",
        "var/lib/dpkg/updates",
    ):
        (root / name).mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    (root / "var/lib/dpkg/status").touch()
    _write_files(root, [f"/boot/{name}-{FORMER}" for name in ("vmlinuz", "config", "initrd.img")])
    for name, body in PROGRAMS.items():
        _write_program(root / "usr/sbin" / name, f"#!/bin/sh\nset -eu\n{body}\n")
    return root


def install(root: Path, package: Path) -> subprocess.CompletedProcess[str]:
    """Run the script on a package that is put into the root, by somebody whose files are nobody else's to read."""
    programs = root.parent / "programs"
    programs.mkdir(exist_ok=True)
    _write_program(programs / "chroot", CHROOT)
    name = package.rename(root / package.name).name
    path = f"{programs}:{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    return subprocess.run(
        [SCRIPT, root, f"/{name}"],
        env={"PATH": path, "DPKG_FORCE": "not-root", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        umask=0o077,
    )


def _write_files(tree: Path, files: Sequence[str]) -> None:
    for name in files:
        file = tree / name.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)


def _write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)
