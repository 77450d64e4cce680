"""A hash in versions.toml comes from a file that was read, and writing it changes nothing else."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.pinning import BYTES_MAX, Pin, at_hand, check_can_be_pinned, pinned_text, read_pin, write_pin
from images.versions import FILE, Kernel, load
from tests.unit.test_package_commands import UNFIT
from tests.unit.test_package_commands import _said as said
from workers.domain.errors import BadInput, TryLater

NAME = "linux-pvm-ci-rocky-aws"
PIN = Pin("kernel-6.7.12-1", "a" * 64)
RPM = Kernel.model_validate(
    {
        "acceleration": "pvm",
        "kind": "rpm-repository",
        "url": "https://example.org/k.repo",
        "architecture": "x86_64",
        "clouds": ["aws"],
    }
)
DEB = RPM.model_copy(update={"kind": "deb", "url": "https://example.org/k.deb"})


def an_rpm(path: Path, name: str = "kernel-6.7.12-1", *, kind: int = 0, architecture: int = 1) -> Path:
    lead = b"\xed\xab\xee\xdb\x03\x00" + bytes((0, kind, 0, architecture)) + name.encode().ljust(66, b"\0")
    path.write_bytes(lead.ljust(96, b"\0") + b"what is in it")
    return path


def a_deb(path: Path, name: str = "linux-image-6.12.1-pvm", architecture: str = "amd64") -> Path:
    control = path.parent / path.stem / "DEBIAN/control"
    control.parent.mkdir(parents=True)
    control.write_text(
        f"Package: {name}\nVersion: 6.12.1-2\nArchitecture: {architecture}\nMaintainer: nobody\nDescription: a kernel\n"
    )
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", control.parents[1], path], check=True, timeout=60)
    return path


def test_the_hash_and_the_version_are_those_of_the_file(tmp_path: Path) -> None:
    rpm, deb = an_rpm(tmp_path / "any-name"), a_deb(tmp_path / "k.deb")
    assert read_pin(RPM, rpm) == Pin("kernel-6.7.12-1", hashlib.sha256(rpm.read_bytes()).hexdigest())
    assert read_pin(DEB, deb) == Pin("linux-image-6.12.1-pvm-6.12.1-2", hashlib.sha256(deb.read_bytes()).hexdigest())


def test_a_file_that_is_no_kernel_for_this_machine_is_refused(tmp_path: Path) -> None:
    repository = tmp_path / "k.repo"
    repository.write_text("[linux-pvm-ci]\nbaseurl=https://example.org\n" * 4)
    for kernel, file, says in (
        (RPM, tmp_path / "missing", "No such file"),
        (RPM, repository, "no RPM"),
        (RPM, an_rpm(tmp_path / "source-rpm", kind=1), "no RPM with programs for x86"),
        (RPM, an_rpm(tmp_path / "arm-rpm", architecture=12), "no RPM with programs for x86"),
        (RPM, an_rpm(tmp_path / "quoted", 'k"\nx = 1'), "no kernel's version"),
        (DEB, repository, "no Debian package"),
        (DEB, a_deb(tmp_path / "tool.deb", "hello"), "it is hello for amd64"),
        (DEB, a_deb(tmp_path / "arm.deb", architecture="arm64"), "for arm64"),
    ):
        with pytest.raises(BadInput, match=says):
            read_pin(kernel, file)


def test_where_a_package_of_a_repository_is_is_written_down_too(tmp_path: Path) -> None:
    """A builder at a cloud fetches it; a file of somebody's own is nowhere, so what stood there goes away."""
    rpm, deb, url = an_rpm(tmp_path / "k.rpm"), a_deb(tmp_path / "k.deb"), "https://example.org/k^1+2.rpm"
    assert (read_pin(RPM, rpm, url).file, read_pin(RPM, rpm, str(rpm)).file) == (url, None)
    assert read_pin(DEB, deb, url).file is None, "its own url leads to it"
    file = tmp_path / "versions.toml"
    file.write_bytes(FILE.read_bytes())

    write_pin(file, NAME, read_pin(RPM, rpm, url))
    assert load(file).pinned_kernel(NAME).package_url == url
    write_pin(file, NAME, read_pin(RPM, rpm, str(rpm)))
    assert load(file).pinned_kernel(NAME).package_url is None
    assert file.read_text().count(url) == 0


def test_a_url_that_cannot_be_written_down_is_refused_before_it_is_fetched() -> None:
    for url in ('https://example.org/k"\nx = 1', "https://user:word@example.org/k.rpm", "https://example.org/a b"):
        with pytest.raises(BadInput, match="without a user") as refused:
            check_can_be_pinned("k", RPM, url)
        assert "word" not in str(refused.value)
    check_can_be_pinned("k", RPM, "https://example.org:8443/a/k^1+2~rc1.rpm?x=y&z=%20")


def test_all_other_bytes_stay(tmp_path: Path) -> None:
    file = tmp_path / "versions.toml"
    before = FILE.read_bytes()
    file.write_bytes(before)
    file.chmod(0o640)

    write_pin(file, NAME, PIN)
    write_pin(file, NAME, Pin("kernel-6.7.13-1", "b" * 64))

    lines = {b'version = "kernel-6.7.13-1"\n', b'sha256 = "' + b"b" * 64 + b'"\n'}
    after = file.read_bytes().splitlines(keepends=True)
    assert b"".join(line for line in after if line not in lines) == before
    assert load(file).pinned_kernel(NAME).sha256 == "b" * 64
    assert load(file).kernel["linux-pvm-ci-rocky-hetzner"].sha256 is None
    assert file.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [file]


@given(
    st.lists(
        st.sampled_from(['clouds = [\n  "aws",\n]', "# [kernel.k]", "", "arguments = []", 'other = "x"']), unique=True
    ),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["first", "last"]),
    st.sampled_from(["", "\n"]),
)
def test_a_pin_is_written_into_its_own_table_however_that_is_laid_out(
    fields: list[str], end: str, where: str, last_end: str
) -> None:
    table = "\n".join(["[kernel.k]  # ours", *fields])
    other = '[kernel.other]\nsha256 = "c"'
    text = "\n".join([other, "", table] if where == "last" else [table, "", other]) + last_end
    before = text.replace("\n", end).encode()

    once = pinned_text(before, "k", PIN)

    assert f'version = "{PIN.version}"{end}sha256 = "{PIN.sha256}"{end}'.encode() in once
    removed = once.replace(f'version = "{PIN.version}"{end}sha256 = "{PIN.sha256}"{end}'.encode(), b"")
    assert removed.rstrip() == before.rstrip()
    assert pinned_text(once, "k", PIN) == once


def test_an_entry_that_is_no_table_of_its_own_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "versions.toml"
    for text, says in (("kernel.k = {a = 1}\n", "no line says"), ('[kernel.k]\nurl = """\nx"""\n', "of its own")):
        file.write_text(text)
        with pytest.raises(BadInput, match=says):
            write_pin(file, "k", PIN)
        assert file.read_text() == text


def test_what_no_file_can_pin_says_so() -> None:
    check_can_be_pinned("k", RPM, "kernel.rpm")
    check_can_be_pinned("k", DEB, None)
    with pytest.raises(BadInput, match="only says where packages are"):
        check_can_be_pinned("k", RPM, None)
    with pytest.raises(BadInput, match="debian-12's own"):
        check_can_be_pinned("debian-12-kvm", load().kernel["debian-12-kvm"], "kernel.deb")


def test_a_url_is_fetched_whole_or_refused() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/lost":
            raise httpx.ConnectError("nobody there", request=request)
        return httpx.Response(200 if request.url.path == "/k.rpm" else 404, content=b"kernel")

    def client() -> httpx.Client:
        return httpx.Client(transport=httpx.MockTransport(answer))

    with at_hand("https://example.org/k.rpm", client()) as file:
        assert (file.name, file.read_bytes()) == ("k.rpm", b"kernel")
    assert not file.exists()
    for place, error, says in (
        ("https://example.org/none", BadInput, "answered 404"),
        ("https://example.org/lost", TryLater, "nobody there"),
        ("http://example.org/k.rpm", BadInput, "without TLS"),
    ):
        with pytest.raises(error, match=says), at_hand(place, client()):
            pass
    assert BYTES_MAX > 1 << 30


def test_the_command_pins_and_then_the_image_may_be_built_from_it(tmp_path: Path) -> None:
    file = tmp_path / "versions.toml"
    file.write_bytes(FILE.read_bytes())
    done = said("pin", NAME, str(an_rpm(tmp_path / "k.rpm")), "--versions", str(file), command="image")
    assert done.returncode == 0, done.stderr
    assert "kernel-6.7.12-1, sha256:" in done.stdout
    assert load(file).pinned_kernel(NAME).version == "kernel-6.7.12-1"

    refused = said("pin", NAME, "--versions", str(file), command="image")
    assert refused.returncode == UNFIT
    assert refused.stderr.startswith("spot-runner: kernel 'linux-pvm-ci-rocky-aws': https://")
