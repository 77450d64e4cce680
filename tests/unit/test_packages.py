from __future__ import annotations

import copy
import json
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.small_package import HOST, SIZES, Part, on, rewritten, small_manifest, write_devices
from workers.domain.errors import BadPackage
from workers.domain.names import PackageDigest
from workers.host.manifest import MIB, padded
from workers.host.packages import BOOT_FILE, PackageShelf, Unpacked, verify

Change = Callable[[list[Part]], list[Part]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[PackageShelf, PackageDigest, Path]:
    """A shelf with one package, and the devices that it was made of."""
    home = tmp_path_factory.mktemp("shelf")
    (home / "devices").mkdir()
    shelf = PackageShelf(home / "store", home / "cache", HOST)
    digest = shelf.add(write_devices(home / "devices"), small_manifest)
    shelf.name("small", digest)
    return shelf, digest, home / "devices"


@pytest.fixture(scope="module")
def package(made: tuple[PackageShelf, PackageDigest, Path]) -> bytes:
    shelf, digest, _ = made
    return shelf.path(digest).read_bytes()


def _refusal(package: bytes, where: Path) -> str:
    path = where / "some.package"
    path.write_bytes(package)
    with pytest.raises(BadPackage) as refused:
        verify(path)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# ---------------------------------------------------------------- a package that is whole


def test_what_is_unpacked_is_what_was_packed(made: tuple[PackageShelf, PackageDigest, Path]) -> None:
    shelf, digest, devices = made

    unpacked = shelf.unpacked(digest)

    for name in SIZES:
        assert (unpacked.directory / name).read_bytes() == (devices / name).read_bytes(), name
    assert unpacked.manifest == small_manifest(unpacked.manifest.entries)
    assert unpacked.boot.command_line == "console=ttyS0"


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_memory_and_disk_stay_full_of_holes_and_any_monitor_may_read_and_nobody_write(
    made: tuple[PackageShelf, PackageDigest, Path], mask: int
) -> None:
    shelf, digest, _ = made

    before = os.umask(mask)
    try:
        unpacked = shelf.unpacked(digest)
    finally:
        os.umask(before)

    for path in (unpacked.memory, unpacked.disk):
        status = path.stat()
        assert status.st_blocks * 512 < status.st_size / 2
        assert status.st_mode & 0o777 == 0o444


def test_a_package_is_found_by_digest_and_by_name(made: tuple[PackageShelf, PackageDigest, Path]) -> None:
    shelf, digest, _ = made

    assert shelf.held() == (digest,)
    assert shelf.named("small") == digest
    with pytest.raises(BadPackage, match="none of recipe 'large'"):
        shelf.named("large")


def test_the_same_devices_make_the_same_bytes(made: tuple[PackageShelf, PackageDigest, Path], tmp_path: Path) -> None:
    _, digest, devices = made
    again = PackageShelf(tmp_path / "store", tmp_path / "cache")

    assert again.add({name: devices / name for name in SIZES}, small_manifest) == digest


def test_the_container_is_drafter_s(package: bytes) -> None:
    """Names, order and padding as its readers expect them, and our manifest behind all of it."""
    seen: list[tuple[str, int]] = []
    content: dict[str, bytes] = {}

    def look(parts: list[Part]) -> list[Part]:
        seen.extend((header.name, len(body)) for header, body in parts)
        content.update({header.name: body for header, body in parts})
        return parts

    rewritten(package, look)

    assert [name for name, _ in seen] == ["state", "memory", "kernel", "disk", "config", "initrd", "manifest"]
    assert all(size == padded(SIZES[name]) and size % MIB == 0 for name, size in seen if name in SIZES)
    assert padded(0) == MIB
    assert padded(1) == padded(MIB) == 2 * MIB


def test_entries_may_come_in_any_order(package: bytes, tmp_path: Path) -> None:
    path = tmp_path / "backwards.package"
    path.write_bytes(rewritten(package, lambda parts: parts[::-1]))

    assert verify(path).name == "small"


def test_processes_that_unpack_at_once_all_find_the_whole(
    made: tuple[PackageShelf, PackageDigest, Path], tmp_path: Path
) -> None:
    shelf, digest, devices = made
    store = shelf.path(digest).parent
    with multiprocessing.get_context("fork").Pool(3) as pool:
        memories = pool.starmap(_unpacked_memory, [(store, tmp_path / "cache", digest)] * 6)

    assert memories == [(devices / "memory").read_bytes()] * 6
    assert {path.name for path in (tmp_path / "cache").iterdir()} == _only_lock(shelf, digest) | {
        shelf.path(digest).stem
    }


def _only_lock(shelf: PackageShelf, digest: PackageDigest) -> set[str]:
    return {f".{shelf.path(digest).stem}.lock"}


def _unpacked_memory(store: Path, cache: Path, digest: PackageDigest) -> bytes:
    return PackageShelf(store, cache).unpacked(digest).memory.read_bytes()


# ---------------------------------------------------------------- a package that is not


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(at=st.floats(0, 1, exclude_max=True))
def test_a_truncated_package_is_refused_wherever_it_ends(package: bytes, tmp_path: Path, at: float) -> None:
    _refusal(package[: int(at * len(package))], tmp_path)


@pytest.mark.parametrize("missing", range(1, 20))
def test_a_package_that_lacks_its_last_bytes_is_refused(package: bytes, tmp_path: Path, missing: int) -> None:
    assert "truncated" in _refusal(package[:-missing], tmp_path)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_package_with_one_wrong_bit_is_refused_or_says_the_same(
    package: bytes, tmp_path: Path, at: float, bit: int
) -> None:
    """Some bits of a zstd stream mean nothing; whatever is accepted has the very contents that were packed."""
    spoilt = bytearray(package)
    spoilt[int(at * len(package))] ^= 1 << bit

    path = tmp_path / "some.package"
    path.write_bytes(spoilt)
    try:
        verify(path)
    except BadPackage:
        return
    assert _contents(bytes(spoilt)) == _contents(package)


def _contents(package: bytes) -> bytes:
    return zstandard.ZstdDecompressor().stream_reader(package).read()


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=2000))
def test_no_bytes_at_all_make_a_reader_do_anything_but_refuse(tmp_path: Path, package: bytes) -> None:
    _refusal(package, tmp_path)
    _refusal(zstandard.ZstdCompressor().compress(package), tmp_path)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("place", [0, -1])
def test_an_entry_with_another_content_is_refused_by_name(
    package: bytes, tmp_path: Path, name: str, place: int
) -> None:
    """Also in the zeros behind the device, where nobody would notice."""

    def spoil(content: bytes) -> bytes:
        spoilt = bytearray(content)
        spoilt[place] ^= 1
        return bytes(spoilt)

    assert _refusal(rewritten(package, _changed(name, spoil)), tmp_path).startswith(f"{name}: sha256")


@pytest.mark.parametrize("name", SIZES)
def test_an_entry_of_another_size_is_refused_by_name(package: bytes, tmp_path: Path, name: str) -> None:
    longer = rewritten(package, _changed(name, lambda content: content + bytes(MIB)))

    assert _refusal(longer, tmp_path).startswith(f"{name}: size")


@pytest.mark.parametrize("name", [*SIZES, "manifest"])
def test_a_missing_entry_is_refused_by_name(package: bytes, tmp_path: Path, name: str) -> None:
    less = rewritten(package, lambda parts: [part for part in parts if part[0].name != name])

    assert _refusal(less, tmp_path).startswith(f"{name}: ")


@pytest.mark.parametrize("name", [*SIZES, "manifest"])
def test_a_doubled_entry_is_refused_by_name(package: bytes, tmp_path: Path, name: str) -> None:
    twice = rewritten(package, lambda parts: [*parts, *(copy.copy(part) for part in parts if part[0].name == name)])

    assert _refusal(twice, tmp_path).startswith(f"{name}: ")


@pytest.mark.parametrize("name", ["../state", "/etc/passwd", "rootfs", "state/x"])
def test_an_entry_that_no_package_has_is_refused(package: bytes, tmp_path: Path, name: str) -> None:
    def add(parts: list[Part]) -> list[Part]:
        header = copy.copy(parts[0][0])
        header.name = name
        return [(header, b"x"), *parts]

    assert name in _refusal(rewritten(package, add), tmp_path)


def test_a_link_is_no_entry(package: bytes, tmp_path: Path) -> None:
    def link(parts: list[Part]) -> list[Part]:
        header = copy.copy(parts[0][0])
        header.type, header.linkname = b"2", "/etc/passwd"
        return [(header, b""), *parts[1:]]

    assert _refusal(rewritten(package, link), tmp_path).startswith("state: is not a regular file")


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("format", 1, "format is 1, this version reads 3; build it anew"),
        ("format", None, "format is None"),
        ("disk_mib", 7, "disk has"),
        ("disk_mib", "many", "disk_mib"),
        ("machine", {}, "machine"),
        ("nickname", "x", "nickname"),
        ("entries", {}, "state is not named"),
    ],
)
def test_a_manifest_that_is_wrong_is_refused_by_field(
    package: bytes, tmp_path: Path, field: str, value: object, says: str
) -> None:
    def change(text: bytes) -> bytes:
        return json.dumps(json.loads(text) | {field: value}).encode()

    refusal = _refusal(rewritten(package, _changed("manifest", change)), tmp_path)

    assert refusal.startswith("manifest: ")
    assert says in refusal


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b"null"])
def test_a_manifest_that_is_no_manifest_is_refused(package: bytes, tmp_path: Path, text: bytes) -> None:
    assert _refusal(rewritten(package, _changed("manifest", lambda _: text)), tmp_path).startswith("manifest: ")


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (on(architecture="aarch64"), "architecture: needs x86_64, this host has aarch64"),
        (on(acceleration="kvm"), "acceleration: needs tcg, this host has kvm"),
        (on(processor=replace(HOST.processor, vendor="GenuineIntel")), "vendor: needs AuthenticAMD"),
        (on(processor=replace(HOST.processor, flags=())), "flags: needs avx, fpu, la57, sse4_2 and 1 more"),
        (on(monitor="firecracker"), "monitor: needs qemu"),
        (on(machines=("pc-q35-9.0",)), "machine: needs pc-q35-7.2, this host has pc-q35-9.0"),
        (on(monitor_version="7.1"), "monitor_version: needs 7.2 or newer"),
    ],
)
def test_a_foreign_package_is_refused_by_property_also_when_it_is_unpacked_already(
    made: tuple[PackageShelf, PackageDigest, Path], other: object, says: str
) -> None:
    shelf, digest, _ = made
    store = shelf.path(digest).parent
    shelf.unpacked(digest)

    with pytest.raises(BadPackage, match=says):
        PackageShelf(store, store.parent / "cache", other).unpacked(digest)  # type: ignore[arg-type]
    with pytest.raises(BadPackage, match=says):
        verify(shelf.path(digest), digest, other)  # type: ignore[arg-type]


def _changed(name: str, change: Callable[[bytes], bytes]) -> Change:
    return lambda parts: [(header, change(body) if header.name == name else body) for header, body in parts]


# ---------------------------------------------------------------- nothing half-made


def test_a_package_under_another_s_name_is_refused_and_nothing_of_it_stays(
    made: tuple[PackageShelf, PackageDigest, Path], package: bytes, tmp_path: Path
) -> None:
    other = PackageDigest("sha256:" + "0" * 64)
    shelf = PackageShelf(tmp_path / "store", tmp_path / "cache")
    (tmp_path / "store").mkdir()
    shelf.path(other).write_bytes(package)

    with pytest.raises(BadPackage, match="digest"):
        shelf.unpacked(other)
    assert {path.name for path in (tmp_path / "cache").iterdir()} == _only_lock(shelf, other)


def test_what_a_killed_process_left_is_not_taken_for_a_package(
    made: tuple[PackageShelf, PackageDigest, Path], tmp_path: Path
) -> None:
    shelf, digest, devices = made
    other = PackageShelf(shelf.path(digest).parent, tmp_path)
    left = tmp_path / f".{shelf.path(digest).stem}.partial"
    left.mkdir()
    (left / "memory").write_bytes(b"half")

    assert other.unpacked(digest).memory.read_bytes() == (devices / "memory").read_bytes()
    assert not left.exists()


def test_what_an_earlier_boot_has_unpacked_is_verified_and_unpacked_anew(
    made: tuple[PackageShelf, PackageDigest, Path], tmp_path: Path
) -> None:
    """A machine that lost its power may have lost half of a file that it had renamed."""
    shelf, digest, _ = made
    here = PackageShelf(shelf._store, tmp_path)
    found = here.unpacked(digest)
    whole = found.disk.read_bytes()
    found.disk.chmod(0o600)
    found.disk.write_bytes(whole[: len(whole) // 2])
    assert here.unpacked(digest).disk.read_bytes() != whole, "it is not verified each time"
    (found.directory / BOOT_FILE).chmod(0o600)
    (found.directory / BOOT_FILE).write_text("another boot's\n")
    assert here.unpacked(digest).disk.read_bytes() == whole


def test_a_package_that_cannot_be_written_leaves_the_good_one_where_it_was(
    made: tuple[PackageShelf, PackageDigest, Path], tmp_path: Path
) -> None:
    shelf, digest, devices = made
    store = shelf.path(digest).parent
    before = set(store.iterdir())

    with pytest.raises(FileNotFoundError):
        shelf.add({name: devices / name for name in SIZES} | {"initrd": tmp_path / "missing"}, small_manifest)
    with pytest.raises(BadPackage, match="config"):
        shelf.add({name: devices / name for name in SIZES if name != "config"}, small_manifest)

    assert set(store.iterdir()) == before
    assert shelf.named("small") == digest


@pytest.mark.parametrize(
    "digest", ["", "sha256:", "md5:" + "0" * 64, "sha256:" + "../" * 21 + "x", "sha256:" + "A" * 64]
)
def test_what_is_no_digest_finds_nothing(tmp_path: Path, digest: str) -> None:
    with pytest.raises(BadPackage, match="no digest"):
        PackageShelf(tmp_path, tmp_path).unpacked(PackageDigest(digest))


def test_a_package_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(BadPackage, match="does not exist"):
        PackageShelf(tmp_path, tmp_path).unpacked(PackageDigest("sha256:" + "0" * 64))


def test_unpacked_speaks_of_files_that_are_there(made: tuple[PackageShelf, PackageDigest, Path]) -> None:
    shelf, digest, _ = made
    unpacked: Unpacked = shelf.unpacked(digest)

    assert all(
        path.is_file() for path in (unpacked.memory, unpacked.state, unpacked.disk, unpacked.kernel, unpacked.initrd)
    )
