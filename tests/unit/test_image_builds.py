"""An image is whole or not there, and of an attempt that failed, or was killed, nothing stays."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from images.boot import BOOT_AT, LABEL, ROOT_AT, SECTOR
from images.build import KEPT, build, forget_old, make_disk
from images.order import Baked, Order, checked_order
from images.root import FILES, INSTALLER, SERVICE, SHELF, Workshop, add_ours, for_any_python
from images.versions import load
from workers.domain.errors import Unfit
from workers.host.guest_files import copy_tree
from workers.host.programs import run

CHECKOUT = Path(__file__).parents[2]
DISK_MIB = 2048
needs_programs = pytest.mark.skipif(
    not (shutil.which("sfdisk") and shutil.which("mke2fs")), reason="sfdisk or mke2fs is not on this machine"
)


def an_order(**more: object) -> Order:
    order = checked_order(load(), "local-qcow2", "kvm", "debian-12-kvm", DISK_MIB)
    return Order(order.cloud, order.source, order.kernel, DISK_MIB, **more)  # type: ignore[arg-type]  # its own fields


class Programs:
    """Foreign programs that do what making an image counts on, and of which one may fail, or never end."""

    def __init__(self, failing: int | None = None, hanging: int | None = None) -> None:
        self.calls: list[str] = []
        self._failing, self._hanging = failing, hanging

    def run(self, command: Sequence[str], limit_s: float = 1.0) -> str:
        self.calls.append(command[0])
        if len(self.calls) == self._failing:
            raise Unfit(f"{command[0]} failed: as planted")
        if len(self.calls) == self._hanging:
            sys.stdout.write("hanging\n")
            sys.stdout.flush()
            signal.pause()
        self._play(command)
        return ""

    def _play(self, command: Sequence[str]) -> None:
        words = list(command)
        match words:
            case ["tar", *_]:
                root = Path(words[words.index("--directory") + 1])
                for name in ("boot/vmlinuz-6", "usr/lib/grub/i386-pc/boot.img"):
                    (root / name).parent.mkdir(parents=True, exist_ok=True)
                    (root / name).write_bytes(bytes(SECTOR))
            case [_, "-m", "pip", *_] if "download" in words:
                Path(words[words.index("--dest") + 1]).mkdir()
            case [_, "-m", "pip", *_]:
                (Path(words[words.index("--wheel-dir") + 1]) / "spot_runner-0.whl").touch()
            case ["unshare", *_] if "grub-mkimage" in words:
                (Path(words[words.index("grub-mkimage") - 1]) / "boot/grub/core.img").write_bytes(bytes(SECTOR))
            case ["qemu-img", *_]:
                Path(words[-1]).write_text("an image")
            case _:
                pass


def a_workshop(cache: Path, programs: Programs) -> Workshop:
    def make_tar(tar: Path, suite: str, packages: Sequence[str], hooks: Path, more: Sequence[str]) -> None:
        work = tar.with_name(".mmdebstrap.work")
        work.mkdir()
        try:
            programs.run(["mmdebstrap"])
        finally:
            work.rmdir()
        tar.touch()

    return Workshop(CHECKOUT, cache, programs.run, make_tar, copy_tree)


def left(cache: Path) -> set[str]:
    return {path.name.partition("-")[0] for path in cache.iterdir()}


def steps(tmp_path: Path) -> int:
    programs = Programs()
    build(an_order(), a_workshop(tmp_path / "counted", programs), tmp_path / "counted.qcow2")
    (tmp_path / "counted.qcow2").unlink()
    return len(programs.calls)


def test_whatever_fails_nothing_half_made_stays_and_a_former_image_does(tmp_path: Path) -> None:
    count = steps(tmp_path)
    assert count > 8
    for failing in range(1, count + 1):
        cache, output = tmp_path / f"cache-{failing}", tmp_path / f"out-{failing}/host.qcow2"
        output.parent.mkdir()
        output.write_text("the former one")
        with pytest.raises(Unfit, match="as planted"):
            build(an_order(), a_workshop(cache, Programs(failing)), output)
        assert [(path.name, path.read_text()) for path in output.parent.iterdir()] == [(output.name, "the former one")]
        assert left(cache) <= {".image", "host", "wheels"}, failing
        assert not [path for path in cache.iterdir() if path.name.startswith((".image.", ".wheel"))]


def test_what_a_killed_build_leaves_is_removed_by_the_next(tmp_path: Path) -> None:
    count = steps(tmp_path)
    cache, output = tmp_path / "cache", tmp_path / "host.qcow2"
    for hanging in (1, count // 2, count):  # the first is mmdebstrap
        script = (
            "from pathlib import Path; from tests.unit.test_image_builds import *; "
            f"build(an_order(), a_workshop(Path({str(cache)!r}), Programs(None, {hanging})), Path({str(output)!r}))"
        )
        environment = {**os.environ, "PYTHONPATH": f"{CHECKOUT}:{CHECKOUT / 'runner-vm'}"}
        shutil.rmtree(cache, ignore_errors=True)
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment) as building:
            assert building.stdout is not None
            assert building.stdout.readline() == b"hanging\n"
            building.send_signal(signal.SIGKILL)
        assert not output.exists()
        build(an_order(), a_workshop(cache, Programs()), output)
        assert not [path for path in cache.iterdir() if path.name.startswith((".image.", ".wheel", ".mmdebstrap"))]
        assert [path.name for path in tmp_path.glob("*host.qcow2*")] == ["host.qcow2"]
        output.unlink()


def test_what_was_used_last_is_kept(tmp_path: Path) -> None:
    for number in range(KEPT + 2):
        (tmp_path / f"wheels-{number}").mkdir()
        (tmp_path / f"host-{number}.tar").touch()
        for path in (tmp_path / f"wheels-{number}", tmp_path / f"host-{number}.tar"):
            os.utime(path, (number, number))
    forget_old(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"wheels-2", "wheels-3", "host-2.tar", "host-3.tar"}


def test_a_root_holds_what_its_kernel_and_its_daemon_are_told(tmp_path: Path) -> None:
    root, package = tmp_path / "root", tmp_path / "p"
    (root / "etc/systemd/system").mkdir(parents=True)
    package.write_text("a package")
    kernel = load().kernel["linux-pvm-ci-rocky-aws"]
    digest = f"sha256:{'a' * 64}"
    order = Order("aws", "linux-pvm-ci-rocky-aws", kernel, packages=(Baked(digest, package),))
    add_ours(order, a_workshop(tmp_path, Programs()), root)
    assert (root / "etc/modprobe.d/spot-runner.conf").read_text() == "blacklist kvm-intel\nblacklist kvm-amd\n"
    assert (root / "etc/modules-load.d/spot-runner.conf").read_text() == "kvm-pvm\n"
    settings = (root / "etc/spot-runner/host.env").read_text().splitlines()
    assert settings == ["SPOT_RUNNER_ACCEL='pvm'", "SPOT_RUNNER_METADATA_KIND='ec2'"]
    assert (root / SHELF / f"sha256-{'a' * 64}.package").read_text() == "a package"
    assert (root / "etc/systemd/system" / SERVICE).read_text() == (CHECKOUT / "infra/systemd" / SERVICE).read_text()
    assert json.loads((root / "etc/spot-runner/image.json").read_text())["packages"] == [digest]


def test_what_only_some_pythons_need_is_fetched_whoever_fetches() -> None:
    lock = "a==1 ; python_full_version < '3.11.3' \\\n    --hash=sha256:0\nb==2 ; sys_platform == 'win32' \\\n"
    assert for_any_python(lock) == "a==1 \\\n    --hash=sha256:0\nb==2 ; sys_platform == 'win32' \\\n"
    left = [
        line for line in for_any_python((CHECKOUT / "requirements.txt").read_text()).splitlines() if "python_" in line
    ]
    assert all("python_version" not in line and "python_full_version" not in line for line in left)


def test_the_kernel_of_a_package_is_installed_by_the_root_s_own_programs(tmp_path: Path) -> None:
    """Before the daemon, and nothing of it stays but what it installed."""
    package, seen = tmp_path / "kernel-6.7.12.x86_64.rpm", []

    class Looking(Programs):
        def run(self, command: Sequence[str], limit_s: float = 1.0) -> str:
            if "/kernel/kernel.sh" in command:
                root = Path(command[command.index("/kernel/kernel.sh") - 1])
                seen.append([*command[command.index("/kernel/kernel.sh") :], (root / "kernel/kernel.rpm").read_text()])
                assert (root / "kernel/kernel.sh").read_bytes() == (FILES / INSTALLER).read_bytes()
                assert os.access(root / "kernel/kernel.sh", os.X_OK)
            seen.extend(["left"] for path in command if (Path(path) / "kernel").exists() and "grub-mkimage" in command)
            return super().run(command, limit_s)

    package.write_text("a kernel")
    kernel = load().kernel["linux-pvm-ci-rocky-aws"]
    order = Order("local-qcow2", "theirs", kernel, DISK_MIB, kernel_package=package)
    build(order, a_workshop(tmp_path / "cache", Looking()), tmp_path / "host.qcow2")
    assert seen == [["/kernel/kernel.sh", "/", "/kernel/kernel.rpm", "a kernel"]]


def test_the_root_and_the_wheels_are_those_of_the_debian(tmp_path: Path) -> None:
    asked: list[Sequence[str]] = []

    class Noting(Programs):
        def run(self, command: Sequence[str], limit_s: float = 1.0) -> str:
            asked.append(command)
            return super().run(command, limit_s)

    def make_tar(tar: Path, suite: str, packages: Sequence[str], hooks: Path, more: Sequence[str]) -> None:
        asked.append((suite, *packages))
        tar.touch()

    shop = replace(a_workshop(tmp_path / "cache", Noting()), make_tar=make_tar)
    for source, suite, python in (("debian-12-kvm", "bookworm", "3.11"), ("debian-13-kvm", "trixie", "3.13")):
        order = checked_order(load(), "local-qcow2", "kvm", source, DISK_MIB)
        build(order, shop, tmp_path / "host.qcow2")
        assert any(words[0] == suite and words[-1] == "linux-image-cloud-amd64" for words in asked)
        assert any(f"--python-version={python}" in words for words in asked)
        asked.clear()


@needs_programs
def test_a_disk_has_grub_its_table_and_the_root(tmp_path: Path) -> None:
    root, disk = tmp_path / "root", tmp_path / "disk"
    (root / "boot/grub").mkdir(parents=True)
    (root / "boot/grub/boot.img").write_bytes(b"\xeb\x63" + bytes(SECTOR - 2))
    (root / "boot/grub/core.img").write_bytes(b"core" * SECTOR)
    (root / "etc").mkdir()
    (root / "etc/hostname").write_text("spot-runner-host\n")

    make_disk(Workshop(CHECKOUT, tmp_path, run, None, copy_tree), root, disk, DISK_MIB)  # type: ignore[arg-type]  # no tar

    assert not root.exists()
    assert disk.stat().st_size == DISK_MIB << 20
    table = json.loads(run(["sfdisk", "--json", str(disk)]))["partitiontable"]
    loader, system = table["partitions"]
    assert (loader["start"], loader["size"], system["start"]) == (BOOT_AT, ROOT_AT - BOOT_AT, ROOT_AT)
    with disk.open("rb") as file:
        assert file.read(2) == b"\xeb\x63"
        file.seek(BOOT_AT * SECTOR)
        assert file.read(4) == b"core"
    system_disk = f"{disk}?offset={ROOT_AT * SECTOR}"
    assert run(["debugfs", "-R", "cat /etc/hostname", system_disk]) == "spot-runner-host\n"
    head = run(["dumpe2fs", "-h", system_disk])
    assert LABEL in head
    blocks = int(next(line for line in head.splitlines() if line.startswith("Block count")).split()[-1])
    assert blocks * 4096 <= system["size"] * SECTOR
