"""What a step prints, cut into lines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

LINE_BYTES_MAX: Final = 16 * 1024
READ_BYTES: Final = 64 * 1024


class Output:
    """The reading end of a step's pipe; it outlives the step while something that the step started writes to it."""

    def __init__(self, descriptor: int, step: int) -> None:
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor
        self.step = step
        self.is_open = True
        self._rest = b""

    def lines(self) -> Iterator[str]:
        """Yield the lines that are there now; at the end of the pipe also the last one that has no end."""
        try:
            chunk = os.read(self.descriptor, READ_BYTES)
        except BlockingIOError:
            return
        if not chunk:
            self.is_open = False
        yield from self._cut(chunk)

    def last(self) -> Iterator[str]:
        """Yield what is left of a line when nobody waits for its end any more."""
        rest, self._rest = self._rest, b""
        if rest:
            yield rest.decode(errors="replace")

    def _cut(self, chunk: bytes) -> Iterator[str]:
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        while len(self._rest) > LINE_BYTES_MAX:
            whole.append(self._rest[:LINE_BYTES_MAX])
            self._rest = self._rest[LINE_BYTES_MAX:]
        for line in whole:
            for first in range(0, max(len(line), 1), LINE_BYTES_MAX):
                yield line[first : first + LINE_BYTES_MAX].removesuffix(b"\r").decode(errors="replace")
        if not self.is_open:
            yield from self.last()
