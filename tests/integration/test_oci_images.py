"""OCI images as guests' roots, by the real skopeo and umoci."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.oci_image import DISTRIBUTION, write_layout
from workers.domain.errors import BadInput
from workers.host.graft import PYTHON, RUNTIME, graft
from workers.host.oci import Image, fetch_image, unpack_image

pytestmark = pytest.mark.root
SYSTEM_PYTHON = Path("/usr/bin/python3.11")


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    return write_layout(tmp_path / "image")


def _unpacked(source: Path, work: Path) -> tuple[Image, Path]:
    work.mkdir()
    image = fetch_image(str(source), work / "layout")
    return image, unpack_image(image, work / "bundle")


def test_an_image_in_a_folder_becomes_a_root(layout: Path, tmp_path: Path) -> None:
    image, root = _unpacked(layout, tmp_path / "work")

    named = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    manifest = json.loads((layout / "blobs" / named.replace(":", "/")).read_text())
    assert image.digest == manifest["config"]["digest"]
    assert dict(image.environment)["GOPATH"] == "/go"
    assert (root / "usr/local/bin/tool").read_text() == DISTRIBUTION["usr/local/bin/tool"]
    assert image.part.component()["hashes"][0]["content"] == image.digest.removeprefix("sha256:")


def test_what_is_no_usable_image_is_refused_in_one_sentence(tmp_path: Path) -> None:
    without_shell = {name: text for name, text in DISTRIBUTION.items() if name != "bin/sh"}
    empty = tmp_path / "empty"
    empty.mkdir()
    broken = write_layout(tmp_path / "broken")
    for blob in (broken / "blobs/sha256").iterdir():
        blob.write_bytes(b"{}")
    refused = {
        write_layout(tmp_path / "no-shell", without_shell): "it has no /bin/sh, so no step of a job could run",
        write_layout(tmp_path / "arm", architecture="arm64"): "it is for linux/arm64; guests are linux/amd64 so far",
        write_layout(tmp_path / "loop", without_shell, {"bin/sh": "sh"}): "it has no /bin/sh",
        write_layout(
            tmp_path / "zero", environment=["A=b", "TOKEN=s3\0cret"]
        ): "its variable 'TOKEN' holds a zero byte",
        empty: "the folder is no OCI layout",
        broken: "no image (could be read there|that could be read)",
    }

    for number, (source, says) in enumerate(refused.items()):
        with pytest.raises(BadInput, match=says) as told:
            _unpacked(source, tmp_path / f"work-{number}")
        assert "\n" not in str(told.value)
        assert "cret" not in str(told.value), "a variable may be a secret"


def test_a_name_that_no_registry_answers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no image could be read there"):
        fetch_image("127.0.0.1:1/nobody/nothing:latest", tmp_path / "layout")


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with what is taken out of a finished Debian one; the Python and its libraries are this machine's own."""
    if not SYSTEM_PYTHON.exists():
        pytest.skip(f"there is no {SYSTEM_PYTHON} to take")
    root = tmp_path_factory.mktemp("debian")
    vm = Path(__file__).parents[2] / "runner-vm"
    (root / "usr/bin").mkdir(parents=True)
    shutil.copy(SYSTEM_PYTHON, root / "usr/bin")
    shutil.copytree("/usr/lib/python3.11", root / "usr/lib/python3.11", symlinks=True)
    for path in _libraries():
        (root / path.relative_to("/")).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / path.relative_to("/"))
    for name in ("bash", "ldd", "cat"):
        shutil.copy(f"/usr/bin/{name}", root / "usr/bin")
    (root / "bin").symlink_to("usr/bin")
    (root / "usr/lib/modules/6.1.0").mkdir(parents=True)
    (root / "usr/lib/modules/6.1.0/modules.dep").touch()
    shutil.copytree(vm / "rootfs/files/etc", root / "etc")
    (root / "etc/resolv.conf").write_text("nameserver 192.0.2.53\n")
    shutil.copytree(vm / "guest_agent", root / "opt/spot-runner/guest_agent")
    (root / "opt/spot-runner/runner.json").write_text('{"command": ["/home/runner/actions-runner/run.sh"]}')
    (root / "home/runner/actions-runner").mkdir(parents=True)
    (root / "home/runner/actions-runner/run.sh").touch(0o755)
    return root


def _libraries() -> list[Path]:
    modules = [str(path) for path in Path("/usr/lib/python3.11/lib-dynload").glob("*.so")]
    told = subprocess.run(
        ["ldd", SYSTEM_PYTHON, "/bin/bash", "/bin/cat", *modules],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    words = {word for line in told.splitlines() for word in line.split() if word.startswith("/") and ":" not in word}
    return [Path(word) for word in sorted(words)]


def test_a_grafted_image_runs_the_agent_s_python_whatever_it_is_made_of(
    layout: Path, debian: Path, tmp_path: Path
) -> None:
    """The image has no libraries at all: what runs in it is Debian's, started by Debian's own loader."""
    image, root = _unpacked(layout, tmp_path / "work")

    graft(debian, root, dict(image.environment))

    loader = [f"/{RUNTIME}/ld.so", "--library-path", f"/{RUNTIME}/lib", "--argv0", f"/{RUNTIME}/bin/python3"]
    code = "import guest_agent.service, guest_agent.init, ssl, ctypes, pwd; print(pwd.getpwnam('runner').pw_uid)"
    said = subprocess.run(
        ["chroot", root, *loader, f"/{RUNTIME}/bin/python3", "-I", "-c", code],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (said.returncode, said.stdout) == (0, "1002\n"), said.stderr
    assert f"exec {PYTHON} -I -m guest_agent.init" in (root / "sbin/init").read_text()


def test_what_our_init_starts_may_open_as_many_files_as_it_says() -> None:
    """Lower numbers than in a guest: not everywhere may root raise the highest one."""
    code = (
        "import subprocess, guest_agent.init as init; init.set_limits((128, 256)); "
        "subprocess.run(['sh', '-c', 'ulimit -S -n; ulimit -H -n'], timeout=60, check=True)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
        cwd=Path(__file__).parents[2] / "runner-vm",
    )
    assert said.stdout.split() == ["128", "256"]


def test_a_grafted_image_has_the_runner_its_user_and_its_surroundings(
    layout: Path, debian: Path, tmp_path: Path
) -> None:
    image, root = _unpacked(layout, tmp_path / "work")

    graft(debian, root, dict(image.environment))

    home = root / "home/runner"
    assert (home.stat().st_uid, (home / "actions-runner/run.sh").stat().st_uid) == (1002, 1002)
    assert (root / "etc/passwd").read_text().splitlines()[1].startswith("alice:")
    assert (root / "etc/sudoers.d/runner").stat().st_mode & 0o777 == (
        debian / "etc/sudoers.d/runner"
    ).stat().st_mode & 0o777
    told = json.loads((root / "opt/spot-runner/runner.json").read_text())
    assert told["environment"] == {"PATH": "/usr/local/go/bin:/usr/bin:/bin", "GOPATH": "/go"}
    assert (root / "lib/modules/6.1.0/modules.dep").exists()
    assert (root / "etc/resolv.conf").read_text() == "nameserver 192.0.2.53\n"


def test_an_image_whose_files_are_odd_gets_the_runner_all_the_same(debian: Path, tmp_path: Path) -> None:
    """Links that lead nowhere, entries of NIS, comments, and names in no UTF-8; its links are never this machine's."""
    passwd = "# of ours\n\nroot:x:0:0:r\u00f6\u00f6t:/root:/bin/sh\n+::::::\nrunner:x:none:none::/:/bin/sh\n"
    files = {name: text for name, text in DISTRIBUTION.items() if name != "etc/passwd"} | {"usr/etc/passwd": passwd}
    links = {"etc/passwd": "/usr/etc/passwd", "tmp": "/private/tmp", "var": "data/var"}
    _, root = _unpacked(write_layout(tmp_path / "image", files, links), tmp_path / "work")
    (root / "usr/etc/passwd").write_bytes(passwd.encode("latin-1"))

    graft(debian, root, {})

    lines = (root / "etc/passwd").read_bytes().splitlines()
    assert lines[: passwd.count("\n")] == passwd.encode("latin-1").splitlines()
    assert lines[-1].startswith(b"runner:x:1002:1002:")
    assert (root / "home/runner").stat().st_uid == 1002
    assert ((root / "tmp").is_dir(), (root / "tmp").stat().st_mode & 0o7777) == (True, 0o1777)
    assert ((root / "var").is_dir(), (root / "var").stat().st_mode & 0o7777) == (True, 0o755)


def test_an_image_with_systemd_keeps_it(debian: Path, tmp_path: Path) -> None:
    files = DISTRIBUTION | {"usr/lib/systemd/systemd": "#!not run here\n", "usr/sbin/other": ""}
    source = write_layout(tmp_path / "image", files, {"lib": "usr/lib", "sbin": "usr/sbin"})
    _, root = _unpacked(source, tmp_path / "work")

    graft(debian, root, {})

    assert (root / "usr/sbin/init").readlink() == Path("/lib/systemd/systemd")
    assert (
        f"ExecStart={PYTHON} -I -m guest_agent" in (root / "etc/systemd/system/spot-runner-agent.service").read_text()
    )
    assert (root / "etc/systemd/system/sysinit.target.wants/spot-runner-agent.service").is_symlink()
    assert (root / "usr/lib/modules/6.1.0").is_dir()


@pytest.mark.parametrize("name", ["opt", "etc/systemd", "home", "lib/modules"])
def test_an_image_whose_links_would_lead_out_is_refused(debian: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    _, root = _unpacked(write_layout(tmp_path / "image", DISTRIBUTION, {name: str(outside)}), tmp_path / "work")

    with pytest.raises(BadInput, match=f"/{name} is a link in the root file system"):
        graft(debian, root, {})
    assert list(outside.iterdir()) == []
