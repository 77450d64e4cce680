"""Packages through the object store: published once, fetched in parts, and nothing is called so before it is whole."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.domain.errors import BadInput, BadPackage, Refused, Unfit, Unreachable
from workers.domain.names import PackageDigest
from workers.domain.published import (
    INDEX,
    PART_BYTES,
    Index,
    Part,
    folder,
    index_bytes,
    missing,
    object_name,
    read_index,
)
from workers.host.fetching import AT_ONCE, Fetcher
from workers.host.partial import Partial
from workers.host.publishing import publish

SIZE = 3 * PART_BYTES + 12_345
LIMIT_S = 60.0
HEX = st.text("0123456789abcdef", min_size=64, max_size=64)


class Shelf:
    """The store and the control plane; what befalls it is said in `before`, which is told each object's name."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.written: list[str] = []
        self.given: list[str] = []
        self.before: Callable[[str], None] = lambda _: None

    def listed(self, prefix: str) -> Mapping[str, int]:
        return {name: len(content) for name, content in self.contents.items() if name.startswith(prefix)}

    def write(self, name: str, content: bytes) -> None:
        self.before(name)
        self.contents[name] = content
        self.written.append(name)

    async def package_urls(self, digest: PackageDigest, names: tuple[str, ...]) -> Mapping[str, str]:
        return {name: object_name(digest, name) for name in names}

    def get(self, url: str, limit_bytes: int) -> bytes:
        self.before(url)
        if url not in self.contents:
            raise Refused(f"there is no {url}")
        assert len(self.contents[url]) <= limit_bytes
        self.given.append(url)
        return self.contents[url]


@pytest.fixture(scope="module")
def content() -> bytes:
    return os.urandom(SIZE)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def package(tmp_path: Path, content: bytes) -> Path:
    file = tmp_path / "a.package"
    file.write_bytes(content)
    return file


def digest_of(content: bytes) -> PackageDigest:
    return PackageDigest(f"sha256:{hashlib.sha256(content).hexdigest()}")


def fetch(shelf: Shelf, digest: PackageDigest, place: Path, progress: Callable[[int, int], None] | None = None) -> None:
    asyncio.run(asyncio.wait_for(Fetcher(place.parent, shelf, shelf).fetch(digest, place, progress), LIMIT_S))


def test_what_was_published_is_fetched_and_nothing_else_is_left(
    shelf: Shelf, package: Path, content: bytes, tmp_path: Path
) -> None:
    digest, place = digest_of(content), tmp_path / "store" / "p.package"
    seen: list[tuple[int, int]] = []
    done = publish(package, digest, shelf, lambda done, of: seen.append((done, of)))
    assert (done.sent_bytes, len(done.index.parts), seen[-1]) == (SIZE, 4, (SIZE, SIZE))
    assert shelf.written[-1] == object_name(digest, INDEX), "the index makes it a package, so it comes last"
    assert missing(done.index, shelf.listed(folder(digest))) is None
    heard: list[tuple[int, int]] = []
    fetch(shelf, digest, place, lambda done, of: heard.append((done, of)))
    assert place.read_bytes() == content
    assert place.stat().st_mode & 0o777 == 0o444
    assert heard[0] == (0, SIZE)
    assert heard[-1] == (SIZE, SIZE)
    assert {path.name for path in place.parent.iterdir()} == {place.name, f".{place.name}.lock"}
    asked = len(shelf.given)
    fetch(shelf, digest, place)
    assert len(shelf.given) == asked, "what is here is not fetched"


def test_publishing_twice_sends_nothing_and_an_interrupted_one_goes_on(
    shelf: Shelf, package: Path, content: bytes
) -> None:
    digest = digest_of(content)

    def refuse_from_the_third(_: str) -> None:
        if len(shelf.written) >= 2:
            raise Unreachable("the store is away")

    shelf.before = refuse_from_the_third
    with pytest.raises(Unreachable):
        publish(package, digest, shelf)
    assert object_name(digest, INDEX) not in shelf.contents, "half a package is none"
    shelf.before = lambda _: None
    sent = publish(package, digest, shelf).sent_bytes
    assert 0 < sent < SIZE
    assert publish(package, digest, shelf).sent_bytes == 0


def test_a_part_that_the_store_cut_short_is_sent_again(shelf: Shelf, package: Path, content: bytes) -> None:
    digest = digest_of(content)
    index = publish(package, digest, shelf).index
    name = object_name(digest, index.parts[1].sha256)
    shelf.contents[name] = shelf.contents[name][:-1]
    assert publish(package, digest, shelf).sent_bytes == PART_BYTES


def test_a_file_that_is_not_that_package_becomes_none(shelf: Shelf, package: Path) -> None:
    with pytest.raises(BadPackage, match=r"has digest sha256:[0-9a-f]{64}, not sha256:0+; build it again"):
        publish(package, PackageDigest("sha256:" + "0" * 64), shelf)
    assert not [name for name in shelf.contents if name.endswith(INDEX)]


def test_a_store_that_stumbles_costs_a_part_and_one_that_lies_costs_the_package(
    shelf: Shelf, package: Path, content: bytes, tmp_path: Path
) -> None:
    digest, place = digest_of(content), tmp_path / "store" / "p.package"
    index = publish(package, digest, shelf).index
    stumbled: set[str] = set()

    def stumble_once(name: str) -> None:
        if name not in stumbled:
            stumbled.add(name)
            raise Unreachable("reset") if len(stumbled) % 2 else Refused("this URL is too old")

    shelf.before = stumble_once
    fetch(shelf, digest, place)
    assert place.read_bytes() == content
    place.unlink()
    shelf.before = lambda _: None
    name = object_name(digest, index.parts[2].sha256)
    shelf.contents[name] = bytes(len(shelf.contents[name]))
    with pytest.raises(BadPackage, match=rf"instead of {index.parts[2].sha256}; publish it again"):
        fetch(shelf, digest, place)
    assert not place.exists()


def test_parts_that_are_right_and_make_another_whole_are_refused(
    shelf: Shelf, package: Path, content: bytes, tmp_path: Path
) -> None:
    digest, place = digest_of(content), tmp_path / "store" / "p.package"
    index = publish(package, digest, shelf).index
    turned = Index(digest, (index.parts[1], index.parts[0], *index.parts[2:]))
    shelf.contents[object_name(digest, INDEX)] = index_bytes(turned)
    with pytest.raises(BadPackage, match="what came has digest sha256:"):
        fetch(shelf, digest, place)
    assert {path.name for path in place.parent.iterdir()} == {f".{place.name}.lock"}, "nothing of it is built upon"


def test_what_was_never_published_says_how_to(shelf: Shelf, tmp_path: Path, content: bytes) -> None:
    digest = digest_of(content)
    with pytest.raises(Refused, match=rf"^{digest}: it is not here, .*run `spot-runner package publish {digest}`"):
        fetch(shelf, digest, tmp_path / "p.package")


KILLED = """
import asyncio, os, sys
from pathlib import Path
from tests.unit.test_publishing import Shelf, digest_of
from workers.host.fetching import Fetcher
directory = Path(sys.argv[1])
content = (directory / "a.package").read_bytes()
shelf = Shelf()
from workers.host.publishing import publish
publish(directory / "a.package", digest_of(content), shelf)
place = directory / "store" / "p.package"
def die(done, of):
    if done >= of // 2:
        os.kill(os.getpid(), 9)
asyncio.run(Fetcher(place.parent, shelf, shelf).fetch(digest_of(content), place, die))
"""


def test_a_killed_daemon_goes_on_where_it_was(shelf: Shelf, package: Path, content: bytes, tmp_path: Path) -> None:
    digest, place = digest_of(content), tmp_path / "store" / "p.package"
    child = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, timeout=LIMIT_S)
    assert child.returncode == -9
    assert not place.exists()
    publish(package, digest, shelf)
    fetch(shelf, digest, place)
    assert place.read_bytes() == content
    parts = [name for name in shelf.given if not name.endswith(INDEX)]
    assert 0 < len(parts) < 4, "what had been verified was not fetched again"


def test_half_a_line_and_a_lost_part_are_not_believed(
    shelf: Shelf, package: Path, content: bytes, tmp_path: Path
) -> None:
    digest, place = digest_of(content), tmp_path / "store" / "p.package"
    place.parent.mkdir()
    index = publish(package, digest, shelf).index
    left = Partial(place, index, hashlib.sha256(index_bytes(index)).hexdigest())
    left.open()
    left.write(1, content[PART_BYTES : 2 * PART_BYTES])
    left.close()
    with (place.parent / f".{place.name}.arrived").open("ab") as told:
        told.write(b"00000")
    fetch(shelf, digest, place)
    assert place.read_bytes() == content
    assert len(shelf.given) == 1 + 3
    place.unlink()
    left.open()
    left.write(1, bytes(PART_BYTES))  # as a machine that crashed may have kept it
    left.close()
    with pytest.raises(BadPackage, match="it is fetched anew"):
        fetch(shelf, digest, place)
    fetch(shelf, digest, place)
    assert place.read_bytes() == content


def test_a_full_disk_is_one_sentence(shelf: Shelf, package: Path, content: bytes, tmp_path: Path) -> None:
    digest, place = digest_of(content), tmp_path / "store" / "p.package"
    place.parent.mkdir()
    publish(package, digest, shelf)
    mount = ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(place.parent)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small disk is mounted by root only")
    try:
        with pytest.raises(
            Unfit, match=rf"the disk of {place.parent} is full: it has \d+ MiB left, and the package 24"
        ):
            fetch(shelf, digest, place)
        assert not place.exists()
    finally:
        subprocess.run(["umount", str(place.parent)], check=True)


def test_several_parts_are_on_the_line_at_once(shelf: Shelf, package: Path, content: bytes, tmp_path: Path) -> None:
    publish(package, digest_of(content), shelf)
    together = threading.Barrier(2, timeout=LIMIT_S / 2)
    shelf.before = lambda name: None if name.endswith(INDEX) else (together.wait(), None)[1]
    fetch(shelf, digest_of(content), tmp_path / "p.package")
    assert AT_ONCE > 1


parts = st.lists(st.builds(Part, st.integers(1, PART_BYTES), HEX), min_size=1, max_size=9).map(tuple)


@given(st.builds(Index, HEX.map(lambda hex_: PackageDigest(f"sha256:{hex_}")), parts))
def test_an_index_is_read_as_it_was_written(index: Index) -> None:
    assert read_index(index_bytes(index), index.digest) == index
    assert index.offsets[-1] + index.parts[-1].size == index.size


@given(st.binary() | st.text().map(str.encode))
def test_whatever_else_is_called_an_index_is_one_sentence(content: bytes) -> None:
    with pytest.raises(BadPackage, match="its index in the store is"):
        read_index(content, PackageDigest("sha256:" + "0" * 64))


@pytest.mark.parametrize("name", ["", "index/..", "../" * 3, "A" * 64, "0" * 63])
def test_names_that_no_package_has_are_refused(name: str) -> None:
    with pytest.raises(BadInput, match="is no object of a package"):
        object_name(PackageDigest("sha256:" + "0" * 64), name)
    with pytest.raises(BadInput, match="is no digest"):
        object_name(PackageDigest(f"sha256:{name}"), INDEX)
