"""What an earlier daemon has left of a package is taken up only as far as it is of this one, and no part too many."""

from __future__ import annotations

import hashlib
import resource
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from workers.domain.names import PackageDigest
from workers.domain.published import Index, Part
from workers.host.partial import Partial

SIZE = 1000
CONTENTS = [bytes([number]) * SIZE for number in range(3)]
STAMP, OTHER = "a" * 64, "b" * 64


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def index_of(contents: list[bytes]) -> Index:
    parts = tuple(Part(len(one), sha256(one)) for one in contents)
    return Index(PackageDigest(f"sha256:{sha256(b''.join(contents))}"), parts)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "p.package"


@contextmanager
def opened(place: Path, contents: list[bytes] = CONTENTS, stamp: str = STAMP) -> Iterator[Partial]:
    with closing(Partial(place, index_of(contents), stamp)) as partial:
        partial.open()
        yield partial


def keep(place: Path, *numbers: int) -> None:
    """Let an earlier daemon have fetched these parts."""
    with opened(place) as partial:
        for number in numbers:
            partial.write(number, CONTENTS[number])


def beside(place: Path, kind: str) -> Path:
    return place.with_name(f".{place.name}.{kind}")


def test_what_was_left_is_taken_up_and_the_whole_is_what_it_should_be(place: Path) -> None:
    keep(place, 0, 2)
    with opened(place) as partial:
        assert (partial.here, partial.arrived_bytes) == ({0, 2}, 2 * SIZE)
        partial.write(1, CONTENTS[1])
        assert partial.hash_all() == sha256(b"".join(CONTENTS))
        partial.put()
    assert place.read_bytes() == b"".join(CONTENTS)
    assert [path.name for path in place.parent.iterdir()] == [place.name]


def test_parts_of_another_index_are_not_of_this_one(place: Path) -> None:
    keep(place, 0, 1)
    others = [bytes([9]) * SIZE, *CONTENTS[1:]]
    with opened(place, others, OTHER) as partial:
        assert partial.here == set()
        for number in (0, 1, 2):
            partial.write(number, others[number])
        assert partial.hash_all() == sha256(b"".join(others))
    with opened(place) as partial:
        assert partial.here == set()


@pytest.mark.parametrize("size", [0, SIZE, 3 * SIZE - 1, 3 * SIZE + 1])
def test_a_file_of_another_size_holds_nothing(place: Path, size: int) -> None:
    keep(place, 0, 2)
    with beside(place, "arriving").open("r+b") as file:
        file.truncate(size)
    with opened(place) as partial:
        assert partial.here == set()
        partial.write(0, CONTENTS[0])
    assert beside(place, "arriving").stat().st_size == 3 * SIZE


def test_a_list_without_its_file_is_forgotten(place: Path) -> None:
    keep(place, 0)
    beside(place, "arriving").unlink()
    with opened(place) as partial:
        assert partial.here == set()


@pytest.mark.parametrize("line", [b"000003\n", b"999999\n", b"-00001\n", b"0000x1\n", b"\n\n\n\n\n\n\n"])
def test_a_number_that_no_part_has_is_none(place: Path, line: bytes) -> None:
    keep(place, 1)
    with beside(place, "arrived").open("ab") as told:
        told.write(line)
    with opened(place) as partial:
        assert (partial.here, partial.arrived_bytes) == ({1}, SIZE)


@pytest.mark.parametrize("half", [b"0", b"00000", b"000000"])
def test_behind_half_a_number_the_next_one_is_read_all_the_same(place: Path, half: bytes) -> None:
    keep(place, 1)
    with beside(place, "arrived").open("ab") as told:
        told.write(half)
    with opened(place) as partial:
        partial.write(2, CONTENTS[2])
    with opened(place) as partial:
        assert partial.here == {1, 2}


def test_a_part_that_could_not_be_written_is_not_in_the_list(place: Path) -> None:
    keep(place, 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with opened(place) as partial:
        resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE, hard))  # the list is shorter, and the second part begins there
        try:
            with pytest.raises(OSError, match="File too large"):
                partial.write(1, CONTENTS[1])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with opened(place) as partial:
        assert partial.here == {0}


def test_nothing_is_written_once_it_is_closed_and_whoever_hashes_is_let_go(place: Path) -> None:
    partial = Partial(place, index_of(CONTENTS), STAMP)
    partial.open()
    partial.give_up()
    assert partial.hash_all() == ""
    partial.close()
    partial.write(0, CONTENTS[0])
    with opened(place) as again:
        assert again.here == set()
