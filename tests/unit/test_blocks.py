"""A file that changes while it is copied is the same in the end."""

from __future__ import annotations

import os
import random
import struct
import subprocess
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from workers.domain.errors import BadInput
from workers.host.blocks import BLOCK_BYTES, Blocks, put_back
from workers.host.disks import check_overlay

BATCH = 1 << 20
LIMIT = 64 << 20


@pytest.fixture
def files(tmp_path: Path) -> Iterator[tuple[int, int]]:
    opened = [os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in ("source", "copy")]
    yield opened[0], opened[1]
    for file in opened:
        os.close(file)


def carry(blocks: Blocks, copy: int, passes: int | None = None) -> int:
    """Carry one pass over, or some batches of it; return how many batches came."""
    batches = list(islice(blocks.changed(BATCH), passes))
    assert all(len(batch) <= BATCH for batch in batches)
    for batch in batches:
        put_back(copy, batch, LIMIT)
    return len(batches)


def contents(file: int) -> bytes:
    return os.pread(file, os.fstat(file).st_size, 0)


def scribble(chance: random.Random, file: int) -> None:
    """Do what a guest and its qcow2 file do: write, overwrite, punch holes, grow and shrink."""
    place, length = chance.randrange(16 << 20), chance.randrange(1, 600_000)
    match chance.randrange(5):
        case 0 | 1:
            os.pwrite(file, chance.randbytes(length), place)
        case 2:
            os.pwrite(file, bytes(length), place)
        case 3:
            os.truncate(file, place)
        case _:
            os.truncate(file, max(os.fstat(file).st_size, place))


@pytest.mark.parametrize("seed", range(12))
def test_after_the_last_write_one_more_pass_makes_both_equal(files: tuple[int, int], seed: int) -> None:
    source, copy = files
    chance, blocks = random.Random(seed), Blocks(source)
    for _ in range(6):
        for _ in range(chance.randrange(6)):
            scribble(chance, source)
        # Some passes are given up after a few batches, as they are when the guest stops.
        carry(blocks, copy, chance.choice([None, 0, 1, 2]))
    carry(blocks, copy)
    os.truncate(copy, os.fstat(source).st_size)
    assert contents(copy) == contents(source)


def test_only_what_has_changed_is_carried_again(files: tuple[int, int]) -> None:
    source, copy = files
    blocks = Blocks(source)
    os.pwrite(source, random.Random(1).randbytes(8 << 20), 0)
    assert carry(blocks, copy) > 8
    assert carry(blocks, copy) == 0
    os.pwrite(source, b"!", 5 << 20)
    (batch,) = blocks.changed(BATCH)
    assert BLOCK_BYTES < len(batch) < BLOCK_BYTES + 32


def test_holes_are_not_read(files: tuple[int, int]) -> None:
    source, _ = files
    os.truncate(source, 1 << 40)
    os.pwrite(source, b"x", 1 << 39)
    assert sum(len(batch) for batch in Blocks(source).changed(BATCH)) < 2 * BLOCK_BYTES


@pytest.mark.parametrize(
    "batch",
    [
        b"short",
        struct.pack(">QI", 0, 10) + b"123456789",
        struct.pack(">QI", 0, BLOCK_BYTES + 1) + bytes(BLOCK_BYTES + 1),
        struct.pack(">QI", 1, 1) + b"x",
        struct.pack(">QI", LIMIT, 1) + b"x",
        struct.pack(">QI", 1 << 62, 1) + b"x",
    ],
)
def test_what_is_no_batch_is_refused_and_written_nowhere(files: tuple[int, int], batch: bytes) -> None:
    _, copy = files
    with pytest.raises(BadInput, match=r"^disk: "):
        put_back(copy, batch, LIMIT)
    assert contents(copy) == b""


class TestOverlay:
    """A parked overlay was written by a QEMU that a guest may have taken over; it must name nothing to be opened."""

    def overlay(self, tmp_path: Path, *options: str) -> int:
        path = tmp_path / "overlay.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, path, "64M"], check=True, timeout=60)
        return os.open(path, os.O_RDWR)

    def refused(self, overlay: int) -> None:
        with pytest.raises(BadInput, match=r"^disk: the overlay"):
            check_overlay(overlay)
        os.close(overlay)

    def test_ours_is_let_through(self, tmp_path: Path) -> None:
        base = tmp_path / "base"
        base.touch()
        os.truncate(base, 64 << 20)
        overlay = self.overlay(tmp_path, "-F", "raw", "-b", str(base))
        check_overlay(overlay)
        os.close(overlay)

    def test_one_whose_contents_are_in_another_file_is_refused(self, tmp_path: Path) -> None:
        self.refused(self.overlay(tmp_path, "-o", f"data_file={tmp_path / 'etc-shadow'},data_file_raw=on"))

    def test_an_older_version_is_refused(self, tmp_path: Path) -> None:
        self.refused(self.overlay(tmp_path, "-o", "compat=0.10"))

    def test_what_is_no_overlay_is_refused(self, tmp_path: Path) -> None:
        for content in (b"", b"QFI", bytes(200)):
            path = tmp_path / "other"
            path.write_bytes(content)
            self.refused(os.open(path, os.O_RDONLY))
