"""A package that is only partly here: a file of its whole size, and a list of the parts in it that were verified.

    .<name>.arriving   the parts, each where it belongs
    .<name>.arrived    which index they are of, then the number of each part that is there

The list is written after the part, so a killed process leaves a part too many at worst. A machine that crashed may have
kept the list and lost the part: the hash of the whole, which is made of what lies in the file, tells.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import threading
from pathlib import Path
from typing import Final

from workers.domain.published import Index

# Each number has so many digits and a newline, so that half a line is not taken for another number.
NUMBER_BYTES: Final = 7
PIECE_BYTES: Final = 1 << 20


class Partial:
    """Safe for threads. Raises `OSError`."""

    def __init__(self, place: Path, index: Index, stamp: str) -> None:
        """`place` is where the whole package will lie, `stamp` tells this index from another one."""
        self.index, self._place, self._head = index, place, f"{stamp}\n".encode()
        self._file = place.with_name(f".{place.name}.arriving")
        self._list = place.with_name(f".{place.name}.arrived")
        self._changed = threading.Condition()
        self._offsets = index.offsets
        self.here: set[int] = set()
        self.arrived_bytes = 0
        self._fd = self._list_fd = -1
        self._given_up = False

    def open(self) -> None:
        """Take up what an earlier process has left, or begin."""
        self.here = self._left()
        if not self.here:
            self.drop()
        fd = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        list_fd = os.open(self._list, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with self._changed:
            self._fd, self._list_fd = fd, list_fd
        self.arrived_bytes = sum(self.index.parts[number].size for number in self.here)
        if not self.here:
            os.truncate(fd, self.index.size)
            os.write(list_fd, self._head)
        else:
            # Half a number may stand at the end.
            os.truncate(list_fd, len(self._head) + self._numbers() * NUMBER_BYTES)
        if shutil.disk_usage(self._place.parent).free < self.index.size - self.arrived_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(self, number: int, content: bytes) -> None:
        """Put one verified part where it belongs; nothing happens once it is closed."""
        with self._changed:
            if self._fd < 0:
                return
            at, view = self._offsets[number], memoryview(content)
            while view:
                written = os.pwrite(self._fd, view, at)
                at, view = at + written, view[written:]
            os.write(self._list_fd, f"{number:0{NUMBER_BYTES - 1}d}\n".encode())
            self.here.add(number)
            self.arrived_bytes += len(content)
            self._changed.notify_all()

    def hash_all(self) -> str:
        """Return the hash (SHA-256, hex) of the whole as it lies in the file, following the parts as they arrive."""
        whole = hashlib.sha256()
        for number, part in enumerate(self.index.parts):
            with self._changed:
                self._changed.wait_for(lambda number=number: number in self.here or self._given_up)  # type: ignore[misc]  # bound at once
                if self._given_up:
                    return ""
            end = self._offsets[number] + part.size
            for at in range(self._offsets[number], end, PIECE_BYTES):
                whole.update(os.pread(self._fd, min(PIECE_BYTES, end - at), at))
        return whole.hexdigest()

    def give_up(self) -> None:
        """Let `hash_all` return, whatever is still to come."""
        with self._changed:
            self._given_up = True
            self._changed.notify_all()

    def put(self) -> None:
        """Let the whole lie in its place, on disk; what was there is replaced at once."""
        os.fsync(self._fd)
        self._file.chmod(0o444)
        self._file.replace(self._place)
        self._list.unlink(missing_ok=True)

    def drop(self) -> None:
        """Forget everything that has arrived."""
        for path in (self._list, self._file):
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Write nothing any more; what has arrived stays for whoever comes next."""
        with self._changed:
            fds, self._fd, self._list_fd = (self._fd, self._list_fd), -1, -1
        for fd in fds:
            with contextlib.suppress(OSError):
                os.close(fd)

    def _left(self) -> set[int]:
        """Return which parts of this same index lie in the file."""
        try:
            told = self._list.read_bytes()
            is_whole = self._file.stat().st_size == self.index.size
        except FileNotFoundError:
            return set()
        if not told.startswith(self._head) or not is_whole:
            return set()
        rest = told[len(self._head) :]
        lines = [rest[at : at + NUMBER_BYTES] for at in range(0, self._numbers() * NUMBER_BYTES, NUMBER_BYTES)]
        found = {int(line) for line in lines if line.strip().isdigit()}
        return {number for number in found if number < len(self.index.parts)}

    def _numbers(self) -> int:
        return max(0, self._list.stat().st_size - len(self._head)) // NUMBER_BYTES
