"""What a machine is told that makes itself an image: everything that an image made here has, and what EC2 takes."""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from images.builder import FAILED, SCRIPT, SOURCE, Program, builder_user_data, script_of
from images.order import Order, checked_order
from images.root import ENABLED, settings_files
from images.versions import load
from tests.unit.test_image_orders import DEBIAN, with_kernels_of_ones_own
from workers.bootstrap.image_aws import AwsWish, order_of, run_build_aws
from workers.bootstrap.image_hetzner import HetznerWish
from workers.bootstrap.image_hetzner import order_of as hetzner_order
from workers.domain.errors import BadInput
from workers.domain.user_data import USER_DATA_MAX
from workers.providers.aws.builder import Order as MadeThere
from workers.providers.aws.requests import Rental
from workers.settings import ControlSettings

PROGRAM = Program("https://git.example.org/spot-runner.git", "a" * 40)


def an_order() -> Order:
    return checked_order(load(), "aws", "kvm", "debian-12-kvm")


def test_it_writes_the_settings_of_the_image_and_runs_one_script() -> None:
    text = builder_user_data(an_order(), PROGRAM)
    assert len(text.encode()) <= USER_DATA_MAX
    first, _, rest = text.partition("\n")
    told = json.loads(rest)
    assert (first, told["runcmd"]) == ("#cloud-config", [[SCRIPT]])
    files = {one["path"]: one["content"] for one in told["write_files"]}
    for name, content in settings_files(an_order()).items():
        assert files[f"/{name}"] == content
    assert "SPOT_RUNNER_METADATA_KIND='ec2'" in files["/etc/spot-runner/host.env"]
    assert json.loads(files["/etc/spot-runner/image.json"])["program"]["revision"] == "a" * 40


def test_the_script_is_one_of_sh_and_ends_with_the_machine_off(tmp_path: Path) -> None:
    script = script_of(an_order(), PROGRAM)
    (tmp_path / "script").write_text(script)
    subprocess.run(["sh", "-n", tmp_path / "script"], check=True, timeout=30)
    assert script.rstrip().endswith("systemctl poweroff")
    for word in (
        *ENABLED,
        "linux-image-cloud-amd64",
        "qemu-system-x86",
        "--require-hashes",
        f"checkout --quiet --detach {'a' * 40}",
    ):
        assert word in script
    assert "grub-pc-bin" not in script, "the cloud's image has its own loader"


def test_a_step_that_fails_is_named_on_the_console_and_the_machine_stays_on(tmp_path: Path) -> None:
    """The script runs up to its first program, which is one that fails."""
    console = tmp_path / "console"
    script = script_of(an_order(), PROGRAM).replace("/dev/console", str(console))
    (tmp_path / "apt-get").write_text("#!/bin/sh\nexit 100\n")
    (tmp_path / "apt-get").chmod(0o755)
    (tmp_path / "script").write_text(script)
    done = subprocess.run(
        ["sh", tmp_path / "script"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 100
    assert console.read_text() == f"{FAILED} at: the distribution's packages\n"


@pytest.mark.parametrize(
    ("version", "is_enough"), [("1:10.0.2+ds-2~bpo12+1", True), ("1:8.2.0", True), ("1:7.2+dfsg-7", False)]
)
def test_a_qemu_that_is_too_old_for_a_host_makes_no_image(tmp_path: Path, version: str, *, is_enough: bool) -> None:
    """These lines run here, with a dpkg that says which one was installed."""
    script, console = script_of(an_order(), PROGRAM), tmp_path / "console"
    begin, end = script.index('step="a QEMU'), script.index('step="the source"')
    trap = next(line for line in script.splitlines() if line.startswith("trap"))
    (tmp_path / "dpkg-query").write_text(f"#!/bin/sh\nprintf '%s' '{version}'\n")
    (tmp_path / "dpkg-query").chmod(0o755)
    lines = f"{trap.replace('/dev/console', str(console))}\n{script[begin:end]}"
    path = f"{tmp_path}:/usr/bin:/bin"
    done = subprocess.run(["sh", "-euc", lines], env={"PATH": path}, capture_output=True, timeout=30, check=False)
    assert (done.returncode == 0) is is_enough
    assert console.exists() is not is_enough
    if not is_enough:
        assert console.read_text().startswith(f"{FAILED} at: a QEMU of 8.2 or newer, which the base image's")


@pytest.mark.parametrize(("source", "name"), [("mine", "kernel.deb"), ("theirs", "kernel.rpm")])
@pytest.mark.parametrize("is_pinned_one", [True, False])
def test_a_kernel_of_ones_own_is_held_against_its_pin_before_it_is_installed(
    tmp_path: Path, source: str, name: str, *, is_pinned_one: bool
) -> None:
    """These lines run here, with a curl that brings a file, and an installer that says what it got."""
    kernel = with_kernels_of_ones_own().kernel[source]
    pinned = "kernel" if is_pinned_one else "another"
    kernel = kernel.model_copy(update={"sha256": hashlib.sha256(pinned.encode()).hexdigest()})
    kernel = kernel.model_copy(update={"file": f"https://example.org/{name}"} if source == "theirs" else {})
    script = script_of(Order("hetzner", source, kernel), PROGRAM)
    assert (
        script.index("checkout") < script.index("images/rootfs/kernel.sh / /root/kernel") < script.index("update-grub")
    )
    begin, end = script.index("curl -fsSL"), script.index('step="the program"')
    installer = tmp_path / "source/images/rootfs/kernel.sh"
    installer.parent.mkdir(parents=True)
    installer.write_text(f'#!/bin/sh\necho "$1 $(cat $2)" >> {tmp_path}/installed\n')
    (tmp_path / "curl").write_text(f'#!/bin/sh\necho "$*" > {tmp_path}/asked\nprintf kernel > "$5"\n')
    for program in (installer, tmp_path / "curl"):
        program.chmod(0o755)
    lines = script[begin:end].replace(SOURCE, str(tmp_path / "source")).replace("/root/", f"{tmp_path}/")
    path = f"{tmp_path}:/usr/bin:/bin"
    done = subprocess.run(["sh", "-euc", lines], env={"PATH": path}, stderr=subprocess.DEVNULL, timeout=60, check=False)
    assert (done.returncode == 0) is is_pinned_one
    assert (tmp_path / "asked").read_text().strip().endswith(kernel.package_url or "no url")
    assert (tmp_path / "installed").exists() is is_pinned_one
    if is_pinned_one:
        assert (tmp_path / "installed").read_text() == "/ kernel\n"
        assert not (tmp_path / name).exists()


def test_a_builder_has_what_the_installer_takes() -> None:
    def packages(source: str) -> set[str]:
        order = Order("hetzner", source, with_kernels_of_ones_own().kernel[source])
        line = next(line for line in script_of(order, PROGRAM).splitlines() if line.startswith("apt-get install"))
        return set(line.split())

    assert {"rpm2cpio", "cpio", "kmod", "initramfs-tools", "curl", "git"} <= packages("theirs")
    assert {"linux-base", "kmod", "initramfs-tools"} <= packages("mine")
    assert "rpm2cpio" not in packages(DEBIAN)


def test_an_image_at_hetzner_is_named_after_all_that_goes_into_it() -> None:
    wish = HetznerWish("pvm", "mine", None, PROGRAM.repository, PROGRAM.revision)
    one = hetzner_order(with_kernels_of_ones_own(), wish, ("cx42",), ("nbg1",))
    assert (one.kind, one.origin, one.server_type, one.location) == ("pvm", "debian-12", "cx42", "nbg1")
    assert one.name == f"spot-runner-mine-{one.key}"
    newer = with_kernels_of_ones_own()
    newer.kernel["mine"] = newer.kernel["mine"].model_copy(update={"distribution": "debian-13"})
    assert hetzner_order(newer, wish, ("cx42",), ("nbg1",)).origin == "debian-13"
    assert hetzner_order(newer, replace(wish, base_image="own"), ("cx42",), ("nbg1",)).origin == "own"
    other = replace(wish, revision="b" * 40)
    assert hetzner_order(with_kernels_of_ones_own(), other, ("cx42",), ("nbg1",)).key != one.key
    with pytest.raises(BadInput, match="SPOT_RUNNER_HETZNER_SERVER_TYPES"):
        hetzner_order(with_kernels_of_ones_own(), wish, (), ("nbg1",))
    with pytest.raises(BadInput, match="name the --repository"):
        hetzner_order(with_kernels_of_ones_own(), replace(wish, repository=None), ("cx42",), ("nbg1",))


@pytest.mark.parametrize(
    ("repository", "revision", "says"),
    [
        ("git@example.org:x", "a" * 40, "--repository"),
        ("https://user:word@example.org/x", "a" * 40, "--repository"),
        ("https://example.org/x; reboot", "a" * 40, "--repository"),
        ("https://example.org/x", "main", "--revision"),
    ],
)
def test_a_program_that_is_not_named_exactly_is_refused(repository: str, revision: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        Program(repository, revision)


def asked(**changed: str | None) -> AwsWish:
    told: dict[str, str | None] = {
        "base_image": "ami-1",
        "repository": PROGRAM.repository,
        "revision": PROGRAM.revision,
    }
    told |= changed
    return AwsWish("kvm", "debian-12-kvm", 8192, told["base_image"], told["repository"], told["revision"])


def ordered(**changed: str | None) -> MadeThere:
    rental = Rental("eu-central-1", "images", ("subnet-1",), ("m8i.large",))
    return order_of(asked(**changed), rental, is_public=lambda: False)


def test_an_image_is_named_after_all_that_goes_into_it() -> None:
    names = {ordered(**changed).name for changed in ({}, {"base_image": "ami-2"}, {"revision": "b" * 40})}
    assert len(names) == 3
    assert ordered().name == ordered().name
    assert (ordered().disk_gib, ordered().subnet, ordered().instance_type) == (8, "subnet-1", "m8i.large")


@pytest.mark.parametrize("missing", ["base_image", "repository", "revision"])
def test_what_the_builder_needs_is_asked_for_before_anything_is_rented(missing: str) -> None:
    with pytest.raises(BadInput, match="name --base-image"):
        ordered(**{missing: None})


def test_without_a_place_nothing_is_rented() -> None:
    with pytest.raises(BadInput, match="set SPOT_RUNNER_AWS_REGION"):
        run_build_aws(ControlSettings(), asked())
