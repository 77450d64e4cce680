"""What cannot become a host image is refused before anything is started; what boots a disk stands where GRUB looks."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
from pathlib import Path

import pytest

from images.boot import BLOCKS, BOOT_AT, BOOT_CODE, BOOT_SECTOR, ROOT_AT, SECTOR, core, first_sector, menu, partitions
from images.build import check_fit
from images.order import Order, checked_order, read_settings
from images.pinning import Pin, write_pin
from images.versions import FILE, Kernel, Versions, load
from tests.unit.test_package_commands import UNFIT
from tests.unit.test_package_commands import _said as said
from workers.bootstrap.image import check_kernel_package, kernel_at_hand
from workers.domain.errors import BadInput, Unfit

DEBIAN = "debian-12-kvm"
SILENCE = Path(__file__).parents[2] / "images/rootfs/files/usr/lib/spot-runner/silence"


def an_order() -> Order:
    return checked_order(load(), "local-qcow2", "kvm", DEBIAN)


def with_kernels_of_ones_own() -> Versions:
    """Three that are pinned, from files."""
    own = {
        "acceleration": "pvm",
        "url": "https://example.org/k",
        "sha256": "a" * 64,
        "version": "theirs-1",
        "architecture": "x86_64",
        "clouds": ["aws", "hetzner", "local-qcow2"],
    }
    kernels = {
        "mine": Kernel.model_validate({"kind": "deb", **own}),
        "theirs": Kernel.model_validate({"kind": "rpm-repository", **own}),
        "later": Kernel.model_validate({"kind": "deb", "distribution": "debian-14", **own}),
    }
    return load().model_copy(update={"kernel": {**load().kernel, **kernels}})


@pytest.mark.parametrize(
    ("cloud", "kernel", "source", "says"),
    [
        ("gcp", "kvm", DEBIAN, "--cloud gcp: write one of aws, hetzner, local-qcow2"),
        ("aws", "pvm", "linux-pvm-ci-rocky-aws", "not pinned.*image pin linux-pvm-ci-rocky-aws FILE"),
        ("local-qcow2", "pvm", DEBIAN, f"{DEBIAN} is for kvm"),
        ("hetzner", "kvm", DEBIAN, f"{DEBIAN} is for aws, local-qcow2"),
        ("aws", "kvm", "none", "no kernel 'none'"),
        ("aws", "pvm", "theirs", "theirs: pin it by its https URL: a builder at the cloud fetches it"),
        ("hetzner", "pvm", "theirs", "theirs: pin it by its https URL: a builder at the cloud fetches it"),
        ("local-qcow2", "pvm", "later", "images are made of debian-12, debian-13, not of debian-14"),
    ],
)
def test_what_cannot_be_made_is_refused_with_its_name(cloud: str, kernel: str, source: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        checked_order(with_kernels_of_ones_own(), cloud, kernel, source)


def test_a_kernel_that_was_pinned_by_its_url_goes_to_every_cloud(tmp_path: Path) -> None:
    file = tmp_path / "versions.toml"
    file.write_bytes(FILE.read_bytes())
    for name, cloud in (("linux-pvm-ci-rocky-aws", "aws"), ("linux-pvm-ci-rocky-hetzner", "hetzner")):
        write_pin(file, name, Pin("kernel-6.7.12-1", "a" * 64, "https://example.org/kernel.rpm"))
        order = checked_order(load(file), cloud, "pvm", name)
        assert (order.kernel.package_url, order.debian.suite) == ("https://example.org/kernel.rpm", "bookworm")


def test_what_follows_from_a_debian() -> None:
    order = checked_order(load(), "local-qcow2", "kvm", "debian-13-kvm")
    assert (order.debian.suite, order.debian.python, order.debian.backports_monitor) == ("trixie", "3.13", False)
    assert (an_order().debian.suite, an_order().debian.python) == ("bookworm", "3.11")
    assert an_order().debian.backports_monitor
    assert "manylinux_2_36_x86_64" in an_order().debian.platforms
    assert "manylinux_2_39_x86_64" not in an_order().debian.platforms, "its C library is older"
    assert {"manylinux_2_39_x86_64", "manylinux_2_5_x86_64", "manylinux2014_x86_64"} <= set(order.debian.platforms)


def test_the_file_of_a_kernel_is_named_where_it_is_needed_and_nowhere_else(tmp_path: Path) -> None:
    theirs, mine = (checked_order(with_kernels_of_ones_own(), "local-qcow2", "pvm", one) for one in ("theirs", "mine"))
    check_kernel_package(theirs, tmp_path)
    check_kernel_package(mine, None)
    check_kernel_package(an_order(), None)
    with pytest.raises(BadInput, match="theirs was pinned from a file; name that file"):
        check_kernel_package(theirs, None)
    with pytest.raises(BadInput, match="debian-12's own, so there is no file"):
        check_kernel_package(an_order(), tmp_path)


def test_another_file_than_the_pinned_one_is_not_installed(tmp_path: Path) -> None:
    file, theirs = tmp_path / "kernel.rpm", with_kernels_of_ones_own().kernel["theirs"]
    file.write_text("a kernel")
    pinned = theirs.model_copy(update={"sha256": hashlib.sha256(b"a kernel").hexdigest()})
    with kernel_at_hand(pinned, file) as found:
        assert found == file
    with pytest.raises(BadInput, match="not theirs-1, the pinned one"), kernel_at_hand(theirs, file):
        pytest.fail("it must not be handed on")
    with kernel_at_hand(load().kernel[DEBIAN], None) as found:
        assert found is None


def test_a_disk_that_is_too_small_is_refused() -> None:
    with pytest.raises(BadInput, match="--disk-mib 100"):
        checked_order(load(), "local-qcow2", "kvm", DEBIAN, 100)


def test_the_daemon_is_told_what_the_image_is_for_and_the_operator_has_the_last_word() -> None:
    told = an_order().host_settings
    assert told == {"SPOT_RUNNER_ACCEL": "kvm", "SPOT_RUNNER_METADATA_KIND": "file"}
    order = Order("aws", DEBIAN, load().kernel[DEBIAN], settings=read_settings(["SPOT_RUNNER_ACCEL=tcg"]))
    assert order.host_settings == {"SPOT_RUNNER_ACCEL": "tcg", "SPOT_RUNNER_METADATA_KIND": "ec2"}


@pytest.mark.parametrize(
    "text", ["ACCEL=tcg", "SPOT_RUNNER_ACCEL", "SPOT_RUNNER_X='a'", "SPOT_RUNNER_X=a\nB=c", "PATH=/"]
)
def test_what_is_no_setting_of_the_daemon_s_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="--setting"):
        read_settings([text])


def test_the_command_refuses_in_one_sentence(tmp_path: Path) -> None:
    output = tmp_path / "host.qcow2"
    where = ("--output", str(output))
    words = (
        "--kernel",
        "pvm",
        "--source",
        "linux-pvm-ci-alma-hetzner",
        "--repository",
        "https://a.b/c",
        "--revision",
        "a" * 40,
    )
    unpinned = said("build", "--cloud", "hetzner", *words, command="image")
    assert (unpinned.returncode, unpinned.stdout) == (UNFIT, "")
    assert unpinned.stderr.count("\n") == 1
    assert "is not pinned" in unpinned.stderr
    files = said("build", "--cloud", "hetzner", *words, *where, command="image")
    assert (files.returncode, "takes no --output: the image stays at the cloud" in files.stderr) == (UNFIT, True)
    here = said("build", "--cloud", "hetzner", *words, "--kernel-package", "k.rpm", command="image")
    assert (here.returncode, "a builder there fetches what is pinned" in here.stderr) == (UNFIT, True)
    elsewhere = said(
        *("build", "--cloud", "local-qcow2", "--kernel", "kvm", "--source", DEBIAN),
        *("--output", str(tmp_path / "none/host.qcow2")),
        command="image",
    )
    assert (elsewhere.returncode, "there is no folder" in elsewhere.stderr) == (UNFIT, True)
    assert list(tmp_path.iterdir()) == []


def test_a_machine_that_lacks_something_is_told_what(tmp_path: Path) -> None:
    with pytest.raises(Unfit, match="no-such-program is not installed"):
        check_fit(tmp_path / "host.qcow2", tmp_path, 1, ("no-such-program",))
    with pytest.raises(Unfit, match="MiB left and an image needs"):
        check_fit(tmp_path / "host.qcow2", tmp_path / "not/yet", 1 << 40, ())


# ---------------------------------------------------------------- the disk


def test_grub_is_told_where_the_rest_of_it_is() -> None:
    boot, image = bytes(range(256)) * 2, bytes(range(256)) * 100
    sector, told = first_sector(boot), core(image)
    assert len(sector) == BOOT_CODE, "what comes after it is the partition table"
    assert struct.unpack_from("<Q", sector, BOOT_SECTOR) == (BOOT_AT,)
    assert struct.unpack_from("<Q", told, BLOCKS) == (BOOT_AT + 1,)
    assert (sector[:BOOT_SECTOR], sector[BOOT_SECTOR + 8 :]) == (boot[:BOOT_SECTOR], boot[BOOT_SECTOR + 8 : BOOT_CODE])
    assert (told[:BLOCKS], told[BLOCKS + 8 :]) == (image[:BLOCKS], image[BLOCKS + 8 :])
    with pytest.raises(ValueError, match="more than its partition"):
        core(bytes((ROOT_AT - BOOT_AT) * SECTOR + 1))


def test_the_table_has_a_place_for_grub_right_before_the_root() -> None:
    assert f"start={BOOT_AT}, size={ROOT_AT - BOOT_AT}, type=21686148-6449-6E6F-744E-656564454649\n" in partitions()
    assert f"start={ROOT_AT}, type=0FC63DAF" in partitions()


def test_the_kernel_is_booted_with_the_arguments_of_its_entry() -> None:
    text = menu("vmlinuz-6", "initrd.img-6", ["pti=off", "nokaslr"])
    assert "linux /boot/vmlinuz-6 root=LABEL=spot-runner-host ro " in text
    assert text.splitlines()[2].endswith(" pti=off nokaslr")
    assert text.splitlines()[3:] == ["initrd /boot/initrd.img-6", "boot"]


# ---------------------------------------------------------------- the machine that ends itself


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine with a systemctl that says what the test wants, and notes when it is told to power off."""
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(
        "#!/bin/sh\ncase $* in\n"
        f"poweroff) touch {tmp_path}/off ;;\n*ActiveState*) cat {tmp_path}/state ;;\n*) cat {tmp_path}/since ;;\nesac\n"
    )
    systemctl.chmod(0o755)
    return tmp_path


def powers_off(machine: Path, now: float, state: str, since_s: int) -> bool:
    for name, text in (("state", state), ("since", str(since_s * 1_000_000)), ("uptime", f"{now:.2f} 1.0\n")):
        (machine / name).write_text(text)
    environment = {
        "PATH": f"{machine}:{os.environ['PATH']}",
        "UPTIME": str(machine / "uptime"),
        "RUNTIME_DIRECTORY": str(machine),
        "CONSOLE": str(machine / "console"),
    }
    subprocess.run([SILENCE, "1800"], check=True, env=environment, timeout=30, stdout=subprocess.DEVNULL)
    return (machine / "off").exists()


def test_a_machine_whose_daemon_stays_up_lives_on(machine: Path) -> None:
    assert not any(powers_off(machine, now, "active", 30) for now in (60.5, 1900, 90_000))


def test_a_machine_whose_daemon_ends_again_and_again_ends_half_an_hour_after_it_last_stayed_up(machine: Path) -> None:
    assert not powers_off(machine, 5000, "active", 30)
    assert not powers_off(machine, 6000, "active", 5995), "it has only just begun, for the hundredth time"
    assert not powers_off(machine, 6799, "activating", 0)
    assert powers_off(machine, 6800, "active", 6795)
    assert "has not stayed up for 1800 s" in (machine / "console").read_text()


def test_a_machine_whose_daemon_never_begins_ends(machine: Path) -> None:
    assert not powers_off(machine, 1799, "inactive", 0)
    assert powers_off(machine, 1801, "inactive", 0)
