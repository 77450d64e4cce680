"""A file that somebody writes to, carried over in blocks: first all of it, later what differs from before.

    pass 1 ─▶ every block that is no hole     pass 2, 3, ... ─▶ every block whose hash has changed since

Nothing has to be asked of whoever writes: after the last write one more pass makes both files equal, whatever was
caught half-written before. A batch is a run of records: offset, length, contents.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from typing import Final

from workers.domain.errors import BadInput

# As small as the clusters that a guest's scattered writes touch, as large as hashing them is cheap.
BLOCK_BYTES: Final = 256 << 10
_RECORD: Final = struct.Struct(">QI")
_EMPTY: Final = b""


class Blocks:
    """Remembers what was carried over of one open file. Not safe for threads."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._known: dict[int, bytes] = {}

    def changed(self, batch_bytes: int) -> Iterator[bytes]:
        """Yield what has changed since the last pass, in batches of at most so many bytes.

        What was yielded counts as carried over; who stops in between has the rest in the next pass.
        """
        batch = bytearray()
        for offset in self._offsets():
            contents = os.pread(self._file, BLOCK_BYTES, offset)
            found = hashlib.sha256(contents).digest() if contents else _EMPTY
            if found == self._known.get(offset, _EMPTY):
                continue
            if batch and len(batch) + _RECORD.size + len(contents) > batch_bytes:
                yield bytes(batch)
                batch.clear()
            batch += _RECORD.pack(offset, len(contents)) + contents
            self._known[offset] = found  # not before the batch that it did not fit into was taken
        if batch:
            yield bytes(batch)

    def _offsets(self) -> list[int]:
        """Return every block that holds something, or did."""
        here = {offset for start, end in extents(self._file) for offset in _blocks_of(start, end)}
        return sorted(here | set(self._known))


def extents(file: int) -> Iterator[tuple[int, int]]:
    """Yield where an open file holds something: start and end."""
    end = 0
    while True:
        try:
            start = os.lseek(file, end, os.SEEK_DATA)
        except OSError:
            return  # nothing but a hole until the end
        end = os.lseek(file, start, os.SEEK_HOLE)
        yield start, end


def put_back(file: int, batch: bytes, limit_bytes: int) -> None:
    """Write one batch into an open file, nowhere beyond this limit. Raises `BadInput` for what is no batch."""
    place = 0
    while place < len(batch):
        if len(batch) - place < _RECORD.size:
            raise BadInput("disk: a record is cut off; the park was written by something else")
        offset, length = _RECORD.unpack_from(batch, place)
        place += _RECORD.size
        if length > len(batch) - place or length > BLOCK_BYTES or offset % BLOCK_BYTES or offset + length > limit_bytes:
            raise BadInput(
                f"disk: a record of {length} bytes at {offset} does not fit; it was written by something else"
            )
        os.pwrite(file, batch[place : place + length], offset)
        place += length


def _blocks_of(start: int, end: int) -> range:
    return range(start - start % BLOCK_BYTES, end, BLOCK_BYTES)
